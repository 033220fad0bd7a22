// Request a URL. The environment sets an unreachable proxy, so only a direct connection succeeds.
// A response below 500 shows that Loki is reached: a reverse proxy in front of it can require credentials. This runs in the
// gateway's container.
fetch(process.argv[2], {signal: AbortSignal.timeout(15000)})
  .then(r => { console.log(`${process.argv[2]} responds with ${r.status}`); process.exit(r.status < 500 ? 0 : 1) })
  .catch(e => { console.log(`${e.message}: ${e.cause?.message ?? ''}`); process.exit(1) })

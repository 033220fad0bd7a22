// Request a URL through the proxy, with the bootstrap and certificate verification. This runs in the gateway's container.
fetch(process.argv[2], {signal: AbortSignal.timeout(30000)})
  .then(r => { console.log(`${new URL(process.argv[2]).host} responds with ${r.status}`); process.exit(r.status >= 500 ? 1 : 0) })
  .catch(e => { console.log(`${e.message}: ${e.cause?.message ?? ''}`); process.exit(1) })

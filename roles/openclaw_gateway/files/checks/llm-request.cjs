// Request a URL through the proxy, with the bootstrap and certificate verification. This runs in the gateway's container.
// Every response of the provider shows that the path works, also an error of the provider. A response of the proxy itself has
// the proxy's name in the header Proxy-Status.
fetch(process.argv[2], {signal: AbortSignal.timeout(30000)})
  .then(r => {
    const refused = (r.headers.get('proxy-status') || '').includes('openclaw-egress')
    console.log(`${refused ? 'the proxy' : new URL(process.argv[2]).host} responds with ${r.status}`)
    process.exit(refused ? 1 : 0)
  })
  .catch(e => { console.log(`${e.message}: ${e.cause?.message ?? ''}`); process.exit(1) })

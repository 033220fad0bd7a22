// Send an empty push to Loki through the proxy. Runs in the gateway's container. Loki stores nothing and responds with
// 422, or with 401 if it requires a tenant. The proxy responds with 403 if the policy denies the push.
require('http').request(process.argv[2], { method: 'POST', headers: { 'content-type': 'application/x-protobuf' } }, r => {
  console.log(`POST ${process.argv[2]} responds with ${r.statusCode}`)
  // The proxy's own refusals, including 400, name the proxy in Proxy-Status.
  const own = (r.headers['proxy-status'] || '').includes('openclaw-egress')
  process.exit(!own && [200, 204, 400, 401, 422].includes(r.statusCode) ? 0 : 1)
}).on('error', e => { console.log(e.message); process.exit(1) }).end()

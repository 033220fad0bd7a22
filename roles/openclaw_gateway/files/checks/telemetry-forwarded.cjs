// Send an empty push to Loki through the proxy. This runs in the gateway's container. Loki stores nothing and responds with
// 422, or with 401 if it requires a tenant. If the policy denies the push, the proxy responds with 403.
require('http').request(process.argv[2], { method: 'POST', headers: { 'content-type': 'application/x-protobuf' } }, r => {
  console.log(`POST ${process.argv[2]} responds with ${r.statusCode}`)
  // A refusal by the proxy has the proxy's name in the header Proxy-Status. This distinguishes the proxy's 400 from
  // Loki's.
  const own = (r.headers['proxy-status'] || '').includes('openclaw-egress')
  process.exit(!own && [200, 204, 400, 401, 422].includes(r.statusCode) ? 0 : 1)
}).on('error', e => { console.log(e.message); process.exit(1) }).end()

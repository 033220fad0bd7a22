// Request a tunnel to an address, and expect that the proxy refuses it. This runs in the gateway's container.
const http = require('http'), path = process.argv[2], p = new URL(process.env.HTTPS_PROXY)
const end = (text, code) => { console.log(text); process.exit(code) }
setTimeout(() => end('no response in 20 s', 1), 20000)
const told = answer => end(`${p.host} responds with ${answer.statusCode} for ${path}`, answer.statusCode === 403 ? 0 : 1)
http.request({host: p.hostname, port: p.port, method: 'CONNECT', path, headers: {host: path}, agent: false})
  .on('connect', told).on('response', told).on('error', e => end(e.message, 1)).end()

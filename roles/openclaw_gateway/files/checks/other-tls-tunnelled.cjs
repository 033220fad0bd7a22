// Open a tunnel to a host, and check the issuer of the certificate in it. This runs in the gateway's container.
const http = require('http'), tls = require('tls'), [host, p] = [process.argv[2], new URL(process.env.HTTPS_PROXY)]
const end = (text, code) => { console.log(text); process.exit(code) }
setTimeout(() => end('no response in 30 s', 1), 30000)
http.request({host: p.hostname, port: p.port, method: 'CONNECT', path: `${host}:443`, headers: {host: `${host}:443`}, agent: false})
  .on('connect', (answer, socket) => {
    // Warn if the policy denies the host: the check then shows nothing about tunnels, and the deployment may be right.
    const denied = answer.statusCode === 403 && (answer.headers['proxy-status'] ?? '').includes('openclaw-egress')
    if (denied) end(`${host}: not checked: the policy denies it to the gateway. Set openclaw_egress_verify_tunnel_host`, 3)
    if (answer.statusCode !== 200) end(`${host}: the proxy responds with ${answer.statusCode}`, 1)
    const secure = tls.connect({socket, servername: host, rejectUnauthorized: false}, () => {
      const issuer = secure.getPeerCertificate().issuer ?? {}
      if (!issuer.O && !issuer.CN) end(`${host}: could not be checked: the certificate names no issuer`, 1)
      end(`${host}: certificate issued by ${issuer.O ?? issuer.CN}`, /openclaw/i.test(`${issuer.O} ${issuer.CN}`) ? 1 : 0)
    }).on('error', e => end(`${host}: ${e.message}`, 1))
  }).on('error', e => end(e.message, 1)).end()

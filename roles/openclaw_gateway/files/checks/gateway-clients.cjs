// Send a request with each common HTTP client, and check that the proxy responds to it. This runs in the gateway's container.
// The destination is in 192.0.2.0/24, which no network uses (RFC 5737) and every policy refuses: only the proxy can respond.
const http = require('http'), http2 = require('http2'), https = require('https'), net = require('net'), tls = require('tls')
const {execFile} = require('child_process')
const [level] = process.argv.slice(2), host = '192.0.2.1', timeout = 8000

/** Return whether the error, or one of its causes, shows that a proxy refused a tunnel of Node's http or of undici. */
const refused = error => Boolean(error) && (['ERR_PROXY_TUNNEL', 'UND_ERR_ABORTED'].includes(error.code) || refused(error.cause))
/** Return the code of the error or of its causes, or else its message. */
const codeOf = error => {
  for (let one = error; one; one = one.cause ?? one.errors?.[0]) if (one.code) return typeof one.code === 'number' ? `exit status ${one.code}` : one.code
  return error?.signal ?? error?.message ?? 'no error'
}
const requested = (module, options = {}) => new Promise((done, fail) =>
  module.get({host, path: '/', ...options}, response => { response.resume(); done() }).on('error', fail))
const connected = session => new Promise((done, fail) => session.on('connect', done).on('error', fail))
/** Run a program that prints the proxy's status, or 0 if no proxy responds. Resolve to null if the program is not installed. */
const printed = (...words) => new Promise((done, fail) => execFile(words[0], words.slice(1), {timeout}, (error, output) =>
  ['ENOENT', 'EACCES'].includes(error?.code) ? done(null) : Number(output) ? done() : fail(error ?? new Error('no proxy responded'))))
const CHILD = `const refused = ${refused}; fetch('https://${host}/').then(r => console.log(r.status), e => console.log(refused(e) ? 403 : 0))`

const clients = {
  'fetch': () => fetch(`https://${host}/`),
  'fetch (http)': () => fetch(`http://${host}/`),
  'https': () => requested(https),
  'https with an own agent': () => requested(https, {agent: new https.Agent()}),
  'https with createConnection, like npm ws': () => requested(https, {createConnection: tls.connect}),
  'http': () => requested(http),
  'http with an own agent': () => requested(http, {agent: new http.Agent()}),
  'http2': () => connected(http2.connect(`https://${host}`)),
  'a child process of node': () => printed(process.execPath, '-e', CHILD),
  'curl': () => printed('curl', '--silent', '--output', '/dev/null', '--write-out', '%{http_connect}', `https://${host}/`),
}
/** Settle with the promise, but fail if that takes too long. */
const inTime = promise => {
  let timer
  const late = new Promise((done, fail) => { timer = setTimeout(fail, timeout, new Error('no response')) })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
/** Return '' if the proxy responded to the client, null if the client is not installed, and else the code of its error. */
const missedWith = async client => {
  try {
    return await inTime(client()) === null ? null : ''
  } catch (error) {
    return refused(error) ? '' : codeOf(error)
  }
}
/** Send a CONNECT request to the proxy without an HTTP client. Reject if the proxy does not respond. */
const proxyResponds = url => inTime(new Promise((done, fail) => {
  const socket = net.connect(Number(url.port) || 80, url.hostname.replace(/^\[|\]$/g, ''))
  socket.on('connect', () => socket.write(`CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\n\r\n`))
  socket.on('data', data => { socket.destroy(); String(data).startsWith('HTTP/1.') ? done() : fail(new Error('not an HTTP response')) })
  socket.on('error', fail).on('close', () => fail(new Error('connection closed without a response')))
}))
const main = async () => {
  const proxy = ['https_proxy', 'HTTPS_PROXY', 'http_proxy', 'HTTP_PROXY'].map(name => process.env[name]).find(Boolean)
  if (!URL.canParse(proxy ?? '')) return [1, 'could not be checked: HTTPS_PROXY of the gateway is not a URL']
  const url = new URL(proxy)
  try {
    await proxyResponds(url)
  } catch (error) {
    return [1, `could not be checked: the proxy ${url.host} does not respond to a CONNECT request (${codeOf(error)})`]
  }
  const names = Object.keys(clients), results = await Promise.all(Object.values(clients).map(missedWith))
  const missed = names.map((name, index) => results[index] && `${name} (${results[index]})`).filter(Boolean)
  const tried = results.filter(result => result !== null).length
  // At enforcement level `application`, clients can connect directly: report a warning (3) instead of a failure.
  return missed.length ? [level === 'network' ? 1 : 3, `not through the proxy: ${missed.join(', ')}`]
    : [0, `${tried} clients tried, all through the proxy`]
}
process.on('uncaughtException', () => {}) // Continue if a client emits a second error.
main().then(([status, found]) => {
  console.log(found)
  process.exit(status)
})

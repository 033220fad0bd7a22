// Send a request with each common HTTP client, and check that the proxy responds to it. This runs in the gateway's container.
// The destination is in 192.0.2.0/24, which no network uses (RFC 5737) and every policy refuses: only the proxy can respond.
const http = require('http'), http2 = require('http2'), https = require('https'), tls = require('tls'), {execFile} = require('child_process')
const [level] = process.argv.slice(2), host = '192.0.2.1', timeout = 8000

/** Return whether the error, or one of its causes, shows that a proxy refused a tunnel of Node's http or of undici. */
const refused = error => Boolean(error) && (['ERR_PROXY_TUNNEL', 'UND_ERR_ABORTED'].includes(error.code) || refused(error.cause))
const requested = (module, options = {}) => new Promise((done, fail) =>
  module.get({host, path: '/', ...options}, response => { response.resume(); done() }).on('error', fail))
const connected = session => new Promise((done, fail) => session.on('connect', done).on('error', fail))
/** Run a program that prints the proxy's status, or 0 if no proxy responds. Resolve to null if the program is not installed. */
const printed = (...words) => new Promise((done, fail) => execFile(words[0], words.slice(1), {timeout}, (error, output) =>
  error?.code === 'ENOENT' ? done(null) : Number(output) ? done() : fail(error ?? new Error('no proxy responded'))))
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
/** Return whether the proxy responded to the client; null if the client is not installed. */
const proxied = async client => {
  const late = new Promise((done, fail) => setTimeout(fail, timeout, new Error('no response')))
  try {
    return await Promise.race([client(), late]) === null ? null : true
  } catch (error) {
    return refused(error)
  }
}
process.on('uncaughtException', () => {}) // Continue if a client emits a second error.
Promise.all(Object.values(clients).map(proxied)).then(results => {
  const missed = Object.keys(clients).filter((name, index) => results[index] === false)
  const tried = results.filter(result => result !== null).length
  console.log(missed.length ? `not through the proxy: ${missed.join(', ')}` : `${tried} clients tried, all through the proxy`)
  // At enforcement level `application`, clients can connect directly: report a warning (3) instead of a failure.
  process.exit(missed.length ? level === 'network' ? 1 : 3 : 0)
})

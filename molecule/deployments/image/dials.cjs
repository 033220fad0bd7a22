'use strict';
// Send one request with each kind of client to an inspected host, and one to a host whose TLS the proxy tunnels. Print a JSON
// object: for each client the HTTP status, or the error; null if the program is not installed.
//
//   node dials.cjs RUN        the path of each URL names RUN and the client, so that a test finds its record
//
// As a module: `dials(run)` returns a promise of that object.
const https = require('node:https')
const { execFile } = require('node:child_process')
const WebSocket = require('ws')

const INSPECTED = 'api.anthropic.com', TUNNELLED = 'www.example.com'
const requested = (url, options) => new Promise((done, fail) =>
  https.get(url, options, response => { response.resume(); done(response.statusCode) }).on('error', fail))
const opened = url => new Promise((done, fail) =>
  new WebSocket(url).on('open', () => done(101)).on('error', fail)
    .on('unexpected-response', (request, response) => { response.resume(); done(response.statusCode) }))
/** Run a program that prints a status. Resolve to null if the program is not installed. */
const printed = (...words) => new Promise((done, fail) => execFile(words[0], words.slice(1), (error, output) =>
  error?.code === 'ENOENT' ? done(null) : error ? fail(error) : done(Number(output))))

const CLIENTS = {
  fetch: url => fetch(url).then(response => response.status),
  'https-own-agent': url => requested(url, { agent: new https.Agent() }),
  ws: url => opened(url.replace('https:', 'wss:')),
  'spawned-node': url => printed(process.execPath, '-e', `fetch(${JSON.stringify(url)}).then(r => console.log(r.status))`),
  curl: url => printed('curl', '--silent', '--cacert', process.env.NODE_EXTRA_CA_CERTS, '--output', '/dev/null',
    '--write-out', '%{http_code}', url),
}

async function dials(run) {
  const urls = Object.keys(CLIENTS).map(name => [name, `https://${INSPECTED}/${run}/${name}`])
  const all = [...urls.map(([name, url]) => [name, CLIENTS[name](url)]),
    // The operator's own CA signed this server's certificate.
    ['tunnelled', fetch(`https://${TUNNELLED}/`).then(response => response.status)]]
  return Object.fromEntries(await Promise.all(all.map(async ([name, dial]) =>
    [name, await dial.catch(error => `${error.message} ${error.cause ?? ''}`)])))
}

module.exports = { dials }
if (process.argv[1] === '-' || require.main === module) {
  dials(process.argv[2]).then(found => { console.log(JSON.stringify(found)); process.exit() })
}

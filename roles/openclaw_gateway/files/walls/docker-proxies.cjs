// openclaw.egress: tells the nested daemon, and what it builds, of their proxy. Run by `guard`, before that daemon starts.
//
//   node docker-proxies.cjs PULLS BUILDS      URLs of the proxy
//
// What is in the two files already stays, a proxy that somebody named there too. They are in the container's own layer, so
// that a new container starts without, unless the operator mounts these folders.
'use strict'
const { execFileSync } = require('child_process')
const fs = require('fs')
const path = require('path')

const [pulls, builds] = process.argv.slice(2)
const direct = 'localhost,127.0.0.1'

/** Adds to a JSON file what it does not have yet. A file that cannot be read or written is told, and left. */
function complete(file, section, values) {
  try {
    const text = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''
    const have = text.trim() ? JSON.parse(text) : {}
    const wanted = section(have)
    const missing = Object.entries(values).filter(([name]) => wanted[name] === undefined)
    if (!missing.length) return
    Object.assign(wanted, Object.fromEntries(missing))
    fs.mkdirSync(path.dirname(file), { recursive: true })
    fs.writeFileSync(file, JSON.stringify(have, null, 2) + '\n')
  } catch (error) {
    console.error(`openclaw.egress: ${file} does not name the proxy (${error.message}): what needs it there is refused`)
  }
}

// Docker Engine knows proxies in daemon.json from 23.0 on, and does not start with what it does not know. An older one
// takes the gateway's own from its environment.
const version = Number(/version (\d+)/.exec(execFileSync('dockerd', ['--version'], { encoding: 'utf8' }))?.[1] ?? 0)
if (version >= 23) {
  complete('/etc/docker/daemon.json', have => (have.proxies ??= {}), { 'http-proxy': pulls, 'https-proxy': pulls, 'no-proxy': direct })
}
// What `docker build` gives its steps, for each user who may build. Docker's command gives it to containers too, and
// there before what comes from an --env-file, as OpenClaw's sandboxes have it: hence the door that is the same for all.
const homes = fs.readFileSync('/etc/passwd', 'utf8').split('\n').map(line => line.split(':')[5])
  .filter(home => home && (home === '/root' || home.startsWith('/home/')))
const folders = new Set([...homes, process.env.HOME].filter(home => home && fs.existsSync(home)).map(home => path.join(home, '.docker')))
if (process.env.DOCKER_CONFIG) folders.add(process.env.DOCKER_CONFIG)
for (const folder of folders) {
  const made = !fs.existsSync(folder)
  complete(path.join(folder, 'config.json'), have => ((have.proxies ??= {}).default ??= {}), { httpProxy: builds, httpsProxy: builds, noProxy: direct })
  if (made && fs.existsSync(folder)) {
    const { uid, gid } = fs.statSync(path.dirname(folder))
    for (const one of [folder, path.join(folder, 'config.json')]) fs.chownSync(one, uid, gid)
  }
}

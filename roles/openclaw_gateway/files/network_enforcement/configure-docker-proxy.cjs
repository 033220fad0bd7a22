// openclaw.egress: configure the proxy of the nested Docker daemon and of its builds. `firewall-entrypoint` runs this script
// before the daemon starts.
//
//   node configure-docker-proxy.cjs PULLS BUILDS      proxy URL for image pulls, and for builds
//
// The script only adds missing values: it does not change a proxy that a file already sets. The files are in the container's
// writable layer, so a new container starts without them, unless the operator mounts their folders.
'use strict'
const { execFileSync } = require('child_process')
const fs = require('fs')
const path = require('path')

const [pulls, builds] = process.argv.slice(2)
const direct = 'localhost,127.0.0.1'

/** Add missing values to a JSON file. If the file cannot be read or written, print an error and continue. */
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
    console.error(`openclaw.egress: cannot set the proxy in ${file} (${error.message}): requests of programs that read this file will be refused`)
  }
}

// Write daemon.json only for Docker Engine 23.0 and later: older versions do not know the key `proxies`, and do not
// start with an unknown key. They use the proxy variables of the gateway's environment.
const version = Number(/version (\d+)/.exec(execFileSync('dockerd', ['--version'], { encoding: 'utf8' }))?.[1] ?? 0)
if (version >= 23) {
  complete('/etc/docker/daemon.json', have => (have.proxies ??= {}), { 'http-proxy': pulls, 'https-proxy': pulls, 'no-proxy': direct })
}
// Set the proxy in config.json of each user that may build, because `docker build` passes it to the build steps.
// `docker run` also passes it to containers, where it overrides the --env-file of OpenClaw's sandboxes. So the URL must
// name the shared proxy port, which all classes can use.
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

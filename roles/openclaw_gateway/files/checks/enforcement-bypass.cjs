// Try to connect to addresses that the gateway must not reach. This runs in the gateway's container.
const net = require('net'), tried = process.argv.slice(2).map(url => new URL(url)).map(({hostname, port}) => new Promise(done => {
  const to = net.connect(Number(port) || 80, hostname, () => done(`${hostname}:${port || 80}`)).on('error', () => done())
  setTimeout(() => { to.destroy(); done() }, 5000)
}))
Promise.all(tried).then(all => all.filter(Boolean)).then(reached => {
  console.log(reached.length ? `reached ${reached.join(', ')}` : `tried ${tried.length} destinations, reached none`); process.exit(reached.length)
})

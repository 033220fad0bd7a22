// A gateway that is small: it listens on port 18789, and sends the requests of `dials.cjs` if a client asks for it.
//
//   node dist/index.js gateway --port 18789
//
// GET /            the options of the process, as JSON
// GET /dial/RUN    the result of `dials(RUN)`
import { createServer } from 'node:http'
import module from './dials.cjs'

const options = { argv: process.argv.slice(2), execArgv: process.execArgv, NODE_OPTIONS: process.env.NODE_OPTIONS }
createServer(async (request, response) => {
  const run = /^\/dial\/(\w+)$/.exec(request.url)?.[1]
  response.end(JSON.stringify(run ? await module.dials(run) : options))
}).listen(18789, '0.0.0.0')
process.on('SIGTERM', () => process.exit())

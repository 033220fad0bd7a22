// Run the steps from the JSON argument one after the other. Each step names one of the clients below. Print the results
// as a JSON list: {status, body} or {error}. All names below .test resolve to this machine. The server that receives a
// request shows whether it was sent directly or through the proxy.
import { fork } from 'node:child_process';
import { createRequire } from 'node:module';
import dns from 'node:dns';
import { readFileSync } from 'node:fs';
import http, { request as namedRequest } from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import tls from 'node:tls';
import { Worker } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';

const { lookup } = dns;
dns.lookup = (name, ...rest) => lookup(name.endsWith('.test') ? '127.0.0.1' : name, ...rest);

const module = (url) => (url.startsWith('https:') ? https : http);

const answered = (start) =>
  new Promise((resolve, reject) => {
    const request = start(async (response) => {
      let body = '';
      for await (const chunk of response) body += chunk;
      resolve({ status: response.statusCode, body });
    });
    request.on('error', reject).end();
  });

/** Read a stream, and acknowledge its first part to the origin. Return the whole text. */
async function acknowledged(chunks, acknowledge) {
  const decoder = new TextDecoder();
  let body = '';
  for await (const chunk of chunks) {
    body += decoder.decode(chunk, { stream: true });
    if (body === 'first;') await acknowledge();
  }
  return body;
}

const ways = {
  fetch: async ({ url, options }) => {
    const response = await fetch(url, options);
    return { status: response.status, body: await response.text() };
  },
  request: ({ url, options }) => answered((then) => module(url).request(url, options ?? {}, then)),
  get: ({ url, options }) => answered((then) => module(url).get(url, options ?? {}, then)),
  namedRequest: ({ url }) => answered((then) => namedRequest(url, then)),
  socket: ({ path }) => answered((then) => http.request({ socketPath: path, path: '/unix' }, then)),
  ownAgent: ({ url }) => answered((then) => module(url).request(url, { agent: new (module(url).Agent)() }, then)),
  /** Send a request with an agent that the application creates with its own TLS options. */
  keptAgent: ({ url, agent, options }) =>
    answered((then) => module(url).get(url, { ...options, agent: new (module(url).Agent)(agent) }, then)),
  /** Send a request as npm `ws` does: without an agent, with its own createConnection function. */
  createConnection: ({ url, form }) => {
    const secure = url.startsWith('https:');
    const dial = (options) => (secure
      ? tls.connect({ ...options, path: undefined, servername: options.host })
      : net.connect({ ...options, path: undefined }));
    const { hostname: host, port, pathname: path } = new URL(url);
    const options = { createConnection: dial, ...(form === 'options' ? { host, port, path } : {}) };
    return answered((then) => (form === 'options'
      ? module(url).request(options, then)
      : module(url).get(form === 'URL' ? new URL(url) : url, options, then)));
  },
  /** Open a WebSocket with npm `ws`, loaded from the application's directory. */
  ws: ({ url, options }) =>
    new Promise((resolve, reject) => {
      const socket = new (createRequire(import.meta.url)('ws'))(url, options);
      socket.on('message', (data) => resolve({ status: 101, body: String(data) }));
      socket.on('error', reject);
    }),
  /** Open a WebSocket with npm `ws` and a proxy agent that the application creates. */
  wsAgent: ({ url, proxy }) => {
    const { HttpsProxyAgent } = createRequire(import.meta.url)('https-proxy-agent');
    return ways.ws({ url, options: { agent: new HttpsProxyAgent(proxy) } });
  },
  /** Open a TLS connection with one of the three signatures of tls.connect. Send a request over it. */
  tls: ({ url, form, options }) =>
    new Promise((resolve, reject) => {
      const { hostname: host, port, pathname } = new URL(url);
      const connected = () => socket.write(`GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
      const socket = {
        options: () => tls.connect({ host, port, ...options }, connected),
        host: () => tls.connect(Number(port), host, options ?? {}, connected),
        port: () => tls.connect(port, { host, ...options }, connected),
      }[form]();
      let received = '';
      socket.on('data', (chunk) => { received += chunk; }).on('error', reject);
      socket.on('end', () => resolve({ status: Number(received.split(' ')[1]), body: received.split('\r\n\r\n')[1] }));
    }),
  /** Open a TLS connection with a timeout that expires before the server sends anything. */
  tlsTimeout: ({ url }) =>
    new Promise((resolve, reject) => {
      const { hostname: host, port } = new URL(url);
      const socket = tls.connect({ host, port, timeout: 300 }, () => {});
      socket.on('error', reject).on('timeout', () => resolve({ status: 0, body: 'timeout' }) || socket.destroy());
    }),
  net: ({ url }) =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL(url);
      const socket = net.connect(Number(port), hostname, () => resolve({ status: 0, body: '' }) || socket.destroy());
      socket.on('error', reject);
    }),
  /** Send an HTTP/2 request to a server in this process, which the proxy reaches under any name. */
  http2: ({ url, pem, options }) =>
    new Promise((resolve, reject) => {
      const secure = url.startsWith('https:');
      const key = secure && readFileSync(pem);
      const server = secure ? http2.createSecureServer({ key, cert: key }) : http2.createServer();
      server.on('stream', (stream) => stream.respond({ ':status': 200 }) || stream.end('origin h2'));
      server.listen(0, '127.0.0.1', () => {
        const client = http2.connect(`${url}:${server.address().port}`, options);
        const ended = (then) => (value) => then(value) || client.destroy() || server.close();
        client.on('error', ended(reject));
        const stream = client.request({ ':path': '/h2' });
        let body = '';
        stream.on('error', ended(reject)).on('data', (chunk) => { body += chunk; });
        stream.on('end', () => ended(resolve)({ status: 200, body }));
      });
    }),
  /** Send a request with undici and a dispatcher that the application creates; `size` is the length of the request body. */
  dispatcher: async ({ url, kind, options, size }) => {
    const undici = createRequire(import.meta.url)('undici');
    const toOrigin = ['Client', 'Pool'].includes(kind);
    const dispatcher = new undici[kind](...(toOrigin ? [new URL(url).origin] : []), options);
    const sent = size ? { method: 'POST', body: 'x'.repeat(size) } : {};
    const response = await undici.request(url, { dispatcher, ...sent });
    const body = await response.body.text();
    await dispatcher.close();
    return { status: response.statusCode, body: size ? String(body.length) : body };
  },
  /** Call fetch() with a dispatcher of the application that resolves names itself, as an SSRF guard does. */
  pinned: async ({ url }) => {
    const { Agent } = createRequire(import.meta.url)('undici');
    const found = { address: '127.0.0.1', family: 4 };
    const lookup = (_, options, then) => (options.all ? then(null, [found]) : then(null, found.address, found.family));
    const dispatcher = new Agent({ connect: { lookup } });
    const response = await createRequire(import.meta.url)('undici').fetch(url, { dispatcher });
    return { status: response.status, body: await response.text() };
  },
  fetchStream: async ({ url, ack }) => {
    const response = await fetch(url);
    return { status: response.status, body: await acknowledged(response.body, () => fetch(ack)) };
  },
  requestStream: ({ url, ack }) =>
    new Promise((resolve, reject) => {
      const got = async (response) => {
        const acknowledge = () => answered((then) => module(ack).get(ack, then));
        resolve({ status: response.statusCode, body: await acknowledged(response, acknowledge) });
      };
      module(url).get(url, got).on('error', reject);
    }),
  webSocket: ({ url }) =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      socket.onmessage = ({ data }) => resolve({ status: 101, body: data });
      socket.onerror = ({ error, message }) => reject(error ?? new Error(message));
    }),
  /** Send a request with the global dispatcher, found under the key that undici >= 8 uses. */
  dispatcher8: ({ url }) =>
    new Promise((resolve, reject) => {
      const { origin, pathname } = new URL(url);
      const answer = { body: '' };
      globalThis[Symbol.for('undici.globalDispatcher.2')].dispatch({ origin, path: pathname, method: 'GET' }, {
        onRequestStart() {},
        onResponseStart: (_controller, status) => { answer.status = status; },
        onResponseData: (_controller, chunk) => { answer.body += chunk; },
        onResponseEnd: () => resolve(answer),
        onResponseError: (_controller, error) => reject(error),
      });
    }),
  /** Send a request with the application's undici and the global dispatcher that undici finds when it is loaded. */
  undici: async ({ url }) => {
    const response = await createRequire(import.meta.url)('undici').request(url);
    return { status: response.statusCode, body: await response.body.text() };
  },
  loadUndici: async () => ({ status: 0, body: typeof createRequire(import.meta.url)('undici').Agent }),
  fork: ({ steps }) =>
    new Promise((resolve, reject) => {
      const stdio = ['ignore', 'pipe', 'inherit', 'ipc'];
      const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(steps)], { stdio });
      let out = '';
      child.stdout.on('data', (chunk) => { out += chunk; });
      child.on('error', reject).on('close', () => resolve(JSON.parse(out)[0]));
    }),
  worker: ({ steps }) =>
    new Promise((resolve, reject) => {
      const worker = new Worker(fileURLToPath(import.meta.url), { argv: [JSON.stringify(steps)], stdout: true });
      let out = '';
      worker.stdout.on('data', (chunk) => { out += chunk; });
      worker.stdout.on('end', () => resolve(JSON.parse(out)[0]));
      worker.on('error', reject);
    }),
};

const results = [];
for (const step of JSON.parse(process.argv[2])) {
  try {
    results.push(await ways[step.way](step));
  } catch (error) {
    const chain = [];
    for (let link = error; link; link = link.cause) chain.push(`${link.code ?? ''} ${link.message}`.trim());
    results.push({ error: chain.join(' <- ') });
  }
}
process.stdout.write(JSON.stringify(results));

'use strict';
// Send the requests of this Node process through the proxy in HTTP_PROXY and HTTPS_PROXY.
//
//   node --require ./proxy-bootstrap.cjs dist/index.js …
//
// Covered: fetch(), and the global WebSocket and EventSource, which use the same dispatcher; http.request and .get,
// https.request and .get, also with a custom http.Agent or https.Agent, or with `createConnection` (as npm `ws` uses it);
// every copy of undici, also with its own dispatcher; tls.connect and its callers, such as http2 with https:// URLs.
// Without proxy variables the bootstrap does nothing.
//
//   HTTP_PROXY, HTTPS_PROXY   an http:// URL, optionally with credentials; if HTTPS_PROXY is unset, HTTP_PROXY applies, as
//                             in undici; the lower-case name has priority, as in other programs
//   NO_PROXY                  names (including their subdomains), addresses, `host:port`, `[::1]:port`, ranges
//                             `10.0.0.1-10.0.0.9`, networks `10.0.0.0/8` and `fd00::/8`, `*`
//   OPENCLAW_EGRESS_REQUIRE_PROXY=1   refuse to start if any traffic is not covered; otherwise print one line to stderr
//
// NODE_USE_ENV_PROXY=1 alone is not enough. Node does not support networks in NO_PROXY, and interprets names in NO_PROXY
// differently for fetch() and for http. On Node 24, fetch() becomes direct again when the application loads undici >= 8,
// which installs its own direct dispatcher. So the bootstrap decides for all clients with one function, `direct(host, port)`.
//
// Not covered: net.connect, except when undici calls it. So plain HTTP of an agent class with its own createConnection,
// h2c, and protocols that start TLS later are direct. Also not covered: a TLSSocket created without tls.connect, UDP, and
// DNS. Do not cover net.connect: clients of databases and caches on a private network use it, and the proxy would refuse
// these connections; proxy agents use it to connect to their proxy.
// tls.connect and dispatchers always connect directly to loopback addresses.
// Worker threads and child_process.fork() inherit --require. Other child processes inherit the variables and
// NODE_USE_ENV_PROXY.
// The bootstrap only configures cooperative code. It does not enforce anything.

const http = require('node:http');
const https = require('node:https');
const net = require('node:net');
const path = require('node:path');
const tls = require('node:tls');
const diagnostics = require('node:diagnostics_channel');
const { Duplex } = require('node:stream');
const { urlToHttpOptions } = require('node:url');
const { createRequire, syncBuiltinESMExports } = require('node:module');

const EXIT_CONFIG = 78; // sysexits.h: EX_CONFIG
const DISPATCHERS = ['undici.globalDispatcher.1', 'undici.globalDispatcher.2'].map(Symbol.for); // of undici <= 7, and >= 8

const LOOPBACK = new net.BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

const INSTALLED = Symbol.for('openclaw.egress.bootstrap');

const variable = (name) => (process.env[name.toLowerCase()] ?? process.env[name] ?? '').trim();

const required = process.env.OPENCLAW_EGRESS_REQUIRE_PROXY === '1';

function printError(problem, remedy) {
  process.stderr.write(`proxy-bootstrap: ${required ? 'refusing to start' : 'WARNING'}: ${problem}; ${remedy}\n`);
  if (required) process.exit(EXIT_CONFIG);
}

/** Return the URL of a proxy variable, or null if it is unset or invalid. Report an invalid URL. */
function proxyUrl(name) {
  const text = variable(name);
  if (!text) return null;
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol === 'http:') return url;
  printError(`${name} is not an http:// URL and is ignored: that traffic is NOT proxied`, `set ${name}=http://HOST:PORT`);
  return null;
}

/** Parse NO_PROXY. Return a function that decides whether a connection to a host and port bypasses the proxy. */
function bypass(text) {
  const rules = text.toLowerCase().split(/[\s,]+/).filter(Boolean).map((entry) => {
    if (entry === '*') return () => true;
    const [, name, port] =
      /^\[(.+)\](?::(\d+))?$/.exec(entry) ?? /^([^:]+)(?::(\d+))?$/.exec(entry) ?? [entry, entry]; // last: IPv6 without brackets
    const host = name.replace(/^\*?\./, '').replace(/\.$/, '');
    const addresses = addressList(host);
    if (!host || addresses === null) {
      printError(`NO_PROXY entry "${entry}" is not understood and is ignored`, 'write a host, an address or a network');
      return () => false;
    }
    return (requested, requestedPort) => {
      if (port && Number(port) !== requestedPort) return false;
      const family = net.isIP(requested);
      if (family) return addresses?.check(requested, `ipv${family}`) ?? false;
      return !addresses && (requested === host || requested.endsWith(`.${host}`));
    };
  });
  return (host, port) => {
    const requested = host.toLowerCase().replace(/^\[|\]$/g, '').replace(/\.$/, '');
    return rules.some((matches) => matches(requested, Number(port)));
  };
}

/** Return the addresses of a NO_PROXY entry, undefined if the entry is a name, or null if it is invalid. */
function addressList(host) {
  const [, first, separator, last] = /^([\da-f.:]+)([-/])([\da-f.:]+)$/.exec(host) ?? [null, host];
  const family = net.isIP(first);
  const list = new net.BlockList();
  if (!family) return /[/[\]]/.test(host) ? null : undefined;
  try {
    if (separator === '/') list.addSubnet(first, Number(last), `ipv${family}`);
    else if (separator === '-') list.addRange(first, last, `ipv${family}`);
    else list.addAddress(first, `ipv${family}`);
    return list;
  } catch {
    return null;
  }
}

const credentials = (proxy) => {
  if (!proxy.username) return {};
  const pair = [proxy.username, proxy.password].map(decodeURIComponent).join(':');
  return { 'Proxy-Authorization': `Basic ${Buffer.from(pair).toString('base64')}` };
};

const endpoint = (proxy) => ({ host: proxy.hostname.replace(/^\[|\]$/g, ''), port: Number(proxy.port) || 80 });
const authority = ({ host, port }) => `${net.isIPv6(host) ? `[${host}]` : host}:${port}`;

/** Return whether Node or the caller already chose a socket or proxy for this connection. */
const chosen = (agent, options) => Boolean(options.socketPath || options.socket || agent.options?.proxyEnv);

/** Return a function that recognises connections to the proxy itself. These must stay direct, because proxy agents open them. */
const isProxy = (proxy) => {
  const { host, port } = endpoint(proxy);
  return (options) => (options.host ?? options.hostname) === host && Number(options.port) === port;
};

/** Send plain HTTP requests of every http.Agent to the proxy, in absolute form. */
function coverHttpAgents(proxy, direct) {
  const { addRequest, createConnection } = http.Agent.prototype;
  const own = isProxy(proxy);
  http.Agent.prototype.addRequest = function (request, options, ...rest) {
    // Skip agents with their own createConnection, such as those of agent-base. Skip https.Agent, which inherits this method.
    const foreign = this.protocol === 'https:' || this.createConnection !== createConnection || typeof options !== 'object';
    if (foreign || chosen(this, options) || own(options) || direct(options.host, options.port)) {
      return addRequest.call(this, request, options, ...rest);
    }
    const host = request.getHeader('host') ?? authority(options).replace(/:80$/, '');
    const target = `http://${Array.isArray(host) ? host[0] : host}${request.path}`;
    const extra = Object.entries(credentials(proxy));
    if (request._header) {
      // If the caller passed the headers as a list, Node has already rendered them, so edit the text. With `Expect:
      // 100-continue`, Node has also queued that text for sending.
      const head = [`${request.method} ${target} HTTP/1.1`, ...extra.map((pair) => pair.join(': '))].join('\r\n');
      const rendered = request._header;
      request._header = head + rendered.slice(rendered.indexOf('\r\n'));
      for (const queued of request.outputData) if (queued.data === rendered) queued.data = request._header;
    } else extra.forEach(([name, value]) => request.setHeader(name, value));
    request.path = target;
    return addRequest.call(this, request, { ...options, ...endpoint(proxy) }, ...rest);
  };
}

/** Return a function that opens a CONNECT tunnel. It returns the request, and calls its callback with an error or a socket. */
function tunnelOpener(proxy) {
  const tunnels = new http.Agent();
  tunnels.addRequest = http.Agent.prototype.addRequest; // Use the original method, which does not proxy the CONNECT itself.
  const { request } = http;
  return (target, callback) => {
    const headers = { Host: target, ...credentials(proxy) };
    const connect = request({ ...endpoint(proxy), method: 'CONNECT', path: target, headers, agent: tunnels });
    const failed = (error) => {
      const { message, code } = error;
      const problem = `cannot reach ${target} through the proxy ${authority(endpoint(proxy))}: ${message || code}`;
      callback(Object.assign(new Error(problem, { cause: error }), { code }));
    };
    connect.once('error', failed);
    connect.once('connect', (response, socket, head) => {
      connect.off('error', failed);
      if (response.statusCode !== 200) {
        socket.destroy();
        const answer = `${response.statusCode} ${response.statusMessage}`;
        callback(Object.assign(new Error(`the proxy refused ${target}: ${answer}`), { code: 'ERR_PROXY_TUNNEL' }));
        return;
      }
      if (head.length) socket.unshift(head);
      callback(null, socket);
    });
    connect.end();
    return connect;
  };
}

/** Send HTTPS of every https.Agent through a CONNECT tunnel. TLS is end to end, and uses the caller's options. */
function coverHttpsAgents(proxy, open, direct) {
  const { createConnection } = https.Agent.prototype;
  const own = isProxy(proxy);
  https.Agent.prototype.createConnection = function (options, callback, ...rest) {
    const called = options !== null && typeof options === 'object' && typeof callback === 'function';
    if (!called || chosen(this, options) || own(options) || direct(options.host, options.port)) {
      return createConnection.call(this, options, callback, ...rest);
    }
    open(authority(options), (error, socket) => {
      if (error) callback(error);
      else callback(null, createConnection.call(this, { ...options, socket }));
    });
    return undefined;
  };
}

/** A socket that callers can use before its CONNECT tunnel is open. Until then it queues writes and settings. */
class TunnelSocket extends Duplex {
  #request;
  #socket = null;
  #settings = new Map(); // Socket methods to call, with their arguments, when the socket exists.
  #waiting = null; // A write, or the end of the stream, that waits for the socket.

  constructor(open, target) {
    super({ allowHalfOpen: false });
    this.#request = open(target, (error, socket) => {
      if (error) this.destroy(error);
      else if (this.destroyed) socket.destroy();
      else this.#established(socket);
    });
  }

  #established(socket) {
    this.#socket = socket;
    for (const [name, values] of this.#settings) socket[name](...values);
    socket.on('data', (chunk) => { if (!this.push(chunk)) socket.pause(); });
    socket.on('end', () => this.push(null));
    socket.on('timeout', () => this.emit('timeout'));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => { if (!this.readableEnded) this.push(null); });
    this.emit('connect');
    this.emit('ready');
    this.#waiting?.();
    this.#waiting = null;
  }

  _read() { this.#socket?.resume(); }

  _write(chunk, encoding, callback) {
    if (this.#socket) this.#socket.write(chunk, encoding, callback);
    else this.#waiting = () => this._write(chunk, encoding, callback);
  }

  _final(callback) {
    if (this.#socket) this.#socket.end(callback);
    else this.#waiting = () => this._final(callback);
  }

  _destroy(error, callback) {
    this.#request.destroy();
    this.#socket?.destroy();
    callback(error);
  }

  #set(name, ...values) {
    if (this.#socket) this.#socket[name](...values);
    else this.#settings.set(name, values);
    return this;
  }

  setTimeout(milliseconds, callback) {
    if (callback && milliseconds) this.once('timeout', callback);
    else if (callback) this.removeListener('timeout', callback);
    return this.#set('setTimeout', milliseconds);
  }

  setNoDelay(...values) { return this.#set('setNoDelay', ...values); }
  setKeepAlive(...values) { return this.#set('setKeepAlive', ...values); }
  ref() { this.#settings.delete('unref'); return this.#set('ref'); }
  unref() { this.#settings.delete('ref'); return this.#set('unref'); }
  address() { return this.#socket?.address() ?? {}; }
  get connecting() { return !this.#socket && !this.destroyed; }
  get pending() { return this.connecting; }
  get bytesRead() { return this.#socket?.bytesRead ?? 0; }
  get bytesWritten() { return this.#socket?.bytesWritten ?? 0; }
  get localAddress() { return this.#socket?.localAddress; }
  get localPort() { return this.#socket?.localPort; }
  get remoteAddress() { return this.#socket?.remoteAddress; }
  get remotePort() { return this.#socket?.remotePort; }
  get remoteFamily() { return this.#socket?.remoteFamily; }
}

/** Return whether a connection of net or tls must stay direct: to loopback, the proxy, a Unix socket or a NO_PROXY entry. */
function staysDirect(options, own, direct) {
  if (options.socket || options.path || !options.port) return true;
  const host = String(options.host ?? 'localhost').replace(/^\[|\]$/g, '').toLowerCase();
  const family = net.isIP(host);
  const loopback = family ? LOOPBACK.check(host, `ipv${family}`) : /(^|\.)localhost\.?$/.test(host);
  return loopback || own.some((is) => is(options)) || direct(host, options.port);
}

/** Open every connection of tls.connect through a tunnel. http2 and undici's dispatchers call tls.connect. */
function coverTls(own, open, direct) {
  const { connect } = tls;
  tls.connect = function (...given) {
    const [first, second, third] = given;
    const numbered = typeof first === 'number' || (typeof first === 'string' && /^\d+$/.test(first));
    if (!numbered && (first === null || typeof first !== 'object')) return connect.apply(this, given); // The first argument is the path of a Unix socket.
    const place = numbered ? { port: first, host: typeof second === 'string' ? second : undefined } : first;
    const more = [second, third].find((value) => value !== null && typeof value === 'object');
    const options = { ...place, ...(numbered ? more : {}) };
    if (staysDirect(options, own, direct)) return connect.apply(this, given);
    const socket = new TunnelSocket(open, authority(options));
    // For a hostname, set servername: the proxy needs SNI, and Node sends SNI only if servername is set.
    const servername = options.servername ?? (net.isIP(options.host) ? undefined : options.host);
    const connected = given.find((value) => typeof value === 'function');
    const secure = connect.call(this, { ...options, servername, socket }, connected);
    if (options.timeout) secure.setTimeout(options.timeout); // Node does not apply `timeout` to a socket that the caller provides.
    return secure;
  };
}

/** Open the plain HTTP connections of every undici dispatcher through tunnels. Other callers of net.connect connect directly. */
function coverDispatchers(own, open, direct) {
  const { connect } = net;
  let announced = null;
  // Remember the destination, which undici publishes immediately before it calls net.connect.
  diagnostics.subscribe('undici:client:beforeConnect', ({ connectParams }) => {
    announced = connectParams;
    queueMicrotask(() => { announced = null; });
  });
  const covered = function (...given) {
    const [options] = given;
    const expected = announced;
    if (expected === null || options === null || typeof options !== 'object') return connect.apply(this, given);
    const { protocol, hostname, servername } = expected;
    const target = { host: hostname, port: Number(expected.port) || 80 };
    const same = [hostname, servername].includes(options.host) && Number(options.port) === target.port;
    const foreign = protocol !== 'http:' || !same || options.path;
    if (foreign || staysDirect(target, own, direct)) return connect.apply(this, given);
    return new TunnelSocket(open, authority(target));
  };
  net.connect = net.createConnection = covered;
}

/** Add an agent that the bootstrap covers to requests with `createConnection` and no agent, such as those of npm `ws`. */
function coverCreateConnection(module, port, direct) {
  const { request } = module;
  const covered = (first, ...rest) => {
    const url = typeof first === 'string' ? new URL(first) : first instanceof URL ? first : null;
    const options = url ? rest[0] : first;
    if (typeof options?.createConnection !== 'function' || (options.agent ?? null) !== null) return request(first, ...rest);
    const whole = { ...(url ? urlToHttpOptions(url) : {}), ...options };
    const host = whole.hostname ?? whole.host ?? 'localhost';
    if (whole.socketPath || direct(host, whole.port || whole.defaultPort || port)) return request(first, ...rest);
    // Do not use `agent: false`: Node would still use createConnection, and would disable keep-alive.
    return request({ ...whole, createConnection: undefined, agent: new module.Agent() }, ...(url ? rest.slice(1) : rest));
  };
  module.request = function (...args) { return covered(...args); };
  module.get = function (...args) {
    const started = covered(...args);
    started.end();
    return started;
  };
}

/** Return the agent class, the dispatcher and the dispatcher setter of Node's own undici; null before Node 24.14. */
function builtInUndici() {
  if (typeof http.setGlobalProxyFromEnv !== 'function') return null;
  const restore = http.setGlobalProxyFromEnv({ http_proxy: 'http://127.0.0.1:9' }); // Set any proxy, so that Node creates its dispatchers.
  const [older, newer] = DISPATCHERS.map((key) => globalThis[key]?.constructor);
  restore();
  const is7 = older.name === 'EnvHttpProxyAgent'; // Otherwise undici is version 8, and the older key contains a wrapper.
  const EnvHttpProxyAgent = is7 ? older : newer;
  const define = (key, value) => Object.defineProperty(globalThis, key, { value, writable: true });
  const setGlobalDispatcher = (agent) => {
    // Set both keys: if an undici >= 8 finds its own key unset, it writes a direct dispatcher to both.
    define(DISPATCHERS[0], is7 ? agent : new older(agent));
    define(DISPATCHERS[1], agent);
    // Make Node's own dispatcher call ours, because with NODE_USE_ENV_PROXY Node installs its own after all --require
    // modules.
    EnvHttpProxyAgent.prototype.dispatch = (options, handler) => agent.dispatch(options, handler);
  };
  return { EnvHttpProxyAgent, previous: globalThis[DISPATCHERS[is7 ? 0 : 1]], setGlobalDispatcher };
}

/** Return the same as builtInUndici(), for the application's own undici. Return null if none can be loaded. */
function applicationUndici() {
  for (const base of [__filename, path.resolve(process.argv[1] ?? 'main')]) {
    try {
      const { EnvHttpProxyAgent, getGlobalDispatcher, setGlobalDispatcher } = createRequire(base)('undici');
      if (EnvHttpProxyAgent) return { EnvHttpProxyAgent, previous: getGlobalDispatcher(), setGlobalDispatcher };
    } catch {
      // Try the next location. The caller reports if none is found.
    }
  }
  return null;
}

function coverFetch(httpProxy, httpsProxy, direct) {
  const undici = builtInUndici() ?? applicationUndici();
  if (!undici) {
    const remedy = 'use Node >= 24.16, or install undici beside the application';
    printError(`fetch() is NOT proxied on Node ${process.version}`, remedy);
    return;
  }
  const { EnvHttpProxyAgent, previous, setGlobalDispatcher } = undici;
  const urls = { httpProxy: httpProxy?.href ?? '', httpsProxy: httpsProxy?.href ?? '' };
  // Set proxyTunnel to false to send plain HTTP in absolute form, so that the proxy sees the request. TLS is always tunnelled.
  const agent = new EnvHttpProxyAgent({ ...urls, noProxy: '', proxyTunnel: false });
  const { dispatch } = agent;
  // Change the instance instead of defining a subclass: applications identify a dispatcher by its class name.
  agent.dispatch = (options, handler) => {
    const { protocol, hostname, port } = new URL(options.origin);
    if (direct(hostname, port || (protocol === 'https:' ? 443 : 80))) return previous.dispatch(options, handler);
    return dispatch.call(agent, options, handler);
  };
  setGlobalDispatcher(agent);
}

function install() {
  if (globalThis[INSTALLED]) return; // Already loaded: --require and NODE_OPTIONS can both name the bootstrap.
  if (!['HTTP_PROXY', 'HTTPS_PROXY'].some(variable)) {
    if (required) printError('no proxy variable is set', 'set HTTP_PROXY and HTTPS_PROXY');
    return;
  }
  const httpProxy = proxyUrl('HTTP_PROXY');
  const httpsProxy = variable('HTTPS_PROXY') ? proxyUrl('HTTPS_PROXY') : httpProxy;
  if (!httpProxy && !httpsProxy) return;
  Object.defineProperty(globalThis, INSTALLED, { value: true });
  const direct = bypass(variable('NO_PROXY'));
  const options = { keepAlive: true, scheduling: 'lifo', timeout: 5000 }; // Use the options of Node's own global agents.
  // Create the tunnel openers first: they need the original methods of http, which the next step replaces.
  const [openHttps, openHttp] = [httpsProxy, httpProxy].map((proxy) => proxy && tunnelOpener(proxy));
  const own = [httpsProxy, httpProxy].filter(Boolean).map(isProxy);
  if (httpsProxy) {
    coverHttpsAgents(httpsProxy, openHttps, direct);
    coverTls(own, openHttps, direct);
    coverCreateConnection(https, 443, direct);
    https.globalAgent = new https.Agent(options);
  }
  if (httpProxy) {
    coverHttpAgents(httpProxy, direct);
    coverCreateConnection(http, 80, direct);
    http.globalAgent = new http.Agent(options);
    coverDispatchers(own, openHttp, direct);
  }
  syncBuiltinESMExports();
  coverFetch(httpProxy, httpsProxy, direct);
  process.env.NODE_USE_ENV_PROXY ??= '1';
}

install();

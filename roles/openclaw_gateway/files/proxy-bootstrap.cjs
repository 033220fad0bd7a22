'use strict';
// Send the requests of this Node process through the proxy that HTTP_PROXY and HTTPS_PROXY name.
//
//   node --require ./proxy-bootstrap.cjs dist/index.js …
//
// Covered: fetch() and the global WebSocket and EventSource (they share one dispatcher); http.request and .get,
// https.request and .get, also with a custom http.Agent or https.Agent, or with `createConnection` (as npm `ws` uses it);
// every undici that is loaded later. Without proxy variables the bootstrap does nothing.
//
//   HTTP_PROXY, HTTPS_PROXY   an http:// URL, credentials allowed; HTTPS_PROXY falls back to HTTP_PROXY, as in undici;
//                             the lower-case name has priority, as in other programs
//   NO_PROXY                  names (including their subdomains), addresses, `host:port`, `[::1]:port`, ranges
//                             `10.0.0.1-10.0.0.9`, networks `10.0.0.0/8` and `fd00::/8`, `*`
//   OPENCLAW_EGRESS_REQUIRE_PROXY=1   refuse to start if any traffic is not covered; otherwise print one line to stderr
//
// NODE_USE_ENV_PROXY=1 alone is not enough. Node does not support networks in NO_PROXY and interprets names there
// differently for fetch() and for http. On Node 24 its setting for fetch() is lost when an undici >= 8 is loaded, which
// installs its own direct dispatcher. So the bootstrap makes one decision, `direct(host, port)`, for all clients.
//
// Not covered: an agent class with its own createConnection (as proxy agents have), a custom `dispatcher`, raw sockets
// (net, tls), UDP, http2 and DNS.
// Worker threads and child_process.fork() inherit --require. Other child processes inherit the variables and
// NODE_USE_ENV_PROXY.
// The bootstrap configures cooperative code. It does not enforce anything.

const http = require('node:http');
const https = require('node:https');
const net = require('node:net');
const path = require('node:path');
const { urlToHttpOptions } = require('node:url');
const { createRequire, syncBuiltinESMExports } = require('node:module');

const EXIT_CONFIG = 78; // sysexits.h: EX_CONFIG
const DISPATCHERS = ['undici.globalDispatcher.1', 'undici.globalDispatcher.2'].map(Symbol.for); // undici <= 7, >= 8

const INSTALLED = Symbol.for('openclaw.egress.bootstrap');

const variable = (name) => (process.env[name.toLowerCase()] ?? process.env[name] ?? '').trim();

const required = process.env.OPENCLAW_EGRESS_REQUIRE_PROXY === '1';

function complain(problem, remedy) {
  process.stderr.write(`proxy-bootstrap: ${required ? 'refusing to start' : 'WARNING'}: ${problem}; ${remedy}\n`);
  if (required) process.exit(EXIT_CONFIG);
}

/** Return the URL of a proxy variable, or null if it is unset or invalid. Report an invalid URL. */
function proxyUrl(name) {
  const text = variable(name);
  if (!text) return null;
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol === 'http:') return url;
  complain(`${name} is not an http:// URL and is ignored: that traffic is NOT proxied`, `set ${name}=http://HOST:PORT`);
  return null;
}

/** Parse NO_PROXY. Return a function of host and port that is true if the connection does not use the proxy. */
function bypass(text) {
  const rules = text.toLowerCase().split(/[\s,]+/).filter(Boolean).map((entry) => {
    if (entry === '*') return () => true;
    const [, name, port] =
      /^\[(.+)\](?::(\d+))?$/.exec(entry) ?? /^([^:]+)(?::(\d+))?$/.exec(entry) ?? [entry, entry]; // last: a bare IPv6 address
    const host = name.replace(/^\*?\./, '').replace(/\.$/, '');
    const addresses = addressList(host);
    if (!host || addresses === null) {
      complain(`NO_PROXY entry "${entry}" is not understood and is ignored`, 'write a host, an address or a network');
      return () => false;
    }
    return (asked, askedPort) => {
      if (port && Number(port) !== askedPort) return false;
      const family = net.isIP(asked);
      if (family) return addresses?.check(asked, `ipv${family}`) ?? false;
      return !addresses && (asked === host || asked.endsWith(`.${host}`));
    };
  });
  return (host, port) => {
    const asked = host.toLowerCase().replace(/^\[|\]$/g, '').replace(/\.$/, '');
    return rules.some((matches) => matches(asked, Number(port)));
  };
}

/** Return the addresses of an entry, undefined if the entry is a name, or null if it is invalid. */
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

/** Return a test for the proxy's own address, so that an application's own proxy agent is not proxied twice. */
const isProxy = (proxy) => {
  const { host, port } = endpoint(proxy);
  return (options) => (options.host ?? options.hostname) === host && Number(options.port) === port;
};

/** Send plain HTTP of every http.Agent to the proxy, in absolute form. */
function coverHttpAgents(proxy, direct) {
  const { addRequest, createConnection } = http.Agent.prototype;
  const own = isProxy(proxy);
  http.Agent.prototype.addRequest = function (request, options, ...rest) {
    // An agent with its own createConnection, as in agent-base, connects itself. https.Agent inherits this method.
    const foreign = this.protocol === 'https:' || this.createConnection !== createConnection || typeof options !== 'object';
    if (foreign || chosen(this, options) || own(options) || direct(options.host, options.port)) {
      return addRequest.call(this, request, options, ...rest);
    }
    const host = request.getHeader('host') ?? authority(options).replace(/:80$/, '');
    const target = `http://${Array.isArray(host) ? host[0] : host}${request.path}`;
    const extra = Object.entries(credentials(proxy));
    if (request._header) {
      // The header is already rendered if the caller passed its headers as a list, and also queued with 100-continue.
      const head = [`${request.method} ${target} HTTP/1.1`, ...extra.map((pair) => pair.join(': '))].join('\r\n');
      const rendered = request._header;
      request._header = head + rendered.slice(rendered.indexOf('\r\n'));
      for (const queued of request.outputData) if (queued.data === rendered) queued.data = request._header;
    } else extra.forEach(([name, value]) => request.setHeader(name, value));
    request.path = target;
    return addRequest.call(this, request, { ...options, ...endpoint(proxy) }, ...rest);
  };
}

/** Send HTTPS of every https.Agent through a CONNECT tunnel, with TLS to the destination and the caller's options. */
function coverHttpsAgents(proxy, direct) {
  const { createConnection } = https.Agent.prototype;
  const { addRequest } = http.Agent.prototype;
  const own = isProxy(proxy);
  const tunnels = new http.Agent();
  tunnels.addRequest = addRequest; // the original method, or the CONNECT itself would be proxied
  https.Agent.prototype.createConnection = function (options, callback, ...rest) {
    const called = options !== null && typeof options === 'object' && typeof callback === 'function';
    if (!called || chosen(this, options) || own(options) || direct(options.host, options.port)) {
      return createConnection.call(this, options, callback, ...rest);
    }
    const target = authority(options);
    const headers = { Host: target, ...credentials(proxy) };
    const connect = http.request({ ...endpoint(proxy), method: 'CONNECT', path: target, headers, agent: tunnels });
    connect.once('error', callback);
    connect.once('connect', (response, socket, head) => {
      connect.off('error', callback);
      if (response.statusCode !== 200) {
        socket.destroy();
        const answer = `${response.statusCode} ${response.statusMessage}`;
        callback(Object.assign(new Error(`the proxy refused ${target}: ${answer}`), { code: 'ERR_PROXY_TUNNEL' }));
        return;
      }
      if (head.length) socket.unshift(head);
      callback(null, createConnection.call(this, { ...options, socket }));
    });
    connect.end();
    return undefined;
  };
}

/** Give a covered agent to a request with `createConnection` and without an agent, such as those of npm `ws`. */
function coverCreateConnection(module, port, direct) {
  const { request } = module;
  const covered = (first, ...rest) => {
    const url = typeof first === 'string' ? new URL(first) : first instanceof URL ? first : null;
    const options = url ? rest[0] : first;
    if (typeof options?.createConnection !== 'function' || (options.agent ?? null) !== null) return request(first, ...rest);
    const whole = { ...(url ? urlToHttpOptions(url) : {}), ...options };
    const host = whole.hostname ?? whole.host ?? 'localhost';
    if (whole.socketPath || direct(host, whole.port || whole.defaultPort || port)) return request(first, ...rest);
    // Do not use `agent: false`: it also disables keep-alive, but Node then still reads createConnection.
    return request({ ...whole, createConnection: undefined, agent: new module.Agent() }, ...(url ? rest.slice(1) : rest));
  };
  module.request = function (...args) { return covered(...args); };
  module.get = function (...args) {
    const started = covered(...args);
    started.end();
    return started;
  };
}

/** Return Node's own undici if accessible (>= 24.14): its class, its dispatcher, and a function to replace it. */
function builtInUndici() {
  if (typeof http.setGlobalProxyFromEnv !== 'function') return null;
  const restore = http.setGlobalProxyFromEnv({ http_proxy: 'http://127.0.0.1:9' }); // only to access the classes
  const [older, newer] = DISPATCHERS.map((key) => globalThis[key]?.constructor);
  restore();
  const is7 = older.name === 'EnvHttpProxyAgent'; // otherwise it is 8, and the older key holds a wrapper
  const EnvHttpProxyAgent = is7 ? older : newer;
  const define = (key, value) => Object.defineProperty(globalThis, key, { value, writable: true });
  const setGlobalDispatcher = (agent) => {
    // Set both keys: if an undici >= 8 finds its own key empty, it writes a direct dispatcher to both.
    define(DISPATCHERS[0], is7 ? agent : new older(agent));
    define(DISPATCHERS[1], agent);
    // With NODE_USE_ENV_PROXY Node installs its own dispatcher after all --require: make that one call ours.
    EnvHttpProxyAgent.prototype.dispatch = (options, handler) => agent.dispatch(options, handler);
  };
  return { EnvHttpProxyAgent, previous: globalThis[DISPATCHERS[is7 ? 0 : 1]], setGlobalDispatcher };
}

/** Return the same for the application's undici, for older Node versions, or null if it has none that this Node loads. */
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
    complain(`fetch() is NOT proxied on Node ${process.version}`, remedy);
    return;
  }
  const { EnvHttpProxyAgent, previous, setGlobalDispatcher } = undici;
  const urls = { httpProxy: httpProxy?.href ?? '', httpsProxy: httpsProxy?.href ?? '' };
  // proxyTunnel: false sends plain HTTP in absolute form, so that the proxy sees the request. TLS is tunnelled anyway.
  const agent = new EnvHttpProxyAgent({ ...urls, noProxy: '', proxyTunnel: false });
  const { dispatch } = agent;
  // Change the instance instead of using a subclass: applications identify a dispatcher by the name of its class.
  agent.dispatch = (options, handler) => {
    const { protocol, hostname, port } = new URL(options.origin);
    if (direct(hostname, port || (protocol === 'https:' ? 443 : 80))) return previous.dispatch(options, handler);
    return dispatch.call(agent, options, handler);
  };
  setGlobalDispatcher(agent);
}

function install() {
  if (globalThis[INSTALLED]) return; // loaded by both --require and NODE_OPTIONS
  if (!['HTTP_PROXY', 'HTTPS_PROXY'].some(variable)) {
    if (required) complain('no proxy variable is set', 'set HTTP_PROXY and HTTPS_PROXY');
    return;
  }
  const httpProxy = proxyUrl('HTTP_PROXY');
  const httpsProxy = variable('HTTPS_PROXY') ? proxyUrl('HTTPS_PROXY') : httpProxy;
  if (!httpProxy && !httpsProxy) return;
  Object.defineProperty(globalThis, INSTALLED, { value: true });
  const direct = bypass(variable('NO_PROXY'));
  const options = { keepAlive: true, scheduling: 'lifo', timeout: 5000 }; // the options of Node's own global agents
  // Cover HTTPS first: its tunnels need the original method, which the HTTP step replaces.
  if (httpsProxy) {
    coverHttpsAgents(httpsProxy, direct);
    coverCreateConnection(https, 443, direct);
    https.globalAgent = new https.Agent(options);
  }
  if (httpProxy) {
    coverHttpAgents(httpProxy, direct);
    coverCreateConnection(http, 80, direct);
    http.globalAgent = new http.Agent(options);
  }
  syncBuiltinESMExports();
  coverFetch(httpProxy, httpsProxy, direct);
  process.env.NODE_USE_ENV_PROXY ??= '1';
}

install();

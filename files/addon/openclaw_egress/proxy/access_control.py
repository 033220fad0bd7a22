"""Access control: the mitmproxy add-on that decides before the proxy resolves a name, connects or decrypts.

Each hook evaluates the policy, then either writes a connection grant or refuses the client. ``fails_closed`` wraps
every hook: if a hook raises an exception, the request or connection is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mitmproxy import connection, http, tls
from mitmproxy.exceptions import AddonHalt
from mitmproxy.net.http import http1
from mitmproxy.proxy import layer, layers, server_hooks
from mitmproxy.proxy.layers.http import HTTPMode

from openclaw_egress.policy.codes import ANYWHERE, UNREADABLE, Code, Evidence, Target, Unparsed
from openclaw_egress.policy.destination import Destination, DestinationError, parse_destination
from openclaw_egress.policy.evaluate import decide, with_addresses
from openclaw_egress.policy.model import ClassPolicy, Decision, Policy
from openclaw_egress.proxy import tunnels
from openclaw_egress.proxy.budgets import Budgets
from openclaw_egress.proxy.client_session import ClassUsage, ClientSession
from openclaw_egress.proxy.connection_grants import ConnectionGrant
from openclaw_egress.proxy.error_responses import refusal
from openclaw_egress.proxy.fail_closed import FAILED, fails_closed, respond_failed
from openclaw_egress.proxy.hop_by_hop import drop_hop_by_hop
from openclaw_egress.proxy.http1_limits import RESPONSE_PROBLEM, BoundedHttpLayer
from openclaw_egress.proxy.layers import Refuse, abort, looks_like_tls
from openclaw_egress.proxy.request_checks import (
    authority_disagreement,
    check_address,
    client_address,
    is_websocket_handshake,
    limit_bypass,
    recorded_method,
    sent_host,
    sent_method,
    sni_agrees,
)
from openclaw_egress.proxy.resolver import ResolutionError, Resolver, current_grant
from openclaw_egress.proxy.upstream_proxy import Route, UpstreamProxy, UpstreamProxyError
from openclaw_egress.proxy.websocket_layer import RELAY
from openclaw_egress.settings import ClassNetworks, Neighbours
from openclaw_egress.wire.http1_syntax import is_request_start

log = logging.getLogger("openclaw_egress.access_control")

FURTHER = "openclaw_egress.further"
"""Key in ``flow.metadata`` of a WebSocket to an inspected host. The value is a function that applies the policy.

The recorder calls this function for each message that requests a model response. If the policy denies the message, the
function records the denial and returns it; otherwise it returns None.
"""

INSPECT = "openclaw_egress.inspect"
"""Key in ``flow.metadata`` of a request that the recorder must record. The value is an :class:`Allowed` object."""

UPSTREAM_FAILURE = "openclaw_egress.upstream_failure"
"""Key in ``flow.metadata`` of a request that the recorder records and that failed at the upstream proxy.

The value is the ``error.type``.
"""

REFUSED = "refused by openclaw.egress"
"""Prefix of the error text of a refused upstream connection.

The recorder recognises a refusal by this prefix, because mitmproxy keeps only the text of an error.
"""

_CLIENT_ENDED = (
    "connection closed", "alert", "unknown ca", "bad certificate", "certificate unknown", "certificate verify failed",
)  # fmt: skip
"""Substrings of mitmproxy's error texts that show that the client ended the handshake or rejected the certificate."""

_REMEDY_OF_NAME = "Check the name, and the resolver of the proxy's container."
_REMEDY_OF_UPSTREAM_PROXY = (
    "Ask the operator of this machine to check EGRESS_UPSTREAM_PROXY (`egress status` shows its problem)."
)
_REMEDY_OF_MESSAGE = "Send a request as RFC 9112 defines it, within the limits of the class (classes.NAME.limits)."


@dataclass(frozen=True, slots=True)
class Allowed:
    """The class, destination and decision of an allowed request, for the recorder."""

    class_name: str
    destination: Destination
    decision: Decision


class Observer(Protocol):
    """Interface of the object that records denials and counts metrics. Access control calls it for each decision."""

    def denied(
        self,
        class_name: str,
        destination: Target,
        decision: Decision,
        method: str,
        client: str,
        *,
        enforced: bool,
        status: int | None = None,
    ) -> None:
        """Record a denial and the HTTP status of the response.

        ``enforced`` is False if the policy only reports the denial and the request is allowed.
        """

    def allowed(self, class_name: str, *, inspect: bool) -> None:
        """Count an allowed connection or request."""

    def tunnel_ended(self, tunnel: tunnels.Tunnel) -> None:
        """Record a finished tunnel of a class with ``log_tunnels``."""


class AccessControl:
    """The mitmproxy add-on that allows or refuses each client connection and request; see the module's docstring."""

    name = "openclaw_egress.access_control"

    def __init__(
        self,
        policy: Callable[[], Policy],
        observer: Observer,
        resolver: Resolver | None = None,
        neighbours: tuple[Neighbours, ...] = (),
        class_networks: ClassNetworks | None = None,
        budgets: Budgets | None = None,
        upstream_proxy: UpstreamProxy | None = None,
    ) -> None:
        self._upstream_proxy = upstream_proxy
        self._neighbours = neighbours
        self._class_networks = class_networks or ClassNetworks({})
        self._budgets = budgets
        self._policy = policy
        self._observer = observer
        self._resolver = resolver or Resolver()
        self._sessions: dict[str, ClientSession] = {}
        self._usage: defaultdict[str, ClassUsage] = defaultdict(ClassUsage)

    # ── exceptions in hooks ──────────────────────────────────────────────────────────────────────────────────

    def _client_failed(self, client: connection.Client, error: Exception) -> None:
        client.error = "no class owns this listener"
        self._record_failure(client, Code.LISTENER_WITHOUT_CLASS)
        log.error("connection refused: no class owns its listener (%s)", type(error).__name__)

    def _end_failed(self, _: connection.Client, error: Exception) -> None:
        log.error("cleanup after a client disconnected failed: %s", type(error).__name__)

    def _request_failed(self, flow: http.HTTPFlow, error: Exception) -> None:
        respond_failed(flow)
        flow.metadata.pop(INSPECT, None)
        self._record_failure(flow.client_conn, Code.DECISION_FAILED)
        log.error("request refused: the decision failed", exc_info=error)
        self._revoke_grants(flow.client_conn)

    def _layer_failed(self, nextlayer: layer.NextLayer, error: Exception) -> None:
        nextlayer.layer = Refuse(nextlayer.context)
        self._record_failure(nextlayer.context.client, Code.DECISION_FAILED)
        asyncio.get_running_loop().call_soon(abort, nextlayer.context.client)
        log.error("connection closed: choosing its protocol failed", exc_info=error)

    def _hello_failed(self, data: tls.ClientHelloData, error: Exception) -> None:
        # Make mitmproxy start a handshake with the client. `tls_start_client` then ends it, because no grant is left.
        data.ignore_connection = False
        self._revoke_grants(data.context.client)
        self._record_failure(data.context.client, Code.DECISION_FAILED)
        log.error("TLS connection refused: handling its ClientHello failed (%s)", type(error).__name__)

    def _certificate_failed(self, _: tls.TlsData, error: Exception) -> None:
        raise AddonHalt from error

    def _established_failed(self, data: tls.TlsData, error: Exception) -> None:
        abort(data.context.client)
        self._record_failure(data.context.client, Code.DECISION_FAILED)
        log.error("TLS connection aborted: handling the end of its handshake failed (%s)", type(error).__name__)

    def _opening_failed(self, data: server_hooks.ServerConnectionHookData, error: Exception) -> None:
        data.server.error = FAILED.reason
        self._record_failure(data.client, Code.DECISION_FAILED)
        log.error("upstream connection not opened: checking its grant failed", exc_info=error)

    def _opened_failed(self, data: server_hooks.ServerConnectionHookData, error: Exception) -> None:
        # Cancel the task that opened the connection, and abort the client, which would otherwise wait for that task.
        # Setting `data.server.error` has no effect, because mitmproxy ignores it in this hook.
        asyncio.get_running_loop().call_soon(abort, data.client)
        unchecked = type(error) is LookupError
        self._record_failure(data.client, Code.ADDRESS_NOT_CHECKED if unchecked else Code.DECISION_FAILED)
        log.error("upstream connection aborted: %s", error)
        raise asyncio.CancelledError from error

    def _unopened_failed(self, _: server_hooks.ServerConnectionHookData, error: Exception) -> None:
        log.error("a failure of the upstream proxy could not be recorded: %s", type(error).__name__)

    def _end_of_exchange_failed(self, _: http.HTTPFlow, error: Exception) -> None:
        log.error("a malformed response could not be recorded: %s", type(error).__name__)

    def _handshake_failed(self, _: tls.TlsData, error: Exception) -> None:
        log.error("a failed TLS handshake could not be recorded: %s", type(error).__name__)

    def _record_failure(self, client: connection.Client, code: Code) -> None:
        """Record a refusal after an internal error. Ignore errors here: the caller refuses the client in any case."""
        with contextlib.suppress(Exception):
            session = self._sessions.get(client.id)
            self._observer.denied(
                session.class_name if session is not None else "?",
                (session.connect_target if session is not None else None) or UNREADABLE,
                Decision.denial(code),
                "-",
                str(client.peername[0]),
                enforced=True,
            )

    # ── connect and disconnect ───────────────────────────────────────────────────────────────────────────────

    @fails_closed(_client_failed)
    def client_connected(self, client: connection.Client) -> None:
        """Refuse a client if the listener has no class or does not serve its network, or the class is at its limit."""
        found = self._class_policy(client)
        address = str(client.peername[0])
        if (refusing := next((one for one in self._neighbours if one.refuses(address)), None)) is not None:
            # Refuse the client before its connection is counted, so that it cannot use up the connection limit of the
            # class.
            client.error = "not a known neighbour"
            self._observer.denied(found.name, ANYWHERE, _unknown(address, refusing), "-", address, enforced=True)
            return
        if (network := self._class_networks.foreign(found.name, address)) is not None:
            client.error = "not in the class's network"
            evidence = Evidence(found.name, address=ipaddress.ip_address(address), network=network)
            self._observer.denied(
                found.name, ANYWHERE, Decision.denial(Code.OTHER_NETWORK, evidence), "-", address, enforced=True
            )
            return
        session = self._sessions[client.id] = ClientSession(found.name)
        usage = self._usage[found.name]
        usage.connections += 1
        if usage.connections > found.limits.connections:
            client.error = "too many connections"
            self._observer.denied(
                found.name,
                ANYWHERE,
                _exhausted(Code.CONNECTION_LIMIT, found),
                "-",
                str(client.peername[0]),
                enforced=True,
            )
            return
        # Start a timer to abort silent clients: mitmproxy calls `next_layer` only after the client has sent bytes.
        loop = asyncio.get_running_loop()
        session.first_byte_timer = loop.call_later(found.limits.header_seconds, abort, client)

    @fails_closed(_end_failed)
    def client_disconnected(self, client: connection.Client) -> None:
        """Drop the client's session and grants, and decrease the connection count of its class."""
        session = self._sessions.pop(client.id, None)
        if session is not None:
            self._usage[session.class_name].connections -= 1
            session.stop_first_byte_timer()
            session.grants.revoke_all()
        if (tunnel := tunnels.end(client.id)) is not None:
            self._observer.tunnel_ended(tunnel)

    def done(self) -> None:
        """Record the tunnels that are still open when the proxy stops, and stop the resolver."""
        for client_id in list(self._sessions):
            if (tunnel := tunnels.end(client_id)) is not None:
                self._observer.tunnel_ended(tunnel)
        self._resolver.close()
        if self._upstream_proxy is not None:
            self._upstream_proxy.close()

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────

    @fails_closed(_request_failed)
    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Check a CONNECT request: first the name, then its addresses. Write a grant, or respond with an error."""
        if not self._refuse_by_rate(flow):
            await self._connect(flow)

    @fails_closed(_request_failed)
    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Check a request other than CONNECT, outside or inside a tunnel.

        Its URL, its Host header and the tunnel's CONNECT must name the same host.
        """
        flow.metadata.pop(INSPECT, None)
        if flow.error is None and not self._refuse_by_rate(flow):
            await self._request(flow)

    def _refuse_by_rate(self, flow: http.HTTPFlow) -> bool:
        found = self._class_policy(flow.client_conn)
        wait = self._wait_of_rate(found)
        if wait:
            self._refuse(
                flow,
                Unparsed(flow.request.host[:200], flow.request.port),
                _exhausted(Code.RATE_LIMIT, found),
                status=429,
            )
            flow.response.headers["retry-after"] = str(math.ceil(wait))  # type: ignore[union-attr]
        return bool(wait)

    def _refuse_by_budget(self, flow: http.HTTPFlow, destination: Destination) -> bool:
        """Refuse a request to an inspected host if a budget of its class is used up. Return whether it was refused."""
        over = self._budgets.exceeded(self._class_policy(flow.client_conn)) if self._budgets is not None else None
        if over is None:
            return False
        flow.metadata.pop(INSPECT)
        self._refuse(flow, destination, over.decision, status=429)
        flow.response.headers["retry-after"] = str(over.wait_seconds)  # type: ignore[union-attr]
        return True

    def _wait_of_rate(self, found: ClassPolicy) -> float:
        """Count one request of the class. Return the seconds to wait, or 0.0 if the request may pass."""
        return self._usage[found.name].take_request(found.limits.requests_per_minute)

    def _refuse_message(
        self,
        client: connection.Client,
        status: int | None,
        code: Code,
        evidence: Evidence,
        *,
        method: str = "-",
        request: http.Request | None = None,
        counted: bool = False,
    ) -> bytes:
        """Record the refusal of a request for which mitmproxy calls no hook, and return the response.

        This implements `http1_limits.Refusing`.
        """
        found = self._class_policy(client)
        decision = Decision.denial(code, evidence._replace(class_name=found.name))
        wait = 0.0 if counted else self._wait_of_rate(found)
        if wait:
            status, decision = 429, _exhausted(Code.RATE_LIMIT, found)
        destination = self._named_destination(client, request)
        if request is not None:
            method = recorded_method(request)
        self._observer.denied(
            found.name, destination, decision, method, str(client.peername[0]), enforced=True, status=status
        )
        response = refusal(
            status or 400,
            class_name=found.name,
            destination=str(destination),
            rule=decision.rule,
            reason=decision.reason,
            remedy=_REMEDY_OF_MESSAGE,
        )
        response.headers["connection"] = "close"
        if wait:
            response.headers["retry-after"] = str(math.ceil(wait))
        return bytes(http1.assemble_response(response))  # type: ignore[no-untyped-call]

    def _named_destination(self, client: connection.Client, request: http.Request | None) -> Target:
        """Return the destination of the tunnel or, without a tunnel, of the request; `UNREADABLE` if there is none."""
        if (target := self._session(client).connect_target) is not None:
            return target
        if request is None or not request.host:
            return UNREADABLE
        try:
            return parse_destination(sent_host(request), request.port)
        except (DestinationError, UnicodeError):
            return UNREADABLE

    async def _connect(self, flow: http.HTTPFlow) -> None:
        destination = self._parse(flow, sent_host(flow.request), flow.request.port)
        if destination is None:
            return
        session = self._session(flow.client_conn)
        if await self._grant(flow, session, destination, None, None) and await self._prepared(flow, destination):
            session.connect_target = destination
            # Use the canonical host name for the upstream connection, its SNI and the certificate.
            flow.request.data.host = destination.host

    async def _request(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        session = self._session(flow.client_conn)
        tunnel = session.connect_target
        if tunnel is None and request.scheme == "https":
            return self._refuse(flow, Unparsed(request.host, request.port), Decision.denial(Code.HTTPS_WITHOUT_CONNECT))
        destination = self._parse(flow, sent_host(request), request.port)
        if destination is None:
            return None
        if tunnel is not None and (destination.host, destination.port) != (tunnel.host, tunnel.port):
            other = Decision.denial(Code.OTHER_HOST_IN_TUNNEL, Evidence(destination=destination, other=tunnel))
            return self._refuse(flow, destination, other)
        disagreement = authority_disagreement(request, destination)
        if disagreement is not None:
            return self._refuse(flow, destination, disagreement)
        if not await self._grant(flow, session, destination, sent_method(request), request.path):
            return None
        websocket = "websocket" in request.headers.get("upgrade", "").lower()
        if websocket and INSPECT in flow.metadata and not is_websocket_handshake(request):
            flow.metadata.pop(INSPECT)
            return self._refuse(flow, destination, Decision.denial(Code.WEBSOCKET_NOT_RECORDED, inspect=True))
        if INSPECT in flow.metadata and self._refuse_by_budget(flow, destination):
            return None
        if websocket and INSPECT in flow.metadata:
            # Remove the offered WebSocket extensions, such as compression, so that the recorder can read the frames.
            request.headers.pop("sec-websocket-extensions", None)
            flow.metadata[RELAY] = None
            flow.metadata[FURTHER] = functools.partial(
                self._further, flow, destination, sent_method(request), request.path
            )
        request.data.host = destination.host
        request.data.authority = b""
        # Forward only WebSocket upgrades. It is valid to drop others, because an origin may ignore any upgrade (RFC
        # 9110, section 7.8).
        drop_hop_by_hop(request, upgrades=websocket)
        # Remove proxy credentials: they are for this proxy, not for the origin (RFC 9110, section 11.7).
        request.headers.pop("proxy-authorization", None)
        return None

    def _further(self, flow: http.HTTPFlow, destination: Destination, method: str, path: str) -> Decision | None:
        """Apply the policy, the rate limit and the budgets to a model request in a WebSocket message.

        Record a denial, even one that the policy only reports. Return it if the message must not pass, otherwise None.
        """
        policy, found = self._policy(), self._class_policy(flow.client_conn)
        grant = self._session(flow.client_conn).grants.find(destination.host, destination.port)
        decision = decide(policy, found.name, destination, method, path)
        if grant is None:
            decision = Decision.denial(Code.NO_GRANT)
        elif decision.allow:
            checked = [check_address(policy, found.name, destination, one, method, path) for one in grant.addresses]
            decision = with_addresses(decision, checked)
        if decision.allow and self._wait_of_rate(found):
            decision = _exhausted(Code.RATE_LIMIT, found)
        if decision.allow and self._budgets is not None and (over := self._budgets.exceeded(found)) is not None:
            decision = over.decision
        if decision.allow:
            self._observer.allowed(found.name, inspect=True)
        if decision.would_deny or not decision.allow:
            enforced = not decision.allow
            self._observer.denied(
                found.name, destination, decision, method[:32], client_address(flow), enforced=enforced
            )
        return None if decision.allow else decision

    async def _grant(
        self,
        flow: http.HTTPFlow,
        session: ClientSession,
        destination: Destination,
        method: str | None,
        path: str | None,
    ) -> bool:
        """Check the name against the policy, resolve it, and check its addresses.

        If all are allowed, write the connection grant and return True. Otherwise refuse the request and return False.
        """
        policy, class_name = self._policy(), self._class_of(flow.client_conn)
        decision = decide(policy, class_name, destination, method, path)
        if not decision.allow:
            self._refuse(flow, destination, decision)
            return False
        known = session.grants.find(destination.host, destination.port)
        if known is not None and known.fresh:
            addresses = known.addresses
        else:
            known = None
            try:
                addresses = await self._addresses(policy, class_name, destination)
            except ResolutionError as error:
                unknown = Decision.denial(Code.NAME_NOT_RESOLVED, Evidence(detail=str(error)))
                self._answer_unreachable(flow, destination, unknown, _REMEDY_OF_NAME)
                return False
        # Check the addresses of an existing grant again, because the policy may have changed.
        decision = with_addresses(
            decision, (check_address(policy, class_name, destination, one, method, path) for one in addresses)
        )
        if decision.allow and decision.limited and method is not None and (name := limit_bypass(flow.request)):
            decision = Decision.denial(Code.OVERRIDE_HEADER, Evidence(rule=decision.rule, detail=name))
        route: Route | None = None
        if decision.allow and self._upstream_proxy is not None:
            try:
                decision, route = await self._routed(policy, decision, destination, addresses, method, path)
            except UpstreamProxyError as error:
                session.grants.revoke(destination.host, destination.port)
                self._upstream_failed(flow, destination, error)
                return False
        if not decision.allow:
            session.grants.revoke(destination.host, destination.port)
            self._refuse(flow, destination, decision)
            return False
        if known is None:
            known = ConnectionGrant(
                class_name,
                destination,
                addresses,
                decision.inspect,
                decision.tls,
                decision.rule,
                decision.reason,
                decision.code,
                route,
            )
            session.grants.write(known)
        if decision.would_deny:
            self._observer.denied(
                class_name, destination, decision, recorded_method(flow.request), client_address(flow), enforced=False
            )
        self._observer.allowed(class_name, inspect=decision.inspect)
        if decision.inspect and method is not None:
            flow.metadata[INSPECT] = Allowed(class_name, destination, decision)
        return True

    async def _routed(
        self,
        policy: Policy,
        decision: Decision,
        destination: Destination,
        addresses: tuple[str, ...],
        method: str | None,
        path: str | None,
    ) -> tuple[Decision, Route | None]:
        """Return the decision, and the route through the upstream proxy; None if the proxy connects directly.

        Deny a destination that is the upstream proxy itself, unless exceptions to the address guard permit all its
        addresses: a client must not use the upstream proxy without this proxy's policy.

        Raises:
            UpstreamProxyError: the name of the upstream proxy does not resolve.
        """
        upstream = self._upstream_proxy
        if upstream is None:
            return decision, None
        direct = upstream.is_direct(destination, addresses)
        try:
            await upstream.refresh()
        except UpstreamProxyError:
            if not direct:
                raise
        if upstream.is_named_by(destination, addresses):
            class_name = decision.evidence.class_name
            exceptions = policy.classes[class_name].addresses
            ips = map(ipaddress.ip_address, addresses)
            if not addresses or not all(exceptions.permitting(ip, destination.port, method, path) for ip in ips):
                return Decision.denial(Code.UPSTREAM_PROXY_NAMED, Evidence(class_name, destination)), None
        return decision, None if direct else upstream.route(destination, policy.fixed_address(destination.host))

    async def _prepared(self, flow: http.HTTPFlow, destination: Destination) -> bool:
        """Open the tunnel through the upstream proxy before the client's CONNECT succeeds. Return whether it is open.

        For an inspected host, open it with the first request instead: its response can then name the failure.
        """
        session = self._session(flow.client_conn)
        grant = session.grants.find(destination.host, destination.port)
        if grant is None or grant.inspect or not isinstance(grant.route, Route):
            return True
        try:
            await grant.route.prepare()
        except UpstreamProxyError as error:
            session.grants.revoke(destination.host, destination.port)
            self._upstream_failed(flow, destination, error)
            return False
        if flow.client_conn.id not in self._sessions:
            grant.close()
        return True

    def _upstream_failed(self, flow: http.HTTPFlow, destination: Destination, error: UpstreamProxyError) -> None:
        denied = Decision.denial(error.code, error.evidence)
        self._answer_unreachable(flow, destination, denied, _REMEDY_OF_UPSTREAM_PROXY)

    async def _addresses(self, policy: Policy, class_name: str, destination: Destination) -> tuple[str, ...]:
        """Return the addresses of the destination.

        Return an empty tuple if the upstream proxy is to resolve the name; the policy then decides by name only.

        Raises:
            ResolutionError: the name does not resolve. This includes a resolver that does not respond, so that a DNS
                outage cannot disable the address guard.
        """
        if destination.address is not None:
            return (str(destination.address),)
        fixed = policy.fixed_address(destination.host)
        if fixed is not None:
            return (str(fixed),)
        upstream, host = self._upstream_proxy, destination.host
        # Resolve names without a dot here, because the upstream proxy may complete them with its own search list.
        by_name = upstream is not None and "." in host and not upstream.is_direct(destination)
        if by_name and upstream is not None and not upstream.resolves:
            return ()
        try:
            return await self._resolver.addresses(class_name, host, destination.port)
        except ResolutionError as error:
            if by_name and error.absent:
                return ()
            raise

    def _parse(self, flow: http.HTTPFlow, host: str, port: int) -> Destination | None:
        try:
            return parse_destination(host, port)
        except DestinationError as error:
            wrong = Decision.denial(Code.INVALID_DESTINATION, Evidence(detail=str(error)))
            self._refuse(flow, Unparsed(host[:200], port), wrong)
            return None

    def _refuse(self, flow: http.HTTPFlow, destination: Target, decision: Decision, status: int = 403) -> None:
        class_name = self._class_of(flow.client_conn)
        flow.request.headers.pop("expect", None)
        self._observer.denied(
            class_name,
            destination,
            decision,
            recorded_method(flow.request),
            client_address(flow),
            enforced=True,
            status=status,
        )
        flow.response = refusal(
            status,
            class_name=class_name,
            destination=str(destination),
            rule=decision.rule,
            reason=decision.reason,
            accept=flow.request.headers.get("accept", ""),
        )

    def _answer_unreachable(self, flow: http.HTTPFlow, destination: Destination, why: Decision, remedy: str) -> None:
        class_name = self._class_of(flow.client_conn)
        flow.request.headers.pop("expect", None)
        self._observer.denied(
            class_name,
            destination,
            why,
            recorded_method(flow.request),
            client_address(flow),
            enforced=True,
            status=502,
        )
        flow.response = refusal(
            502,
            class_name=class_name,
            destination=str(destination),
            rule=why.rule,
            reason=why.reason,
            accept=flow.request.headers.get("accept", ""),
            remedy=remedy,
        )

    # ── protocol layers ──────────────────────────────────────────────────────────────────────────────────────

    @fails_closed(_layer_failed)
    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Choose the next protocol layer.

        1. At the start of a client connection: HTTP.
        2. After a CONNECT that a rule with ``tls: false`` allows: a tunnel for any protocol.
        3. After any other CONNECT: TLS or plain HTTP.

        Refuse TLS in the first case, and bytes that are neither TLS nor HTTP in the third.
        """
        if nextlayer.layer is None:
            data = nextlayer.data_client()  # type: ignore[no-untyped-call]
            nextlayer.layer = self._next_layer(nextlayer.context, data)
            if isinstance(nextlayer.layer, Refuse):
                asyncio.get_running_loop().call_soon(abort, nextlayer.context.client)

    def _next_layer(self, context: Any, data: bytes) -> layer.Layer | None:
        session = self._session(context.client)
        if len(context.layers) == 1:
            session.stop_first_byte_timer()
            if not looks_like_tls(data):
                return self._http(context, HTTPMode.regular)
            self._deny_connection(context.client, None, Code.TLS_ON_LISTENER)
            return Refuse(context)
        if isinstance(context.layers[-1], layers.ClientTLSLayer):
            return self._http(context, HTTPMode.transparent)
        target = session.connect_target
        grant = _connect_grant(session)
        if grant is not None and not grant.tls:
            # Do not wait for client bytes here: without TLS, the server may speak first.
            session.tunnel_in_use = True
            self._begin_tunnel(context.client, grant)
            return layers.TCPLayer(context, ignore=True)
        if not data:
            return None
        if looks_like_tls(data):
            if data[5:6] not in (b"", b"\x01"):
                # Refuse now: this TLS record is not a ClientHello (RFC 8446, section 4). mitmproxy would check this
                # only after it has received the whole record.
                self._deny_connection(context.client, target, Code.CLIENT_HELLO_UNREADABLE)
                return Refuse(context)
            server_tls = layers.ServerTLSLayer(context)
            server_tls.child_layer = layers.ClientTLSLayer(context)
            return server_tls
        is_http = is_request_start(data) if target is not None else False
        if is_http is None:
            return None
        if is_http:
            # Parse plain HTTP, so that the policy also applies to each request in the tunnel. Every request must name
            # the destination of the tunnel.
            session.tunnel_in_use = True
            return self._http(context, HTTPMode.transparent)
        self._deny_connection(context.client, target, Code.NOT_TLS)
        return Refuse(context)

    def _http(self, context: Any, mode: HTTPMode) -> layer.Layer:
        client, session = context.client, self._session(context.client)
        return BoundedHttpLayer(
            context,
            mode,
            self._class_policy(client).limits,
            functools.partial(self._refuse_message, client),
            tunnel_in_use=lambda: session.tunnel_in_use,
        )

    @fails_closed(_hello_failed)
    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """Decrypt traffic to inspected hosts, and tunnel all other traffic.

        Refuse the connection if the SNI does not match the destination of CONNECT.
        """
        client = data.context.client
        session = self._session(client)
        target, grant = session.connect_target, _connect_grant(session)
        if target is None or grant is None:
            raise LookupError("the tunnel has no connection grant")
        if not sni_agrees(data.client_hello.sni, target):
            self._deny_connection(client, target, Code.SNI_MISMATCH)
            return
        data.ignore_connection = not grant.inspect
        if data.ignore_connection:
            # Set the server's address for the tunnel, because mitmproxy's HttpLayer does not.
            data.context.server.address = (target.host, target.port)
            session.tunnel_in_use = True
            self._begin_tunnel(client, grant)

    def _begin_tunnel(self, client: connection.Client, grant: ConnectionGrant) -> None:
        self._session(client).relayed = True
        if self._class_policy(client).log_tunnels:
            tunnel = tunnels.Tunnel(
                grant.class_name,
                grant.destination,
                str(client.peername[0]),
                grant.rule,
                grant.reason,
                grant.code,
                time.time_ns(),
            )
            tunnels.begin(client.id, tunnel)

    @fails_closed(_certificate_failed)
    def tls_start_client(self, data: tls.TlsData) -> None:
        """If the client has no grant, provide no TLS context, so that mitmproxy ends the handshake."""
        if _connect_grant(self._session(data.context.client)) is None:
            raise AddonHalt

    @fails_closed(_established_failed)
    def tls_established_client(self, data: tls.TlsData) -> None:
        """Mark the tunnel as in use after the TLS handshake. The timeout for unused tunnels then no longer applies."""
        self._session(data.context.client).tunnel_in_use = True

    @fails_closed(_handshake_failed)
    def tls_failed_client(self, data: tls.TlsData) -> None:
        """Record a handshake that the proxy ended. A handshake that the client ended is not a refusal."""
        client, error = data.context.client, data.conn.error or ""
        session = self._session(client)
        refused_before = _connect_grant(session) is None
        if refused_before or any(words in error for words in _CLIENT_ENDED):
            return
        unreadable = error.startswith("Cannot parse ClientHello")
        code = Code.CLIENT_HELLO_UNREADABLE if unreadable else Code.TLS_UNUSABLE
        self._deny_connection(client, session.connect_target, code)

    @fails_closed(_end_of_exchange_failed)
    def error(self, flow: http.HTTPFlow) -> None:
        """Record a malformed response, or a failure of the upstream proxy.

        For an inspected host, only mark the flow: the recorder records it.
        """
        problem = flow.metadata.get(RESPONSE_PROBLEM)
        refused = None if problem is None else Decision.denial(Code.MALFORMED_RESPONSE, Evidence(detail=problem))
        grant = self._session(flow.client_conn).grants.find(flow.request.host, flow.request.port)
        if refused is None and (failure := _failure_of(grant)) is not None and flow.response is None:
            flow.metadata[UPSTREAM_FAILURE] = str(failure.code)
            refused = Decision.denial(failure.code, failure.evidence)
        if refused is not None and INSPECT not in flow.metadata:
            self._observer.denied(
                self._class_of(flow.client_conn),
                self._named_destination(flow.client_conn, flow.request),
                refused,
                recorded_method(flow.request),
                client_address(flow),
                enforced=True,
                status=502,
            )

    @fails_closed(_opening_failed)
    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Check the grant immediately before mitmproxy connects: without a grant, refuse the connection."""
        current_grant.set(None)
        address = data.server.address
        grant = self._session(data.client).grants.find(address[0], address[1]) if address else None
        if address is None or grant is None:
            data.server.error = f"{REFUSED}: no connection grant"
            self._record_failure(data.client, Code.NO_GRANT)
            return
        current_grant.set(grant)
        if grant.destination.address is not None and str(grant.destination.address) != address[0]:
            data.server.error = f"{REFUSED}: address not in canonical form"
            self._record_failure(data.client, Code.ADDRESS_NOT_CANONICAL)

    @fails_closed(_opened_failed)
    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Abort the connection before any data is sent, unless the peer's address was checked.

        The peer is the destination, or the upstream proxy.
        """
        address, peer = data.server.address, data.server.peername
        grant = self._session(data.client).grants.find(address[0], address[1]) if address else None
        if grant is None or peer is None or peer[0].split("%")[0] not in grant.peers:
            raise LookupError("the server's address was not checked before the connection")

    @fails_closed(_unopened_failed)
    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Record a failure of the upstream proxy in a tunnel. The hook `error` records those of requests."""
        address, session = data.server.address, self._session(data.client)
        grant = session.grants.find(address[0], address[1]) if address else None
        if session.relayed and grant is not None and (failure := _failure_of(grant)) is not None:
            self._observer.denied(
                grant.class_name,
                grant.destination,
                Decision.denial(failure.code, failure.evidence),
                "CONNECT",
                str(data.client.peername[0]),
                enforced=True,
            )

    # ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────

    def _class_of(self, client: connection.Client) -> str:
        return self._class_policy(client).name

    def _class_policy(self, client: connection.Client) -> ClassPolicy:
        found = self._policy().class_for_port(_port(client))
        if found is None:
            raise LookupError(f"no class listens on port {_port(client)}")
        return found

    def _deny_connection(self, client: connection.Client, target: Destination | None, code: Code) -> None:
        """Record the refusal of a connection, and revoke the client's grants.

        ``target`` is the destination of the client's CONNECT, or None. Without a CONNECT, count the connection towards
        the class's rate limit; a CONNECT was already counted.
        """
        found = self._class_policy(client)
        limited = target is None and self._wait_of_rate(found)
        self._observer.denied(
            found.name,
            target or UNREADABLE,
            _exhausted(Code.RATE_LIMIT, found) if limited else Decision.denial(code),
            "CONNECT" if target else "-",
            str(client.peername[0]),
            enforced=True,
        )
        self._revoke_grants(client)

    def _session(self, client: connection.Client) -> ClientSession:
        """Return the client's session, or a new empty one if the client has disconnected."""
        return self._sessions.get(client.id) or ClientSession(self._class_of(client))

    def _revoke_grants(self, client: connection.Client) -> None:
        if (session := self._sessions.get(client.id)) is not None:
            session.grants.revoke_all()


def _connect_grant(session: ClientSession) -> ConnectionGrant | None:
    """Return the grant for the destination of the client's CONNECT, or None."""
    target = session.connect_target
    return session.grants.find(target.host, target.port) if target is not None else None


def _failure_of(grant: ConnectionGrant | None) -> UpstreamProxyError | None:
    """Return the upstream proxy's failure in the grant's newest connection attempt, or None."""
    return grant.route.failure if grant is not None and isinstance(grant.route, Route) else None


def _port(client: connection.Client) -> int:
    return int(client.sockname[1])


_LIMITS = {Code.CONNECTION_LIMIT: "connections", Code.RATE_LIMIT: "requests_per_minute"}


def _exhausted(code: Code, found: ClassPolicy) -> Decision:
    limit = _LIMITS[code]
    return Decision.denial(code, Evidence(found.name, limit=limit, most=getattr(found.limits, limit)))


def _unknown(address: str, neighbours: Neighbours) -> Decision:
    known = ", ".join(map(str, neighbours.addresses))
    evidence = Evidence(address=ipaddress.ip_address(address), network=neighbours.network, allows=known)
    return Decision.denial(Code.UNKNOWN_NEIGHBOUR, evidence)

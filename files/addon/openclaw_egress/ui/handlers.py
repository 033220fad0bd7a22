"""The handlers of the page, one for each view."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from dataclasses import asdict
from functools import partial
from typing import override

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from openclaw_egress.observability import last_audit
from openclaw_egress.recording.semconv import EVENT_CHECKPOINT
from openclaw_egress.reports import har, search
from openclaw_egress.reports.status import status_of
from openclaw_egress.reports.stored_record import lines_of
from openclaw_egress.reports.text import local_time
from openclaw_egress.spool.reader import Filters, Row
from openclaw_egress.ui import access, denials, exchange, health, listing, policy, ranges, session, usage
from openclaw_egress.ui.handler import Handler
from openclaw_egress.ui.pages import STATIC, render

LIVE_SECONDS = 0.5
"""Seconds between two searches for new records."""
SILENCE_SECONDS = 15.0
"""An event stream sends an empty event after this many seconds without a new record."""
MAX_STREAMS = 32
STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Static(Handler):
    """Styles and scripts. Clients need no token for them, because they contain no record."""

    protected = False

    async def get(self, name: str) -> None:
        """Send the style sheet or script with this name."""
        path = STATIC / name
        if path.suffix not in STATIC_TYPES or not path.is_file():
            raise HTTPError(404)
        self.set_header("Content-Type", f"{STATIC_TYPES[path.suffix]}; charset=utf-8")
        self.finish(path.read_bytes())


class Login(Handler):
    """The login: the browser posts the token and gets the cookie."""

    protected = False

    async def post(self) -> None:
        """Set the cookie, and redirect to the requested page."""
        target = access.local_target(self.get_body_argument("target", "/"))
        own = access.is_own_request(self.request.headers.get("Sec-Fetch-Site"))
        given = self.get_body_argument("token", "")
        if not (own and access.is_token(given, self.page.token)):
            self.set_status(401)
            self.finish(render("login.html", target=target, wrong=True))
            return
        name = access.cookie_name(self.request.host)
        self.set_cookie(name, self.page.token, expires_days=None, httponly=True, samesite="Strict", path="/")
        self.redirect(target, status=303)


class Live(Handler):
    """The list of exchanges and denials, the newest first."""

    async def get(self) -> None:
        """Show a page of the list."""
        conditions = listing.conditions_of(self.conditions(listing.FIELDS))
        before = self._number("before")
        page = await self.run(lambda: listing.search_page(self.page.reader, conditions, before, time.monotonic))
        self.finish(
            render(
                "live.html",
                page=page,
                conditions=conditions,
                first=before is None,
                cells=listing.CELLS,
                events=search.EVENTS,
            )
        )

    def _number(self, name: str) -> int | None:
        text = self.get_query_argument(name, "")
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


class Events(Live):
    """Server-sent events with new records (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    left = False
    """Whether the client has closed the connection."""

    @override
    async def get(self) -> None:
        """Send matching records as they arrive, until the client closes the connection."""
        if self.page.streams >= MAX_STREAMS:
            raise HTTPError(503)
        self.page.streams += 1
        self.set_header("Content-Type", "text/event-stream")
        try:
            await self._follow(listing.conditions_of(self.conditions(listing.FIELDS)))
        except StreamClosedError:
            pass
        finally:
            self.page.streams -= 1

    @override
    def on_connection_close(self) -> None:
        self.left = True

    async def _follow(self, conditions: listing.Conditions) -> None:
        last_id = self.request.headers.get("Last-Event-ID", "")
        begin = int(last_id) if re.fullmatch(r"[0-9]{1,18}", last_id) else self._number("after")
        after = (await self.run(self.page.reader.head))[0] if begin is None else begin
        silent_since = time.monotonic()
        await self.flush()
        while not self.left and not self.page.ended.is_set():
            news = await self.run(partial(listing.news, self.page.reader, conditions, after, time.monotonic))
            after = news.newest
            if news.lines or news.left_out or time.monotonic() - silent_since > SILENCE_SECONDS:
                # After `SILENCE_SECONDS` without a record, send an event without records, because tunnels close idle
                # connections. A browser that reconnects sends the ID of the last event, and the search continues there.
                self.write(f"id: {after}\ndata: {json.dumps(asdict(news))}\n\n")
                silent_since = time.monotonic()
                await self.flush()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.page.ended.wait(), LIVE_SECONDS)


class Record(Handler):
    """One record: its conversation, its messages and its state in the chain."""

    async def get(self, number: str) -> None:
        """Show the record."""
        row, lines = await self._record(number)
        reader = self.page.reader
        view = await self.run(lambda: exchange.view_of(row, lines, reader.digest, reader.usage_details(row.seq)))
        self.finish(render("record.html", view=view))

    async def _record(self, number: str) -> tuple[Row, list[str]]:
        found = await self.run(lambda: self._read(int(number)))
        if found is None:
            raise HTTPError(404)
        return found

    def _read(self, seq: int) -> tuple[Row, list[str]] | None:
        reader = self.page.reader
        row = next(reader.query(Filters(after_seq=seq - 1, before_seq=seq + 1)), None)
        if row is None:
            return None
        stored = [text for _, _, text in reader.stored_between(seq, seq + row.parts)]
        return row, lines_of(row.id, stored)


class Body(Record):
    """The stored body of a request or a response, as a file."""

    @override
    async def get(self, number: str, side: str) -> None:  # type: ignore[override]
        """Send the body as a download, so that the browser does not display it and run scripts in it."""
        row, lines = await self._record(number)
        body = await self.run(lambda: exchange.body_bytes(lines, side))
        if body is None:
            raise HTTPError(404)
        self._download(body, "application/octet-stream", f"{row.seq}-{side}-body")

    def _download(self, data: bytes, media_type: str, name: str) -> None:
        self.set_header("Content-Type", media_type)
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.finish(data)


class Har(Body):
    """An exchange as an HTTP Archive."""

    @override
    async def get(self, number: str) -> None:  # type: ignore[override]
        """Send the exchange as an HTTP Archive."""
        row, lines = await self._record(number)
        if not row.id:
            raise HTTPError(404)
        archive = await self.run(lambda: json.dumps(har.archive([har.entry_of(row, lines)]), indent=1))
        self._download(archive.encode(), "application/json", f"{row.seq}.har")


class Session(Record):
    """The session of an exchange: the other exchanges of its agent run."""

    @override
    async def get(self, number: str) -> None:
        """Show the session."""
        row, _ = await self._record(number)
        if not row.id:
            raise HTTPError(404)
        view = await self.run(partial(session.read_session, self.page.reader, row, time.monotonic))
        self.finish(render("session.html", view=view))


class Denials(Handler):
    """The denials in a period, in groups with the rules that would allow them, and each class's allowed traffic."""

    async def get(self) -> None:
        """Show the groups of denials."""
        given = self.conditions(listing.FIELDS) | {"event": ""}
        given["since"] = given["since"] or denials.SINCE
        conditions = listing.conditions_of(given)
        found = denials.Found()
        if not conditions.problem:
            read = partial(denials.read_denials, self.page.reader, conditions.filters, time.monotonic)
            found = await self.run(read)
        groups, more = await self.run(partial(denials.group_views, found.denials, self.page.is_own))
        period = {name: conditions.texts[name] for name in ("since", "until")}
        classes = denials.class_views([group.class_name for group in groups], found.allowed, period)
        since = None if found.oldest_ns is None else local_time(found.oldest_ns)
        self.finish(
            render(
                "denials.html",
                groups=groups,
                more=more,
                classes=classes,
                anchors={one.name: f"class-{at}" for at, one in enumerate(classes, 1)},
                conditions=conditions,
                only_since=since,
            )
        )


class Policy(Handler):
    """The policy, with the uses of each rule in the last day."""

    async def get(self) -> None:
        """Show the policy."""
        view = await self.run(partial(policy.read_view, self.page.settings, self.page.reader, time.time_ns()))
        self.finish(render("policy.html", view=view))


class UsageTotals(Handler):
    """The totals of tokens, cost and durations, by day, by model and by class."""

    async def get(self) -> None:
        """Show the usage totals."""
        given = self.conditions(("class", "since", "until"))
        given["since"] = given["since"] or usage.SINCE
        conditions = listing.conditions_of(given)
        filters = conditions.filters
        view = None
        if not conditions.problem:
            since_ns = filters.since_ns or 0
            chosen = (since_ns, filters.until_ns, filters.class_name)
            view = await self.run(lambda: usage.usage_of(self.page.reader, *chosen, time.monotonic))
        self.finish(render("usage.html", view=view, conditions=conditions))


class Health(Handler):
    """The state of proxy, spool, export, certificates and hash chain, with the last audit."""

    async def get(self) -> None:
        """Show the health page."""
        self.finish(render("health.html", view=await self.run(self._view)))

    def _view(self) -> health.HealthView:
        reader = self.page.reader
        seq = reader.checkpoint_before(reader.head()[0] + 1)
        newest = Filters(event_names=[EVENT_CHECKPOINT]).within(seq or 0, (seq or 0) + 1)
        row = next(reader.query(newest), None)
        checkpoint = "none yet" if row is None else f"line {row.seq}, {local_time(row.time_ns)}"
        settings = self.page.settings
        last, unreadable = None, ""
        try:
            last = last_audit.read(settings.state_dir)
        except last_audit.LastAuditError as error:
            unreadable = str(error)
        time_of = partial(ranges.time_of, reader)
        audits = health.Audits(last, unreadable, checkpoint, reader.head()[0], time_of)
        # Read the CA only if its directory exists, because a separate container for the page has no access to it.
        status = status_of(settings, self.page.ask(), with_ca=settings.effective_ca_dir.exists())
        return health.health_of(status, audits, time.time())

"""Short responses to refused requests, in a format that the client accepts.

Each response contains only the rule that refused the request, and no other rule of the policy.
"""

from __future__ import annotations

import html
import json

from mitmproxy import http

from openclaw_egress.wire.proxy_status import OUR_NAME, without_our_name

REMEDY = (
    "Ask the operator of this machine to allow it in policy.yml (`egress policy explain CLASS URL` shows the reason)."
)


def refusal(
    status: int, *, class_name: str, destination: str, rule: str, reason: str, accept: str = "", remedy: str = REMEDY
) -> http.Response:
    """Return the response to a refused request.

    ``Proxy-Status`` (RFC 9209) shows that the proxy responded, not the origin. ``accept`` is the client's Accept
    header: a browser gets a page, a client that accepts JSON gets JSON, all others get plain text.
    """
    error = "http_request_denied" if status == 403 else "proxy_internal_response"
    headers = {
        "Proxy-Status": f'{OUR_NAME.decode()}; error={error}; details="{_quoted(rule)}"',
        "Cache-Control": "no-store",
    }
    fields = {"class": class_name, "destination": destination, "rule": rule, "reason": reason, "remedy": remedy}
    if "application/json" in accept:
        headers["Content-Type"] = "application/json"
        body = json.dumps({"error": {"type": "egress_denied", "message": reason, **fields}}) + "\n"
    elif "text/html" in accept:
        headers["Content-Type"] = "text/html; charset=utf-8"
        rows = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in fields.items())
        body = (
            "<!doctype html><meta charset=utf-8><title>Refused by openclaw.egress</title>"
            "<style>body{font:16px/1.5 system-ui;max-width:42rem;margin:4rem auto;padding:0 1rem}"
            "dt{color:#666}dd{margin:0 0 .8rem}</style>"
            f"<h1>This request was refused</h1><dl>{rows}</dl>\n"
        )
    else:
        headers["Content-Type"] = "text/plain; charset=utf-8"
        lines = "".join(f"{key}: {value}\n" for key, value in fields.items())
        body = f"openclaw.egress refused this request.\n{lines}"
    return http.Response.make(status, body.encode("utf-8", "replace"), headers)


def is_refusal(response: http.Response) -> bool:
    """Return whether this proxy created the response.

    Call `drop_forged_status` on a server's response first, because a server can also send a Proxy-Status field with
    this proxy's name.
    """
    return any(value.startswith(OUR_NAME) for value in _statuses(response))


def drop_forged_status(response: http.Response) -> None:
    """Remove this proxy's name from the Proxy-Status field of a server's response: only this proxy may add it."""
    if not _statuses(response):
        return
    kept = []
    for name, value in response.headers.fields:
        if name.lower() == b"proxy-status" and not (value := without_our_name(value)):
            continue
        kept.append((name, value))
    response.headers.fields = tuple(kept)


def _statuses(response: http.Response) -> list[bytes]:
    return [value for name, value in response.headers.fields if name.lower() == b"proxy-status"]


def _quoted(text: str) -> str:
    """Return ``text`` as the content of an RFC 8941 string: printable ASCII, with quotes and backslashes escaped."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in text)
    return printable.replace("\\", "\\\\").replace('"', '\\"')[:200]

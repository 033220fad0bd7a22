"""Access control of the page: who may read it, and what it may do in a browser. Pure functions.

The page shows the conversations of agents. The loopback address alone does not protect it, because every user of the
machine and every page in the operator's browser can reach that address. Four rules protect the page:

1. **A token.** `egress ui` makes a new token at each start and prints it in the fragment of the address. Browsers never
   send the fragment, so the token appears in no server log and in no ``Referer``. The script of the login page posts
   the token once; without JavaScript, the operator pastes it into the form. After the login, a cookie contains it:
   ``HttpOnly`` (no script reads it), ``SameSite=Strict`` (no other site uses it), and without a lifetime (it ends with
   the browser). A browser sends a cookie to every port of its host, so the cookie's name contains the port in the
   browser's address bar, and two tunnels have two cookies. For the same reason, a server that another user runs on
   the operator's own machine receives the cookie if the operator opens a page of that server on loopback.
2. **The Host header** must name loopback. The page thus refuses a hostname that an attacker points at loopback (DNS
   rebinding).
3. **Fetch metadata.** A browser states the origin of a request. The page sends no record in response to a request from
   another site or port.
4. **The Content Security Policy** (`HEADERS`) permits only the page's own scripts and styles, from files, and no
   request to another server. A script in a record therefore cannot run, even if the escaping fails.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response."""
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


def new_token() -> str:
    """Return a token of 256 random bits, in URL-safe characters."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str | None) -> bool:
    """Return whether the Host header is a loopback name or address.

    Accept any port, because an SSH tunnel may use a different one.
    """
    try:
        return urlsplit(f"//{host or ''}").hostname in LOOPBACK_NAMES
    except ValueError:
        return False


def cookie_name(host: str) -> str:
    """Return the name of the cookie for the Host header of a request."""
    try:
        return f"egress_ui_{urlsplit(f'//{host}').port or 80}"
    except ValueError:
        return "egress_ui_80"


def is_token(given: str | None, token: str) -> bool:
    """Return whether a text is the token. The comparison takes constant time."""
    return hmac.compare_digest((given or "").encode(errors="replace"), token.encode())


def is_own_request(site: str | None) -> bool:
    """Return whether ``Sec-Fetch-Site`` says that a request comes from this page or from the address bar.

    Also accept a request without the header: clients other than browsers send none, and they too need the token.
    """
    return site in (None, "same-origin", "none")


def local_target(target: str) -> str:
    """Return the path to show after the login. Return the first page for a target on another server."""
    if target.startswith("/") and not target.startswith("//") and target.isprintable() and "\\" not in target:
        return target
    return "/"

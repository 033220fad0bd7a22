"""Access to the page: who may read it, and what a browser may do with it. Pure functions.

The page shows the conversations of agents. The loopback address alone does not protect it, because every user of the
machine and every page in the operator's browser can reach that address. Four rules protect the page:

1. **A token.** `egress ui` makes a new token at each start and prints it in the fragment of the address. Browsers never
   send the fragment, so the token appears in no server's log and in no ``Referer``. The script of the login page posts
   the token once; without JavaScript, the operator pastes it into the form. After the login, a cookie contains it:
   ``HttpOnly`` (no script reads it), ``SameSite=Strict`` (no other site uses it), and without a lifetime (it ends with
   the browser). A browser sends a cookie to every port of its host, so the cookie's name contains the port of the
   browser's address: two tunnels keep two cookies. For the same reason, a server that another user runs on the
   operator's own machine can receive the cookie, if the operator opens its page by the name of loopback.
2. **The Host header** must name loopback. A name that an attacker points at loopback (DNS rebinding) does not.
3. **Fetch metadata.** A browser says where a request comes from. A request of another site or port gets no record.
4. **The Content Security Policy** (`HEADERS`) permits only the page's own scripts and styles, from files, and no
   request to another server. So no script in a record can run, even if the escaping fails.
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
    """Return a token of 256 random bits, in characters that a URL may contain."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str | None) -> bool:
    """Return whether the Host header names loopback. Accept any port, because an SSH tunnel may use a different one."""
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
    """Return whether a text is the token, in a time that does not depend on the text."""
    return hmac.compare_digest((given or "").encode(errors="replace"), token.encode())


def is_own_request(site: str | None) -> bool:
    """Return whether a request comes from this page, or from the address bar, by its ``Sec-Fetch-Site``.

    A client that is not a browser sends no such header; it needs the token.
    """
    return site in (None, "same-origin", "none")


def local_target(target: str) -> str:
    """Return the path to show after the login. For a target on another server, return the path of the first page."""
    if target.startswith("/") and not target.startswith("//") and target.isprintable() and "\\" not in target:
        return target
    return "/"

"""Look in Loki for the record of the check llm-request, with the tenant and credentials that the exporter sends."""

import json
import os
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path


def headers():
    """Return the exporter's headers: `name=value` pairs, separated by commas, with percent-encoded values."""
    try:
        text = Path(os.environ["HEADERS_FILE"]).read_text(encoding="utf-8").partition("=")[2].strip()
    except FileNotFoundError:
        return {}
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {name.strip(): urllib.parse.unquote(value.strip()) for name, _, value in pairs}


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A handler that does not follow redirects, which would send the credentials to another host."""

    def redirect_request(self, *_):
        """Return no request, so that the redirect is an error."""
        return


query = '{service_name="%(SERVICE_NAME)s"} |= `egress-verify=%(RUN_ID)s`' % os.environ
url = (
    os.environ["LOKI_URL"]
    + "/loki/api/v1/query_range?"
    + urllib.parse.urlencode(
        {"query": query, "limit": 10, "start": int((time.time() - 3600) * 1e9), "end": int((time.time() + 60) * 1e9)}
    )
)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())
error = ""
for _ in range(20):
    try:
        result = json.load(opener.open(urllib.request.Request(url, headers=headers()), timeout=10))["data"]["result"]
        if result:
            print("Loki returned the record for", query)
            sys.exit(0)
    except ValueError as problem:
        # Do not print the text: it can contain an invalid header, with the credentials.
        error = " (%s)" % type(problem).__name__
    except Exception as problem:
        error = " (%s)" % problem
    time.sleep(2)
print("Loki returned no record for", query + error)
sys.exit(1)

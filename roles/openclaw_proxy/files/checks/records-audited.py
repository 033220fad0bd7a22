"""Audit the records of the last hour with the proxy's own command."""

import json
import os
import subprocess
import sys

words = ["docker", "exec", "openclaw-proxy", "egress", "audit", "--json", "--since", "1h", *os.environ["STORE"].split()]
done = subprocess.run(words, capture_output=True, text=True, check=False)
try:
    reports = json.loads(done.stdout)["reports"]
    found = [(report["source"], report["lines"], report["findings"]) for report in reports]
except (ValueError, KeyError, TypeError):
    sys.exit(f"could not be checked: {done.stderr.strip() or 'no output'}")
for source, lines, findings in found:
    codes = sorted({finding["code"] for finding in findings})
    print(f"{source}: {lines} lines, {', '.join(codes) or 'no findings'}")
sys.exit(done.returncode != 0 or not found or any(findings for source, lines, findings in found))

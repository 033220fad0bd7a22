"""A check of a host without Docker. The argument is its id. Print the finding; exit with 0 if the check passes.

Checks that are written for the gateway's Node come on standard input. They run as the gateway's user, with the Node and
the environment of the gateway's running process.
"""

import datetime
import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

E = os.environ


def run(*words, **more):
    """Run a command. Return the completed process with its output as text."""
    return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, **more)


def egress(*words):
    """Run the proxy's own command."""
    return run(E["EGRESS"], *words)


def last(done):
    """Return the last line that a command printed."""
    return ((done.stdout.strip() or done.stderr.strip()).splitlines() or ["no output"])[-1]


def gateway_process():
    """Return the gateway's process id. Exit if the gateway does not run."""
    done = run(*json.loads(E["SYSTEMCTL"]), "show", "--property=MainPID", "--value", E["GATEWAY_UNIT"])
    found = done.stdout.strip()
    if not found.isdigit() or found == "0":
        sys.exit(f"could not be checked: {E['GATEWAY_UNIT']} has no process. {last(done)}")
    return int(found)


def gateway_environment(pid):
    """Return the environment of a process."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def llm_host():
    """Return an inspected host that the policy lets the gateway reach."""
    done = egress("policy", "check", "--json")
    try:
        return json.loads(done.stdout)["classes"]["gateway"]["inspected"][0]
    except (ValueError, LookupError):
        sys.exit(f"could not be checked: the gateway may reach no inspected host by name. {last(done)}")


def proxy_healthy():
    """Check the proxy's unit, and its own report about its health."""
    active = run("systemctl", "is-active", E["PROXY_UNIT"]).stdout.strip()
    healthy = egress("health")
    print(f"{E['PROXY_UNIT']} is {active}; {last(healthy)}")
    return active == "active" and healthy.returncode == 0


def policy_valid():
    """Check the policy with the proxy's own command."""
    done = egress("policy", "check", E["POLICY"])
    print(last(done))
    return done.returncode == 0


def ca_valid():
    """Check how long the issuing CA is valid."""
    done = egress("ca", "show", "--json")
    try:
        until = datetime.datetime.fromisoformat(json.loads(done.stdout)["issuing_expires"])
    except (ValueError, LookupError):
        sys.exit(f"could not be checked: {last(done)}")
    left = (until - datetime.datetime.now(datetime.timezone.utc)).days
    print(f"issuing CA valid for {left} days")
    return left >= 10


def ca_key_private():
    """Check owner and mode of the keys."""
    key, root = Path(E["CA_DIR"], "mitmproxy-ca.pem").stat(), Path(E["ROOT_KEY_DIR"]).stat()
    modes = [f"{stat.S_IMODE(each.st_mode):o}" for each in (key, root)]
    print(f"issuing key (uid mode): {key.st_uid} {modes[0]}; directory of the root key: {root.st_uid} {modes[1]}")
    owner = pwd.getpwnam(E["PROXY_USER"]).pw_uid
    return key.st_uid == owner and modes[0] in ("400", "600") and root.st_uid == 0 and modes[1] == "700"


def gateway_active():
    """Check that the gateway's unit runs."""
    done = run(*json.loads(E["SYSTEMCTL"]), "is-active", E["GATEWAY_UNIT"])
    print(f"{E['GATEWAY_UNIT']} is {last(done)}")
    return done.stdout.strip() == "active"


def gateway_has_environment():
    """Check the variables of the running process. Print no value, because an edited one can hold a password."""
    found = gateway_environment(gateway_process())
    wrong = sorted(name for name, value in json.loads(E["WANTED"]).items() if found.get(name) != value)
    print(f"other or no value: {', '.join(wrong)}" if wrong else f"{len(json.loads(E['WANTED']))} variables are set")
    return not wrong


def with_node(*words):
    """Run the program on standard input with the gateway's Node, user and environment."""
    pid = gateway_process()
    node = str(Path(f"/proc/{pid}/exe").readlink())
    pairs = [f"{name}={value}" for name, value in gateway_environment(pid).items()]
    as_user = ["runuser", "-u", E["GATEWAY_USER"], "--", "env", "-i", *pairs]
    done = run(*as_user, node, "-", *words, input=sys.stdin.read())
    print(last(done))
    sys.exit(done.returncode)


def llm_recorded():
    """Count the records of the request of this run."""
    found = egress("records", "--json", "--host", llm_host()).stdout.count(f"egress-verify={E['RUN_ID']}")
    print(f"{found} mention(s) of the request in the records")
    return found > 0


CHECKS = {
    "proxy-healthy": proxy_healthy,
    "policy-valid": policy_valid,
    "ca-valid": ca_valid,
    "ca-key-private": ca_key_private,
    "gateway-active": gateway_active,
    "gateway-environment": gateway_has_environment,
    "llm-request": lambda: with_node(f"https://{llm_host()}/v1/models?egress-verify={E['RUN_ID']}"),
    "llm-recorded": llm_recorded,
    "gateway-clients": lambda: with_node("application"),
    "other-tls-tunnelled": lambda: with_node(E["TUNNEL_HOST"]),
    "metadata-refused": lambda: with_node("169.254.169.254:443"),
}
try:
    passed = CHECKS[sys.argv[1]]()
except OSError as error:
    sys.exit(f"could not be checked: {error}")
sys.exit(not passed)

"""Request each published TCP port, and expect a response from the gateway."""

import os
import socket
import subprocess
import sys


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


bound = []
for line in output("docker", "port", os.environ["FORWARDER"]).splitlines():
    port, arrow, at = line.partition(" -> ")
    if not arrow:
        sys.exit(f"could not be checked: docker printed {line!r} instead of a published port")
    if port.endswith("/tcp"):
        bound.append(at)
for at in bound:
    host, _, number = at.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host)
    try:
        # Require a response. A connection alone proves nothing, because Docker itself accepts it.
        with socket.create_connection((host, int(number)), 10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if not connection.recv(1):
                sys.exit(f"{at}: the gateway sent no response")
    except OSError as problem:
        sys.exit(f"{at}: {problem}")
print(", ".join(bound) or "no TCP port is published")

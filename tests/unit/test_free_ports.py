"""Tests that `free_ports` never returns the same port to two test processes."""

import functools
import random
import subprocess
import sys
import tempfile

import pytest

from tests.support import proxy_process

# These ports are below the range of free_ports, so that no other test locks them.
PORT, OTHER, THIRD = 9_007, 9_009, 9_011
HOLDER = f"""
import random, sys
from tests.support import proxy_process
random.randrange = lambda *_: {PORT}
print(proxy_process.free_ports(1), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    """Use a separate lock file, because another test run on this machine may have locked the same ports."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(proxy_process, "_port_locks", functools.cache(proxy_process._port_locks.__wrapped__))
    monkeypatch.setattr(proxy_process, "_taken", set())


def test_port_of_another_process_is_not_free_before_it_listens(monkeypatch):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == f"[{PORT}]\n"
        drawn = iter([PORT, OTHER])
        monkeypatch.setattr(random, "randrange", lambda *_: next(drawn))
        assert proxy_process.free_ports(1) == [OTHER]
        holder.stdin.close()


def test_port_is_never_returned_twice(monkeypatch):
    drawn = iter([THIRD, THIRD, THIRD + 2])
    monkeypatch.setattr(random, "randrange", lambda *_: next(drawn))
    assert proxy_process.free_ports(1) == [THIRD]
    assert proxy_process.free_ports(1) == [THIRD + 2]

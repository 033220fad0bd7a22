"""The housekeeping thread and the event loop: neither ends the other's work, and a new CA is handed over once."""

import threading
import time

import pytest
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.test import taddons

from openclaw_egress import certificates
from openclaw_egress.app.service import Service
from openclaw_egress.proxy.served_ca import ServedCA
from openclaw_egress.settings import Settings
from tests.support.proxy_process import free_ports, policy_for

CLASSES = ("gateway", "browser", "sandbox", "build")


def test_a_failure_of_one_task_does_not_end_the_housekeeping(tmp_path):
    *ports, health_port = free_ports(6)
    file = tmp_path / "policy.yml"
    file.write_text(policy_for(dict(zip(CLASSES, ports, strict=False)), [443]))
    service = Service(Settings.load(state_dir=tmp_path, policy_file=file, logs_endpoint="", health_port=health_port))

    def fail() -> None:
        raise RuntimeError("the event loop is closed")

    service.apply_listeners = fail
    service.start()
    try:
        for gateway in (ports[4], ports[0]):
            changed = policy_for(dict(zip(CLASSES, [gateway, *ports[1:4]], strict=True)), [443])
            file.write_text(changed)
            end = time.monotonic() + 10
            while service.policy.classes["gateway"].listen != gateway and time.monotonic() < end:
                time.sleep(0.05)
            assert service.policy.classes["gateway"].listen == gateway
    finally:
        service.stop()


@pytest.mark.parametrize("serves_while_read", [False, True])
def test_a_reload_waits_until_the_new_ca_is_served(tmp_path, serves_while_read):
    directory, keys, runtime = tmp_path / "ca", tmp_path / "root", tmp_path / "runtime"
    runtime.mkdir()
    certificates.create(directory, keys, ["api.llm.example"])
    served = ServedCA(directory, runtime)
    with taddons.context(TlsConfig()):
        served.serve()
        certificates.create(directory, keys, ["api.llm.example"], force_issuing=True)
        expected = certificates.show(directory).issuing_sha256
        # A handshake can come at any moment, also while the files are read.
        assert served.look(lambda info: served.serve() if serves_while_read else None)
        loop = threading.Timer(0.2, served.serve)
        loop.start()
        served.settle()
        assert served.info.issuing_sha256 == expected
        loop.join()

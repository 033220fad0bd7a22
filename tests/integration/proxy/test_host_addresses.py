"""Tests that the running proxy reloads a changed file of host addresses, and refuses requests to these addresses."""

from tests.integration.proxy.raw import exchange, status_of
from tests.integration.proxy.test_reload import soon

# A public address that no request of these tests reaches, because the proxy refuses every request to it.
ADDRESS = "93.184.215.14"


def test_changed_addresses_apply_and_an_invalid_file_is_reported(lean):
    file = lean.directory / "host-addresses"
    file.write_text("10.0.0.1\n")
    lean.environment["EGRESS_HOST_ADDRESSES_FILE"] = str(file)
    lean.policy_file.write_text(
        lean.policy_file.read_text().replace("resolve: {", f"resolve: {{vps.example: {ADDRESS}, ")
    )

    def loaded() -> int:
        return len([row for row in lean.rows() if row.event_name == "openclaw.egress.policy"])

    with lean:
        assert soon(lambda: loaded() == 1)
        file.write_text(f"10.0.0.1\n{ADDRESS}\n")
        assert soon(lambda: loaded() == 2)
        refused = b"CONNECT vps.example:443 HTTP/1.1\r\nHost: vps.example:443\r\n\r\n"
        assert status_of(exchange(lean.ports["gateway"], refused)) == 403
        file.write_text("nonsense\n")
        assert soon(lambda: lean.ask("/readyz")["problems"])
        assert "host-addresses:1" in lean.ask("/readyz")["problems"][0]
        assert status_of(exchange(lean.ports["gateway"], refused)) == 403
        file.unlink()
        assert soon(lambda: "cannot be read" in lean.ask("/readyz")["problems"][0])
        assert status_of(exchange(lean.ports["gateway"], refused)) == 403
        assert [row.rule for row in lean.denials()] == ["address-guard"] * 3

"""Tests of the two CAs: creation, renewal, the name constraints that OpenSSL enforces, and damaged directories."""

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from openclaw_egress import certificates

HOSTS = ("api.anthropic.com", "*.openai.azure.com")
NOW = datetime.datetime.now(datetime.UTC)


class Place:
    """The two directories of a deployment: ``ca`` contains the CA files, ``keys`` the key of the root CA."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.keys = directory / "ca", directory / "keys"
        self.issuing, self.root = self.ca / certificates.ISSUING_FILE, self.ca / certificates.ROOT_CERT_FILE
        self.root_key = self.keys / certificates.ROOT_KEY_FILE

    def create(self, *hosts: str, force: bool = False) -> bool:
        return certificates.create(self.ca, self.keys, hosts or HOSTS, force_issuing=force)

    def bytes(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (self.issuing, self.root, self.root_key) if file.is_file()}


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def handshake(place: Place, directory: Path, name: str) -> None:
    """Perform a TLS handshake in memory. The client trusts only the root CA; the server has a certificate for `name`.

    Raises:
        ssl.SSLCertVerificationError: OpenSSL rejects the certificate that the issuing CA signed.
    """
    directory.mkdir(exist_ok=True)
    (server_file := directory / "leaf.pem").write_bytes(leaf(place, name))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_file)
    client = ssl.create_default_context(cafile=str(place.root))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for turn in range(8):
        try:
            ends[turn % 2].do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ends[0].version() == "TLSv1.3" and ends[0].getpeercert()


def leaf(place: Place, name: str) -> bytes:
    """Return a key, a certificate for a name, and its chain, as mitmproxy creates them."""
    pem = place.issuing.read_bytes()
    signer = serialization.load_pem_private_key(pem, password=None)
    issuer = x509.load_pem_x509_certificate(pem)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (
        private + certificate.public_bytes(serialization.Encoding.PEM) + issuer.public_bytes(serialization.Encoding.PEM)
    )


# ── creation and renewal ─────────────────────────────────────────────────────────────────────────────────────────


def test_ca_files_have_the_documented_modes(place):
    assert place.create() is True
    modes = {file: stat.S_IMODE(file.stat().st_mode) for file in (place.issuing, place.root, place.root_key)}
    assert modes == {place.issuing: 0o600, place.root: 0o644, place.root_key: 0o600}
    assert stat.S_IMODE(place.keys.stat().st_mode) == 0o700
    assert {file.name for file in place.ca.iterdir()} == {certificates.ISSUING_FILE, certificates.ROOT_CERT_FILE}
    assert b"PRIVATE KEY" not in place.root.read_bytes()


def test_second_call_changes_nothing_and_needs_no_root_key(place):
    place.create()
    before = place.bytes()
    place.root_key.rename(place.root_key.with_suffix(".away"))
    assert place.create() is False
    del before[certificates.ROOT_KEY_FILE]
    assert place.bytes() == before


@pytest.mark.parametrize("change", ["another host", "forced", "due"])
def test_new_issuing_ca_leaves_the_root_unchanged(place, monkeypatch, change):
    if change == "due":
        monkeypatch.setattr(certificates, "ISSUING_DAYS", certificates.RENEW_BEFORE_DAYS - 1)
    place.create()
    monkeypatch.undo()
    before = place.bytes()
    assert place.create(*(["api.mistral.ai"] if change == "another host" else []), force=change == "forced") is True
    after = place.bytes()
    assert after[certificates.ISSUING_FILE] != before.pop(certificates.ISSUING_FILE)
    assert {name: after[name] for name in before} == before
    assert place.create(*(["api.mistral.ai"] if change == "another host" else [])) is False


def test_ca_info_has_subjects_expiry_and_names(place):
    place.create()
    info = certificates.show(place.ca)
    assert info.names == ("api.anthropic.com", "openai.azure.com")
    assert info.issuing_expires - NOW > datetime.timedelta(days=certificates.ISSUING_DAYS - 1)
    assert info.root_expires - NOW > datetime.timedelta(days=certificates.ROOT_DAYS - 1)
    assert (
        info.root_sha256 == x509.load_pem_x509_certificate(place.root.read_bytes()).fingerprint(hashes.SHA256()).hex()
    )
    assert info.permits("api.anthropic.com") and info.permits("eu.openai.azure.com")
    assert not info.permits("anthropic.com") and not info.permits("evilopenai.azure.com")


# ── names that each CA may sign, as OpenSSL verifies them ────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["api.anthropic.com", "east.openai.azure.com"])
def test_clients_that_trust_the_root_accept_inspected_hosts(place, tmp_path, name):
    place.create()
    handshake(place, tmp_path / "tls", name)
    place.create(force=True)
    handshake(place, tmp_path / "tls", name)


@pytest.mark.parametrize("name", ["www.example.com", "anthropic.com", "api.anthropic.com.example.net"])
def test_clients_that_trust_the_root_refuse_every_other_name(place, tmp_path, name):
    place.create()
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
        handshake(place, tmp_path / "tls", name)


def test_issuing_ca_without_inspected_hosts_may_sign_no_certificate(place, tmp_path):
    certificates.create(place.ca, place.keys, [])
    assert certificates.show(place.ca).names == ()
    assert certificates.create(place.ca, place.keys, []) is False
    with pytest.raises(ssl.SSLCertVerificationError, match="excluded subtree"):
        handshake(place, tmp_path / "tls", "www.example.com")


# ── an operator's own root, and lost files ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["ec", "ed25519"])
def test_operators_own_root_can_sign_the_issuing_ca(place, tmp_path, kind):
    key = ec.generate_private_key(ec.SECP384R1()) if kind == "ec" else ed25519.Ed25519PrivateKey.generate()
    own_root(place, key, days=3650)
    before = place.bytes()
    assert place.create() is True and place.create() is False
    assert {name: place.bytes()[name] for name in before} == before
    assert "Example" in certificates.show(place.ca).root_subject
    handshake(place, tmp_path / "tls", "api.anthropic.com")


def test_an_issuing_ca_does_not_outlive_its_root(place):
    own_root(place, ec.generate_private_key(ec.SECP256R1()), days=10)
    place.create()
    info = certificates.show(place.ca)
    assert info.issuing_expires == info.root_expires
    assert place.create() is False


def test_expired_root_is_reported(place):
    own_root(place, ec.generate_private_key(ec.SECP256R1()), days=-1)
    assert "expired on" in refused(place)


@pytest.mark.wording
def test_damaged_issuing_ca_is_replaced(place):
    place.create()
    root = place.root.read_bytes()
    for damage in (b"", b"not a certificate", place.root_key.read_bytes() + place.issuing.read_bytes(), root):
        place.issuing.write_bytes(damage)
        with pytest.raises(certificates.CAError, match=r"mitmproxy-ca\.pem.*Run `egress ca create`"):
            certificates.show(place.ca)
        assert place.create() is True
        assert certificates.show(place.ca).names and place.root.read_bytes() == root


def test_issuing_ca_of_another_root_is_replaced(place, tmp_path):
    place.create()
    other = Place(tmp_path / "other")
    other.create()
    place.issuing.write_bytes(other.issuing.read_bytes())
    with pytest.raises(certificates.CAError, match="was not issued by"):
        certificates.show(place.ca)
    assert place.create() is True
    certificates.show(place.ca)


def test_root_with_the_issuers_name_but_another_key(place):
    """Expect an error if the root CA has the name of the issuer, but another key."""
    key = ec.generate_private_key(ec.SECP256R1())
    own_root(place, key, days=3650)
    place.create()
    place.root_key.unlink()
    own_root(place, ec.generate_private_key(ec.SECP256R1()), days=3650)
    with pytest.raises(certificates.CAError, match="was not issued by"):
        certificates.show(place.ca)


def test_lost_root_certificate_is_restored_unchanged(place):
    place.create()
    before = place.bytes()
    place.root.unlink()
    assert place.create() is True
    assert place.bytes()[certificates.ROOT_CERT_FILE] == before[certificates.ROOT_CERT_FILE]


def test_existing_key_is_never_overwritten(place):
    place.create()
    key = place.root_key.read_bytes() + b"the operator's own note\n"
    place.root_key.write_bytes(key)
    place.root.unlink()
    place.issuing.unlink()
    assert place.create() is True
    assert place.root_key.read_bytes() == key
    certificates.show(place.ca)


def test_crash_between_key_and_certificate_is_repaired(place, monkeypatch):
    written = certificates._write

    def only_keys(file: Path, content: bytes, mode: int) -> None:
        if file.name != certificates.ROOT_KEY_FILE:
            raise KeyboardInterrupt
        written(file, content, mode)

    monkeypatch.setattr(certificates, "_write", only_keys)
    with pytest.raises(KeyboardInterrupt):
        place.create()
    monkeypatch.undo()
    assert place.create() is True
    certificates.show(place.ca)


@pytest.mark.wording
@pytest.mark.parametrize(
    ("lost", "content", "said"),
    [
        ("root_key", None, "root-key.pem does not exist. Restore the file"),
        ("root_key", b"nonsense", "root-key.pem does not contain a readable private key"),
        ("root", b"nonsense", "mitmproxy-ca-cert.pem does not contain a readable certificate"),
    ],
)
def test_missing_files_that_only_the_operator_can_restore_are_reported(place, lost, content, said):
    place.create()
    file: Path = getattr(place, lost)
    file.unlink() if content is None else file.write_bytes(content)
    before = place.bytes()
    message = refused(place, force=True)
    assert said in message and "every client must then trust the new root" in message
    assert place.bytes() == before


def test_key_of_another_root_is_refused(place, tmp_path):
    place.create()
    other = Place(tmp_path / "other")
    other.create()
    place.root_key.write_bytes(other.root_key.read_bytes())
    assert "root-key.pem is not the key of" in refused(place, force=True)


@pytest.mark.parametrize("name", [certificates.ISSUING_FILE, certificates.ROOT_CERT_FILE])
def test_file_that_docker_created_as_a_directory_is_reported(place, name):
    (place.ca / name).mkdir(parents=True)
    assert "is a directory" in refused(place)
    assert not place.root_key.exists()


def test_ca_directory_that_cannot_be_created_is_reported(place):
    place.ca.parent.joinpath("keys").write_text("a file")
    assert "keys: " in refused(place)


@pytest.mark.wording
def test_missing_ca_directory_is_reported(place):
    with pytest.raises(certificates.CAError, match=r"mitmproxy-ca-cert\.pem does not exist\. Run `egress ca create`"):
        certificates.show(place.ca)


def refused(place: Place, *, force: bool = False) -> str:
    with pytest.raises(certificates.CAError) as caught:
        place.create(force=force)
    return str(caught.value)


def own_root(place: Place, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, days: int) -> None:
    """Create a root CA, as an operator would create it with other tools."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=30))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
            critical=True,
        )
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    for directory in (place.ca, place.keys):
        directory.mkdir(exist_ok=True)
    place.root.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    place.root_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

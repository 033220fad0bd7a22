"""The certificate authorities: a long-lived root that clients trust, and the issuing CA that the proxy holds.

The issuing CA lives 90 days and is name-constrained (RFC 5280, section 4.2.1.10) to the hosts that are inspected, so
that whoever steals the proxy's key can imitate those hosts and no other. Clients trust the root alone: a new issuing
CA, or a newly inspected host, restarts nobody.

Files in the CA directory:

=========================  =====  ==============================================================================
``mitmproxy-ca.pem``       0600   issuing key, issuing certificate, root certificate; mitmproxy reads this name
``mitmproxy-ca-cert.pem``  0644   the root certificate, for clients
=========================  =====  ==============================================================================

The root's key (``root-key.pem``, 0600) is kept in a directory of its own, which no container needs to see.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

ROOT_DAYS = 3650
ISSUING_DAYS = 90
RENEW_BEFORE_DAYS = 30
ISSUING_FILE = "mitmproxy-ca.pem"
ROOT_CERT_FILE = "mitmproxy-ca-cert.pem"
ROOT_KEY_FILE = "root-key.pem"


class CAError(Exception):
    """The CA cannot be read, made or used; the text says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class CAInfo:
    """What ``egress ca show`` and the checks say of the CA in a directory. Times are in UTC."""

    directory: Path
    root_subject: str
    root_sha256: str
    root_expires: datetime.datetime
    issuing_expires: datetime.datetime
    names: tuple[str, ...]

    def permits(self, host: str) -> bool:
        """Whether the issuing CA may sign for ``host``: a name constraint covers a name and all below it."""
        return any(host == name or host.endswith("." + name) for name in self.names)


def constraint_names(inspect: Sequence[str]) -> tuple[str, ...]:
    """The DNS subtrees for the hosts that are inspected: ``*.x.example`` becomes ``x.example``."""
    return tuple(sorted({host.removeprefix("*.") for host in inspect}))


def create(directory: Path, root_key_dir: Path, inspect: Sequence[str], *, force_issuing: bool = False) -> bool:
    """Make what is missing, due or no longer fitting: the root once, the issuing CA when it must be new.

    Returns whether anything was written.

    Raises:
        CAError: a directory stands where a file belongs, the root's key is missing, or the files cannot be used.
    """
    for name in (ISSUING_FILE, ROOT_CERT_FILE):
        if (directory / name).is_dir():
            raise CAError(
                f"{directory / name} is a directory: a container was started with this bind mount before the file "
                "existed. Stop that container, remove the empty directory and create the CA again."
            )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        root_key_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        changed = _ensure_root(directory / ROOT_CERT_FILE, root_key_dir / ROOT_KEY_FILE)
        root = _read_certificate(directory / ROOT_CERT_FILE)
        if not (changed or force_issuing) and _issuing_is_fit(directory, root, constraint_names(inspect)):
            return False
        root_key = _read_key(root_key_dir / ROOT_KEY_FILE)
        if _spki(root_key) != _spki_of(root):
            raise CAError(
                f"{root_key_dir / ROOT_KEY_FILE} is not the key of {directory / ROOT_CERT_FILE}. "
                "Put the right key there, or move both away to begin with a new root (its clients must trust it anew)."
            )
        _write_issuing(directory / ISSUING_FILE, root, root_key, constraint_names(inspect))
    except OSError as error:
        raise CAError(
            f"{error.filename or directory}: {error.strerror}. Give this user access, or name another directory."
        ) from None
    return True


def show(directory: Path) -> CAInfo:
    """Read the CA of a directory.

    Raises:
        CAError: a file is missing, unreadable or not what it should be.
    """
    root = _read_certificate(directory / ROOT_CERT_FILE)
    issuing = _read_certificate(directory / ISSUING_FILE)
    _read_key(directory / ISSUING_FILE)
    if issuing.issuer != root.subject:
        raise CAError(
            f"{directory / ISSUING_FILE} was not issued by {directory / ROOT_CERT_FILE}. Run `egress ca create`."
        )
    return CAInfo(
        directory=directory,
        root_subject=root.subject.rfc4514_string(),
        root_sha256=root.fingerprint(hashes.SHA256()).hex(),
        root_expires=root.not_valid_after_utc,
        issuing_expires=issuing.not_valid_after_utc,
        names=_constraints_of(issuing),
    )


def _ensure_root(cert_file: Path, key_file: Path) -> bool:
    if cert_file.exists():
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "openclaw.egress"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"OpenClaw egress root {now:%Y-%m-%d} {os.urandom(3).hex()}"),
        ]
    )
    certificate = _builder(name, name, key.public_key(), now, ROOT_DAYS, path_length=1).sign(key, hashes.SHA256())
    _write(key_file, _key_pem(key), 0o600)
    _write(cert_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def _issuing_is_fit(directory: Path, root: x509.Certificate, names: tuple[str, ...]) -> bool:
    file = directory / ISSUING_FILE
    if not file.exists():
        return False
    issuing = _read_certificate(file)
    _read_key(file)
    left = issuing.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return (
        issuing.issuer == root.subject
        and left > datetime.timedelta(days=RENEW_BEFORE_DAYS)
        and _constraints_of(issuing) == names
    )


def _write_issuing(
    file: Path, root: x509.Certificate, root_key: CertificateIssuerPrivateKeyTypes, names: tuple[str, ...]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "openclaw.egress"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"OpenClaw egress issuing {now:%Y-%m-%d} {os.urandom(3).hex()}"),
        ]
    )
    builder = _builder(subject, root.subject, key.public_key(), now, ISSUING_DAYS, path_length=0)
    builder = builder.add_extension(
        x509.NameConstraints(
            permitted_subtrees=[x509.DNSName(name) for name in names] or None,
            # An issuing CA for names must not be able to speak for addresses.
            excluded_subtrees=[
                x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
                x509.IPAddress(ipaddress.ip_network("::/0")),
            ],
        ),
        critical=True,
    )
    root_ski = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_ski), critical=False
    )
    certificate = builder.sign(root_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    _write(file, _key_pem(key) + certificate.public_bytes(pem) + root.public_bytes(pem), 0o600)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # Two hosts' clocks differ: what was made a moment ago must be valid for both.
        .not_valid_before(now - datetime.timedelta(hours=48))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _constraints_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(sorted(str(tree.value) for tree in constraints.permitted_subtrees or []))


def _read_certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(file))
    except ValueError as error:
        raise CAError(f"{file} holds no usable certificate ({error}). Restore it, or run `egress ca create`.") from None


def _read_key(file: Path) -> CertificateIssuerPrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError) as error:
        raise CAError(f"{file} holds no usable private key ({error}). Restore it, or run `egress ca create`.") from None
    return key  # type: ignore[return-value]  # whatever signs: EC as made here, RSA or Ed25519 of the operator's own


def _read(file: Path) -> bytes:
    if file.is_dir():
        raise CAError(f"{file} is a directory, not a file. Remove it and run `egress ca create`.")
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise CAError(f"{file} does not exist. Run `egress ca create`.") from None
    except OSError as error:
        raise CAError(f"{file} cannot be read: {error.strerror}. Let the proxy's user read it.") from None


def _spki(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _spki_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(file: Path, content: bytes, mode: int) -> None:
    """Atomically, never readable by others in between, and on the disk before it has its name."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise

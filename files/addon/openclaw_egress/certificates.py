"""The certificate authorities: a long-lived root that clients trust, and the issuing CA that the proxy holds.

The issuing CA is valid for 90 days and name-constrained (RFC 5280, section 4.2.1.10) to the inspected hosts: a stolen
proxy key can impersonate those hosts and no others. Clients trust only the root, so a new issuing CA or a newly
inspected host requires no change on any client.

Files in the CA directory:

=========================  =====  ==============================================================================
``mitmproxy-ca.pem``       0600   issuing key, issuing certificate, root certificate; mitmproxy needs this name
``mitmproxy-ca-cert.pem``  0644   the root certificate, for clients
=========================  =====  ==============================================================================

The root's key (``root-key.pem``, 0600) is in a separate directory, to which no container needs access.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

from openclaw_egress.errors import EgressError

ROOT_DAYS = 3650
ISSUING_DAYS = 90
RENEW_BEFORE_DAYS = 30
"""Renew the issuing CA this many days before it expires, which is after two thirds of its lifetime."""

ISSUING_OVERDUE_DAYS = 28
"""Warn if fewer days are left, because the daily job should have renewed the issuing CA two days earlier."""

ISSUING_FAILS_DAYS = 7
ROOT_WARNS_DAYS = 365
ROOT_FAILS_DAYS = 30
"""The root's limits (``ROOT_*``) exceed those of the issuing CA: a new root must be installed on every client."""

ISSUING_FILE = "mitmproxy-ca.pem"
ROOT_CERT_FILE = "mitmproxy-ca-cert.pem"
ROOT_KEY_FILE = "root-key.pem"

type Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """Return the current time of this machine, in UTC."""
    return datetime.datetime.now(datetime.UTC)


_MAKE_IT = "Run `egress ca create` (with Ansible: site.yml)."
_NEW_ROOT = (
    f"Restore the file. Or move {ROOT_CERT_FILE}, {ISSUING_FILE} and {ROOT_KEY_FILE} away and run `egress ca create`; "
    "every client must then trust the new root."
)


class CAError(EgressError):
    """The CA cannot be read, created or used. The message says what happened, where, and what to do."""


@dataclass(frozen=True, slots=True)
class CAInfo:
    """Information about the CA in a directory, for ``egress ca show`` and the checks. Times are in UTC."""

    directory: Path
    root_subject: str
    root_sha256: str
    root_expires: datetime.datetime
    issuing_begins: datetime.datetime
    issuing_expires: datetime.datetime
    issuing_sha256: str
    names: tuple[str, ...]

    def permits(self, host: str) -> bool:
        """Return whether the issuing CA may sign for ``host``. A name constraint covers a name and its subdomains."""
        return any(host == name or host.endswith("." + name) for name in self.names)

    def renewal_due(self, now: datetime.datetime) -> bool:
        """Return whether the issuing CA must be renewed.

        If it expires together with the root, return False: a new issuing CA would not last longer.
        """
        return self.issuing_expires < self.root_expires and _days(self.issuing_expires, now) <= RENEW_BEFORE_DAYS

    def problems(self, now: datetime.datetime) -> list[str]:
        """Return a problem if a certificate has expired or expires soon. The health and readiness checks then fail."""
        found = []
        if (days := _days(self.root_expires, now)) < ROOT_FAILS_DAYS:
            found.append(f"the root CA {_ends(days, self.root_expires)}: {_RENEW_ROOT}")
        elif (days := _days(self.issuing_expires, now)) < ISSUING_FAILS_DAYS:
            found.append(f"the issuing CA {_ends(days, self.issuing_expires)}: {_RENEW_ISSUING}")
        return found

    def warnings(self, now: datetime.datetime) -> list[str]:
        """Return warnings about certificates that an operator must renew before they become a problem."""
        found = []
        if ROOT_FAILS_DAYS <= (days := _days(self.root_expires, now)) < ROOT_WARNS_DAYS:
            found.append(f"the root CA {_ends(days, self.root_expires)}: {_RENEW_ROOT}")
        if ISSUING_FAILS_DAYS <= (days := _days(self.issuing_expires, now)) < ISSUING_OVERDUE_DAYS:
            found.append(f"the issuing CA {_ends(days, self.issuing_expires)}: {_RENEW_ISSUING}")
        return found


@dataclass(frozen=True, slots=True)
class Authority:
    """A snapshot of the CA in a directory, with the key and the certificates that the proxy needs for signing."""

    info: CAInfo
    key: CertificateIssuerPrivateKeyTypes
    issuing: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """All certificates in the issuing CA's file, the issuing certificate first."""


_RENEW_ISSUING = (
    "its renewal is overdue; run `egress ca renew` where the root's key is (with Ansible: site.yml), and find out "
    "why the scheduled renewal did not run"
)
_RENEW_ROOT = (
    f"replace it: move {ROOT_CERT_FILE}, {ISSUING_FILE} and {ROOT_KEY_FILE} away, run `egress ca create`, and make "
    "every client trust the new root"
)


def _days(until: datetime.datetime, now: datetime.datetime) -> float:
    return (until - now).total_seconds() / 86400


def _ends(days: float, until: datetime.datetime) -> str:
    return f"expires in {days:.0f} days, on {until:%Y-%m-%d}" if days > 0 else f"expired on {until:%Y-%m-%d}"


def constraint_names(inspect: Sequence[str]) -> tuple[str, ...]:
    """Return the DNS subtrees of the inspected hosts: ``*.x.example`` becomes ``x.example``."""
    return tuple(sorted({host.removeprefix("*.") for host in inspect}))


def create(
    directory: Path,
    root_key_dir: Path,
    inspect: Sequence[str],
    *,
    force_issuing: bool = False,
    clock: Clock = utc_now,
) -> bool:
    """Create missing files and replace those that are out of date or due for renewal. Return whether any was written.

    The root is created once. The issuing CA is replaced when it is due, when the inspected hosts changed, or when
    ``force_issuing`` is set.

    Raises:
        CAError: a directory exists in place of a file, the root's key is missing, or the files cannot be used.
    """
    for name in (ISSUING_FILE, ROOT_CERT_FILE):
        if (directory / name).is_dir():
            raise CAError(
                f"{directory / name} is a directory: a container was started with this bind mount before the file "
                "existed. Stop that container, remove the empty directory and create the CA again."
            )
    now = clock()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        root_key_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        changed = _ensure_root(directory, root_key_dir / ROOT_KEY_FILE, now)
        root = _read_certificate(directory / ROOT_CERT_FILE, _NEW_ROOT)
        if not (changed or force_issuing) and _issuing_is_fit(directory, root, constraint_names(inspect), now):
            return False
        if root.not_valid_after_utc <= now:
            raise CAError(f"{directory / ROOT_CERT_FILE} expired on {root.not_valid_after_utc:%Y-%m-%d}. {_NEW_ROOT}")
        root_key = _read_key(root_key_dir / ROOT_KEY_FILE, _NEW_ROOT)
        if _spki(root_key) != _spki_of(root):
            raise CAError(f"{root_key_dir / ROOT_KEY_FILE} is not the key of {directory / ROOT_CERT_FILE}. {_NEW_ROOT}")
        _write_issuing(directory / ISSUING_FILE, root, root_key, constraint_names(inspect), now)
    except OSError as error:
        raise CAError(
            f"{error.filename or directory}: {error.strerror}. Give this user access, or use another directory."
        ) from None
    return True


def show(directory: Path) -> CAInfo:
    """Return information about the CA in a directory.

    Raises:
        CAError: a file is missing, unreadable or invalid.
    """
    return load(directory).info


def load(directory: Path) -> Authority:
    """Return the CA in a directory, with its key. Read each file only once, so that key and certificates match.

    Raises:
        CAError: a file is missing, unreadable or invalid.
    """
    root = _read_certificate(directory / ROOT_CERT_FILE, _NEW_ROOT if _exists(directory / ROOT_CERT_FILE) else _MAKE_IT)
    key, chain = _read_issuing(directory, root)
    issuing = chain[0]
    info = CAInfo(
        directory=directory,
        root_subject=root.subject.rfc4514_string(),
        root_sha256=root.fingerprint(hashes.SHA256()).hex(),
        root_expires=root.not_valid_after_utc,
        issuing_begins=issuing.not_valid_before_utc,
        issuing_expires=issuing.not_valid_after_utc,
        issuing_sha256=issuing.fingerprint(hashes.SHA256()).hex(),
        names=_constraints_of(issuing),
    )
    return Authority(info, key, issuing, chain)


def _ensure_root(directory: Path, key_file: Path, now: datetime.datetime) -> bool:
    """Create the root CA if it is missing. Return whether the root certificate was written.

    If the root key exists and the issuing CA's file contains its certificate, restore that certificate, because clients
    already trust it. Never overwrite an existing key.
    """
    cert_file = directory / ROOT_CERT_FILE
    if _exists(cert_file):
        return False
    key = _read_key(key_file, _NEW_ROOT) if _exists(key_file) else None
    certificate = _last_certificate(directory / ISSUING_FILE)
    if key is None or certificate is None or _spki(key) != _spki_of(certificate):
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = _name("root", now)
        until = now + datetime.timedelta(days=ROOT_DAYS)
        certificate = _builder(name, name, key, now, until, path_length=1).sign(key, _hash_for(key))
        if not _exists(key_file):
            _write(key_file, _key_pem(key), 0o600)
    _write(cert_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def _last_certificate(file: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())[-1]
    except (OSError, ValueError):
        return None


def _read_issuing(
    directory: Path, root: x509.Certificate
) -> tuple[CertificateIssuerPrivateKeyTypes, tuple[x509.Certificate, ...]]:
    """Return the issuing key and the certificates in its file. Check that the root signed the first certificate."""
    file = directory / ISSUING_FILE
    data = _read(file, _MAKE_IT)
    key = _key_in(data, file, _MAKE_IT)
    chain = _certificates_in(data, file, _MAKE_IT)
    if _spki(key) != _spki_of(chain[0]):
        raise CAError(f"{file}: its key does not match its certificate. {_MAKE_IT}")
    try:
        chain[0].verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise CAError(f"{file} was not issued by {directory / ROOT_CERT_FILE}. {_MAKE_IT}") from None
    return key, chain


def _issuing_is_fit(directory: Path, root: x509.Certificate, names: tuple[str, ...], now: datetime.datetime) -> bool:
    try:
        _, (issuing, *_) = _read_issuing(directory, root)
    except CAError:
        return False  # `create` then replaces the unusable CA.
    due = now + datetime.timedelta(days=RENEW_BEFORE_DAYS)
    lasts = issuing.not_valid_after_utc > due or issuing.not_valid_after_utc >= root.not_valid_after_utc
    return lasts and _constraints_of(issuing) == names


def _write_issuing(
    file: Path,
    root: x509.Certificate,
    root_key: CertificateIssuerPrivateKeyTypes,
    names: tuple[str, ...],
    now: datetime.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + datetime.timedelta(days=ISSUING_DAYS), root.not_valid_after_utc)
    builder = _builder(_name("issuing", now), root.subject, key, now, until, path_length=0)
    builder = builder.add_extension(
        x509.NameConstraints(
            permitted_subtrees=[x509.DNSName(name) for name in names] or None,
            # The issuing CA signs for DNS names, never for IP addresses. If no host is inspected, exclude every DNS
            # name as well: without permitted subtrees, every name would be permitted.
            excluded_subtrees=[
                x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
                x509.IPAddress(ipaddress.ip_network("::/0")),
                *([] if names else [x509.DNSName("")]),
            ],
        ),
        critical=True,
    )
    root_ski = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_ski), critical=False
    )
    certificate = builder.sign(root_key, _hash_for(root_key))
    pem = serialization.Encoding.PEM
    _write(file, _key_pem(key) + certificate.public_bytes(pem) + root.public_bytes(pem), 0o600)


def _name(what: str, now: datetime.datetime) -> x509.Name:
    """Return a unique subject name for a certificate, because clients look up an issuer by its name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "openclaw.egress"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"OpenClaw egress {what} {now:%Y-%m-%d} {os.urandom(3).hex()}"),
        ]
    )


def _hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    """Return the hash to sign with, or None for Ed25519 and Ed448 (an operator's own root), which include a hash."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificateIssuerPrivateKeyTypes,
    now: datetime.datetime,
    until: datetime.datetime,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Backdate the certificate, so that hosts whose clocks are slow accept it immediately.
        .not_valid_before(now - datetime.timedelta(hours=48))
        .not_valid_after(until)
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
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _constraints_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(sorted(str(tree.value) for tree in constraints.permitted_subtrees or []))


def _exists(file: Path) -> bool:
    """Return whether the path exists, even as a dangling symbolic link."""
    return os.path.lexists(file)


def _read_certificate(file: Path, remedy: str) -> x509.Certificate:
    return _certificates_in(_read(file, remedy), file, remedy)[0]


def _certificates_in(data: bytes, file: Path, remedy: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError:
        raise CAError(f"{file} does not contain a readable certificate. {remedy}") from None


def _read_key(file: Path, remedy: str) -> CertificateIssuerPrivateKeyTypes:
    return _key_in(_read(file, remedy), file, remedy)


def _key_in(data: bytes, file: Path, remedy: str) -> CertificateIssuerPrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CAError(
            f"{file} does not contain a readable private key (it must not have a passphrase). {remedy}"
        ) from None
    return key  # type: ignore[return-value]  # any key that signs: EC (made here), RSA or Ed25519 (an operator's own root)


def _read(file: Path, remedy: str) -> bytes:
    if file.is_dir():
        raise CAError(f"{file} is a directory, not a file. Remove it and run `egress ca create`.")
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise CAError(f"{file} does not exist. {remedy}") from None
    except OSError as error:
        raise CAError(f"{file} cannot be read: {error.strerror}. Make it readable for the proxy's user.") from None


def _spki(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _spki_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(file: Path, content: bytes, mode: int) -> None:
    """Replace a file atomically and fsync it. No other user can read the temporary file.

    The new file is never more permissive than the previous one. If this process runs as root, the new file gets the
    owner of the previous file, or of the directory if there was none, so that the proxy's user can read it.
    """
    before = _stat(file)
    owner = before or file.parent.stat()
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), (mode & before.st_mode or mode) if before else mode)
            if os.geteuid() == 0:
                # Ignore the failure in a container without CAP_CHOWN: there the caller of the command sets the owner.
                with contextlib.suppress(PermissionError):
                    os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None

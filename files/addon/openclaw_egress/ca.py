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

ROOT_DAYS = 3650
ISSUING_DAYS = 90
RENEW_BEFORE_DAYS = 30
"""An issuing CA is renewed at two thirds of its life."""

ISSUING_OVERDUE_DAYS = 28
"""The renewal runs daily: two days after it was due, an operator should look."""

ISSUING_FAILS_DAYS = 7
ROOT_WARNS_DAYS = 365
ROOT_FAILS_DAYS = 30
"""A new root must reach every client, which takes longer than a new issuing CA."""

ISSUING_FILE = "mitmproxy-ca.pem"
ROOT_CERT_FILE = "mitmproxy-ca-cert.pem"
ROOT_KEY_FILE = "root-key.pem"

type Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """Return the time of this machine, in UTC."""
    return datetime.datetime.now(datetime.UTC)


_MAKE_IT = "Run `egress ca create` (by Ansible: site.yml)."
_NEW_ROOT = (
    f"Restore it; or move {ROOT_CERT_FILE}, {ISSUING_FILE} and {ROOT_KEY_FILE} away and run `egress ca create`: that "
    "makes a new root, which clients must trust anew."
)


class CAError(Exception):
    """The CA cannot be read, made or used; the text says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class CAInfo:
    """What ``egress ca show`` and the checks say of the CA in a directory. Times are in UTC."""

    directory: Path
    root_subject: str
    root_sha256: str
    root_expires: datetime.datetime
    issuing_begins: datetime.datetime
    issuing_expires: datetime.datetime
    issuing_sha256: str
    names: tuple[str, ...]

    def permits(self, host: str) -> bool:
        """Whether the issuing CA may sign for ``host``: a name constraint covers a name and all below it."""
        return any(host == name or host.endswith("." + name) for name in self.names)

    def renewal_due(self, now: datetime.datetime) -> bool:
        """Return whether a new issuing CA would last longer, and is due."""
        return self.issuing_expires < self.root_expires and _days(self.issuing_expires, now) <= RENEW_BEFORE_DAYS

    def problems(self, now: datetime.datetime) -> list[str]:
        """Return what fails the readiness check: a certificate that has expired or is about to."""
        found = []
        if (days := _days(self.root_expires, now)) < ROOT_FAILS_DAYS:
            found.append(f"the root CA {_ends(days, self.root_expires)}: {_RENEW_ROOT}")
        elif (days := _days(self.issuing_expires, now)) < ISSUING_FAILS_DAYS:
            found.append(f"the issuing CA {_ends(days, self.issuing_expires)}: {_RENEW_ISSUING}")
        return found

    def warnings(self, now: datetime.datetime) -> list[str]:
        """Return what an operator should look at, before it becomes a problem."""
        found = []
        if ROOT_FAILS_DAYS <= (days := _days(self.root_expires, now)) < ROOT_WARNS_DAYS:
            found.append(f"the root CA {_ends(days, self.root_expires)}: {_RENEW_ROOT}")
        if ISSUING_FAILS_DAYS <= (days := _days(self.issuing_expires, now)) < ISSUING_OVERDUE_DAYS:
            found.append(f"the issuing CA {_ends(days, self.issuing_expires)}: {_RENEW_ISSUING}")
        return found


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA of a directory, read at one moment: what a proxy needs to sign."""

    info: CAInfo
    key: CertificateIssuerPrivateKeyTypes
    issuing: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """Every certificate of the issuing CA's file, the issuing one first."""


_RENEW_ISSUING = (
    "its renewal is overdue; run `egress ca renew` where the root's key is (by Ansible: site.yml) and look at why "
    "the renewal does not run"
)
_RENEW_ROOT = (
    f"make a new root and let every client trust it (move {ROOT_CERT_FILE}, {ISSUING_FILE} and {ROOT_KEY_FILE} away)"
)


def _days(until: datetime.datetime, now: datetime.datetime) -> float:
    return (until - now).total_seconds() / 86400


def _ends(days: float, until: datetime.datetime) -> str:
    return f"expires in {days:.0f} days, on {until:%Y-%m-%d}" if days > 0 else f"expired on {until:%Y-%m-%d}"


def constraint_names(inspect: Sequence[str]) -> tuple[str, ...]:
    """The DNS subtrees for the hosts that are inspected: ``*.x.example`` becomes ``x.example``."""
    return tuple(sorted({host.removeprefix("*.") for host in inspect}))


def create(
    directory: Path,
    root_key_dir: Path,
    inspect: Sequence[str],
    *,
    force_issuing: bool = False,
    clock: Clock = utc_now,
) -> bool:
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
            f"{error.filename or directory}: {error.strerror}. Give this user access, or name another directory."
        ) from None
    return True


def show(directory: Path) -> CAInfo:
    """Read the CA of a directory.

    Raises:
        CAError: a file is missing, unreadable or not what it should be.
    """
    return load(directory).info


def load(directory: Path) -> Authority:
    """Read the CA of a directory with its key. Each file is read once, so that the parts belong together.

    Raises:
        CAError: a file is missing, unreadable or not what it should be.
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
    """Make the root where there is none; whether the clients' certificate was written.

    A root whose certificate alone is gone is put back from the issuing CA's file: clients trust it already. A key
    that is there is never overwritten.
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
    """Return the issuing key and its file's certificates, after a check that the root signed the first of them."""
    file = directory / ISSUING_FILE
    data = _read(file, _MAKE_IT)
    key = _key_in(data, file, _MAKE_IT)
    chain = _certificates_in(data, file, _MAKE_IT)
    if _spki(key) != _spki_of(chain[0]):
        raise CAError(f"{file}: its key and its certificate do not belong together. {_MAKE_IT}")
    try:
        chain[0].verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise CAError(f"{file} was not issued by {directory / ROOT_CERT_FILE}. {_MAKE_IT}") from None
    return key, chain


def _issuing_is_fit(directory: Path, root: x509.Certificate, names: tuple[str, ...], now: datetime.datetime) -> bool:
    try:
        _, (issuing, *_) = _read_issuing(directory, root)
    except CAError:
        return False  # it is made from the root at any time
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
            # An issuing CA for names must not be able to speak for addresses; where nothing is inspected, for no name
            # either: without permitted subtrees it could speak for all.
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
    """Never the same twice: clients look an issuer up by its name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "openclaw.egress"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"OpenClaw egress {what} {now:%Y-%m-%d} {os.urandom(3).hex()}"),
        ]
    )


def _hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    """Ed25519 and Ed448, which an operator's own root may use, bring their hash."""
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
        # Two hosts' clocks differ: what was made a moment ago must be valid for both.
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
    """Whether something stands there, if only a link that leads nowhere."""
    return os.path.lexists(file)


def _read_certificate(file: Path, remedy: str) -> x509.Certificate:
    return _certificates_in(_read(file, remedy), file, remedy)[0]


def _certificates_in(data: bytes, file: Path, remedy: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError:
        raise CAError(f"{file} holds no certificate that can be read. {remedy}") from None


def _read_key(file: Path, remedy: str) -> CertificateIssuerPrivateKeyTypes:
    return _key_in(_read(file, remedy), file, remedy)


def _key_in(data: bytes, file: Path, remedy: str) -> CertificateIssuerPrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CAError(
            f"{file} holds no private key that can be read (a passphrase it may not have). {remedy}"
        ) from None
    return key  # type: ignore[return-value]  # whatever signs: EC as made here, RSA or Ed25519 of the operator's own


def _read(file: Path, remedy: str) -> bytes:
    if file.is_dir():
        raise CAError(f"{file} is a directory, not a file. Remove it and run `egress ca create`.")
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise CAError(f"{file} does not exist. {remedy}") from None
    except OSError as error:
        raise CAError(f"{file} cannot be read: {error.strerror}. Let the proxy's user read it.") from None


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
    """Replace a file atomically, fsynced; nobody else can read it in between.

    The new file keeps the owner of the one it replaces, and is not more open. Root gives a first file the directory's
    owner: a running proxy reads a renewed CA at once, as a user of its own.
    """
    before = _stat(file)
    owner = before or file.parent.stat()
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), (mode & before.st_mode or mode) if before else mode)
            if os.geteuid() == 0:
                # A container without the capability CHOWN leaves this to its caller.
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

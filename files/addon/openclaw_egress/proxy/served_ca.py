"""The CA that the running proxy serves: read from files, kept in memory, replaced without a restart.

mitmproxy keeps the CA in ``TlsConfig.certstore``, but rereads the chain file while it serves. The proxy therefore
installs a certificate store that is built in memory, so that a damaged CA file has no effect. Each CA has its own chain
file (certificates without the key), because mitmproxy caches TLS contexts by the name of that file.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from mitmproxy import certs, ctx, tls

from openclaw_egress import certificates

LEAF_DAYS = 30
RENEW_LEAF_BEFORE_DAYS = 10
BACKDATED_HOURS = 48
"""The validity of a leaf certificate begins this many hours in the past, because the clocks of clients may be wrong."""

SETTLE_SECONDS = 5.0
"""Maximum time, in seconds, that a reload waits for the event loop to serve the new CA."""


class LeafStore(certs.CertStore):
    """A certificate store that replaces mitmproxy's own.

    Its leaf certificates never outlive their CA, and it replaces them before they expire.
    """

    def __init__(
        self, authority: certificates.Authority, chain_file: Path, dhparams: Any, clock: certificates.Clock
    ) -> None:
        super().__init__(
            authority.key,  # type: ignore[arg-type]  # annotated as RSA, but any key that signs works
            certs.Cert(authority.issuing),
            chain_file,
            certs.dummy_crl(authority.key, authority.issuing),  # type: ignore[arg-type]
            dhparams,
        )
        self._clock = clock
        self._ca_ends = authority.issuing.not_valid_after_utc

    def get_cert(
        self,
        commonname: str | None,
        sans: Iterable[x509.GeneralName],
        organization: str | None = None,
        crl_url: str | None = None,
    ) -> certs.CertStoreEntry:
        """Return the leaf certificate for these names; create a new one if the cached one is about to expire."""
        names = x509.GeneralNames(sans)
        now = self._clock()
        cached = self.certs.get((commonname, names))
        if cached is not None and not self._is_due(cached.cert, now):
            return cached
        leaf = certs.dummy_cert(
            self.default_privatekey, self.default_ca.to_cryptography(), commonname, names, organization, crl_url
        ).to_cryptography()
        dated = x509.CertificateBuilder(
            leaf.issuer,
            leaf.subject,
            leaf.public_key(),
            leaf.serial_number,
            (now - datetime.timedelta(hours=BACKDATED_HOURS)).replace(tzinfo=None, microsecond=0),
            min(now + datetime.timedelta(days=LEAF_DAYS), self._ca_ends).replace(tzinfo=None, microsecond=0),
            list(leaf.extensions),
        ).sign(self.default_privatekey, hashes.SHA256())
        entry = certs.CertStoreEntry(
            certs.Cert(dated), self.default_privatekey, self.default_chain_file, self.default_chain_certs
        )
        self.certs[(commonname, names)] = entry
        self.expire(entry)
        return entry

    def _is_due(self, leaf: certs.Cert, now: datetime.datetime) -> bool:
        ends = leaf.to_cryptography().not_valid_after_utc
        return ends < self._ca_ends and ends - now < datetime.timedelta(days=RENEW_LEAF_BEFORE_DAYS)


class ServedCA:
    """The mitmproxy add-on that serves the CA, and changes to a new CA once its files are read and valid.

    The housekeeping thread calls :meth:`look`; the event loop calls :meth:`serve`.

    The constructor raises CAError if the files are invalid.
    """

    def __init__(self, directory: Path, runtime: Path, clock: certificates.Clock = certificates.utc_now) -> None:
        self.directory = directory
        self.problem: str | None = None
        """The reason why the CA in the current files is not served, with the remedy; None if it is served."""
        self._runtime = runtime
        self._clock = clock
        self._seen = self._signature()
        self._numbered = 0
        self._dhparams = certs.CertStore.load_dhparam(runtime / "mitmproxy-dhparam.pem")
        self._next: tuple[certificates.CAInfo, LeafStore] | None = None
        self._handing_over = threading.Lock()
        self._settled = threading.Event()
        self._info, self._store = self._read(lambda info: None)

    @property
    def info(self) -> certificates.CAInfo:
        """Return the CA that is served to clients now."""
        return self._info

    def look(self, accept: Callable[[certificates.CAInfo], None]) -> bool | None:
        """Read the CA's files if they have changed.

        Return True if the new CA is valid, False if it is invalid, and None if the files are unchanged. ``accept``
        raises CAError for a CA that must not be used.
        """
        seen = self._signature()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            found = self._read(accept)
        except (certificates.CAError, OSError, ValueError) as error:
            self.problem = (
                f"the previous CA (valid until {self._info.issuing_expires:%Y-%m-%d}) is still served, because the new "
                f"one cannot be used: {error}"
            )
            return False
        with self._handing_over:
            self._next = found
            self._settled.clear()
        self.problem = None
        return True

    def look_again(self) -> None:
        """Make the next :meth:`look` read the files even if they are unchanged."""
        self._seen = ()

    def settle(self) -> bool:
        """Wait until the event loop serves the CA that :meth:`look` has read. Return False after `SETTLE_SECONDS`."""
        return self._settled.wait(SETTLE_SECONDS)

    @property
    def newest(self) -> certificates.CAInfo:
        """Return the CA for the next handshake: the current one, or a new one that :meth:`serve` will install."""
        with self._handing_over:
            return self._info if self._next is None else self._next[0]

    def tls_start_client(self, data: tls.TlsData) -> None:
        """Install the newest CA before mitmproxy creates a certificate for this handshake."""
        self.serve()

    def serve(self) -> None:
        """Install the newest CA in mitmproxy's ``TlsConfig``; handshakes in progress finish with the previous one."""
        tlsconfig = ctx.master.addons.get("tlsconfig")  # type: ignore[no-untyped-call]
        with self._handing_over:
            if self._next is not None:
                (self._info, self._store), self._next = self._next, None
            tlsconfig.certstore = self._store
            self._settled.set()

    def _read(self, accept: Callable[[certificates.CAInfo], None]) -> tuple[certificates.CAInfo, LeafStore]:
        authority = certificates.load(self.directory)
        accept(authority.info)
        self._numbered += 1
        chain = self._runtime / f"chain-{self._numbered}.pem"
        chain.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in authority.chain))
        return authority.info, LeafStore(authority, chain, self._dhparams, self._clock)

    def _signature(self) -> tuple[object, ...]:
        files = (self.directory / certificates.ISSUING_FILE, self.directory / certificates.ROOT_CERT_FILE)
        return tuple(map(file_signature, files))


def file_signature(file: Path) -> tuple[int, ...] | None:
    """Return a value that changes if the file's content, owner or mode may have changed.

    Return None if the file is inaccessible.
    """
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)

"""Signatures of checkpoints with the instance's own Ed25519 key.

A checkpoint contains the number and the hash of the chain's newest line, so its signature covers every line up to that
one. A client that can push to the destination can forge a record, but not a signature. Deletions of records are signed
too. Files in the state directory:

===========================  =====  ===========================================================================
``signing-key.pem``          0400   the private key (PKCS #8), created at the first start
``signing-key.pub``          0444   the public key, 32 bytes in base64, for audits on other machines
===========================  =====  ===========================================================================
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from openclaw_egress.errors import EgressError

KEY_FILE, PUBLIC_FILE = "signing-key.pem", "signing-key.pub"


class SigningError(EgressError):
    """A key cannot be read, created or used. The message contains the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The private key of an instance."""

    key: Ed25519PrivateKey

    @classmethod
    def in_directory(cls, directory: Path) -> Signer:
        """Return the key in a state directory. Create the key if it is missing.

        Raises:
            SigningError: the key cannot be read or written, or is not an Ed25519 key.
        """
        file = directory / KEY_FILE
        try:
            try:
                pem = file.read_bytes()
            except FileNotFoundError:
                pem = _create(file)
            key = serialization.load_pem_private_key(pem, password=None)
        except OSError as error:
            raise SigningError(
                f"signing key {file}: {error.strerror}; the proxy's user (uid {os.getuid()}) must be able to read it"
            ) from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _unusable(file) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise _unusable(file)
        signer = cls(key)
        # Ignore an error in writing this copy of the public key, because only audits on other machines need it.
        with contextlib.suppress(OSError):
            public = directory / PUBLIC_FILE
            if not public.exists():
                public.write_text(f"{signer.public}\n")
                public.chmod(0o444)
        return signer

    @property
    def public(self) -> str:
        """Return the public key: 32 bytes in base64."""
        return base64.b64encode(self.key.public_key().public_bytes_raw()).decode()

    def sign(self, text: bytes) -> str:
        """Return the signature of a text from `checkpoint_text` or `deletion_text`, in base64."""
        return base64.b64encode(self.key.sign(text)).decode()


def _unusable(file: Path) -> SigningError:
    return SigningError(
        f"signing key {file}: not an Ed25519 key in PEM; restore it, or move it aside: a new key is then created, and "
        "audits need both public keys"
    )


def _create(file: Path) -> bytes:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Write a temporary file first, so that a crash cannot leave a partial key.
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return pem


def read_public_key(text: str) -> Ed25519PublicKey:
    """Return the public key that a base64 text encodes.

    Raises:
        SigningError: the text is not an Ed25519 public key.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.strip(), validate=True))
    except (ValueError, binascii.Error):
        raise SigningError(
            f"not a public signing key: {text.strip()[:60]!r}; use the key that `egress ca show` prints"
        ) from None


def key_id(key: Ed25519PublicKey) -> str:
    """Return the ID that identifies a public key in records: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:12]


def is_signed(key: Ed25519PublicKey, signature: str, text: bytes) -> bool:
    """Return whether ``signature`` is valid for a text from `checkpoint_text` or `deletion_text`."""
    try:
        key.verify(base64.b64decode(signature, validate=True), text)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def checkpoint_text(seq: int, digest: str) -> bytes:
    """Return the text to sign for a checkpoint, with the sequence number and the hash of the newest line."""
    return f"openclaw.egress.checkpoint\n{seq}\n{digest}\n".encode()


def deletion_text(lines: str, digest: str) -> bytes:
    """Return the text to sign for a deletion: the sequence numbers of the lines, and the hash of the last line."""
    return f"openclaw.egress.deletion\n{lines}\n{digest}\n".encode()

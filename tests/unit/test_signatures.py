"""Tests of the signing key of a proxy instance: its file, the mode of the file, and damaged files."""

import stat

import pytest

from openclaw_egress.signatures import (
    KEY_FILE,
    PUBLIC_FILE,
    Signer,
    SigningError,
    checkpoint_text,
    deletion_text,
    is_signed,
    read_public_key,
)


def test_key_is_created_once_and_is_readable_by_its_owner_only(tmp_path):
    signer = Signer.in_directory(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state" / KEY_FILE).stat().st_mode) == 0o400
    assert (tmp_path / "state" / PUBLIC_FILE).read_text() == signer.public + "\n"
    assert Signer.in_directory(tmp_path / "state").public == signer.public
    assert sorted(file.name for file in (tmp_path / "state").iterdir()) == [KEY_FILE, PUBLIC_FILE]


def test_signature_is_valid_for_one_checkpoint_only(tmp_path):
    signer = Signer.in_directory(tmp_path)
    key = read_public_key(signer.public)
    signature = signer.sign(checkpoint_text(7, "ab" * 32))
    assert is_signed(key, signature, checkpoint_text(7, "ab" * 32))
    assert not is_signed(key, signature, deletion_text("7", "ab" * 32))
    assert not is_signed(key, signature, checkpoint_text(8, "ab" * 32))
    assert not is_signed(key, signature, checkpoint_text(7, "ac" * 32))
    assert not is_signed(key, "no base64", checkpoint_text(7, "ab" * 32))
    assert not is_signed(
        read_public_key(Signer.in_directory(tmp_path / "other").public), signature, checkpoint_text(7, "ab" * 32)
    )


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----", b"\xff\xfe"])
def test_damaged_key_is_reported_with_a_remedy_and_not_replaced(tmp_path, content):
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(SigningError, match="not an Ed25519 key in PEM; restore it, or move it aside"):
        Signer.in_directory(tmp_path)
    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_directory_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SigningError, match="Not a directory"):
        Signer.in_directory(tmp_path / "file")

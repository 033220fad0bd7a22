"""Tests of the rollback manifest on real files. A rollback restores the original state, but keeps later edits."""

import json
import os
import re

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils.manifest import (
    Manifest,
    ManifestError,
    put_back,
    state_of,
)


@pytest.fixture
def manifest(tmp_path):
    """Return a function that opens the manifest again, as each task of a play does."""
    return lambda: Manifest(str(tmp_path / "lib/manifest.json"))


def step(manifest, action, *arguments):
    now = manifest()
    changed = getattr(now, action)(*arguments)
    now.save()
    return changed


def restore(manifest, path):
    now = manifest()
    status = now.status(str(path))
    if status == "restored":
        put_back(str(path), now.items[f"path:{path}"]["before"])
    return status


def change(manifest, path, content: bytes):
    step(manifest, "record", "path", str(path))
    path.write_bytes(content)
    step(manifest, "wrote", str(path))


def test_rollback_restores_bytes_and_mode_of_a_file(manifest, tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"A=1\r\n\xff")
    path.chmod(0o640)
    change(manifest, path, b"B=2")
    path.chmod(0o600)
    step(manifest, "wrote", str(path))
    change(manifest, path, b"C=3")
    assert restore(manifest, path) == "restored"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"A=1\r\n\xff", 0o640)
    assert manifest().status(str(path)) == "unchanged"


def test_only_empty_directories_of_an_interrupted_run_are_removed(manifest, tmp_path):
    step(manifest, "record", "path", str(tmp_path / "new"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "theirs").write_text("x")
    assert restore(manifest, tmp_path / "new") == "drifted"
    (tmp_path / "new" / "theirs").unlink()
    assert restore(manifest, tmp_path / "new") == "restored"
    assert not (tmp_path / "new").exists()


def test_new_file_is_removed(manifest, tmp_path):
    change(manifest, tmp_path / "new", b"x")
    assert restore(manifest, tmp_path / "new") == "restored"
    assert not (tmp_path / "new").exists()


def test_symlink_and_empty_directory_are_restored_and_removed(manifest, tmp_path):
    link, made = tmp_path / "link", tmp_path / "made"
    link.symlink_to("old")
    for path in (link, made):
        step(manifest, "record", "path", str(path))
    link.unlink()
    link.symlink_to("new")
    made.mkdir()
    for path in (link, made):
        step(manifest, "wrote", str(path))
        assert restore(manifest, path) == "restored"
    assert str(link.readlink()) == "old"
    assert not made.exists()


def test_directory_with_content_stays(manifest, tmp_path):
    made = tmp_path / "made"
    step(manifest, "record", "path", str(made))
    made.mkdir()
    step(manifest, "wrote", str(made))
    (made / "theirs").write_text("x")
    assert restore(manifest, made) == "drifted"


def test_file_edited_after_the_last_run_is_not_restored(manifest, tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"A=1")
    change(manifest, path, b"B=2")
    path.write_bytes(b"B=2, and the operator's")
    assert restore(manifest, path) == "drifted"
    assert path.read_bytes() == b"B=2, and the operator's"


def test_edit_between_two_runs_is_attributed_to_the_operator(manifest, tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"A=1")
    change(manifest, path, b"B=2")
    path.write_bytes(b"B=2, and the operator's")
    change(manifest, path, b"B=3, and the operator's")
    assert restore(manifest, path) == "drifted"


def test_file_written_but_not_recorded_by_a_killed_run_is_kept(manifest, tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"A=1")
    step(manifest, "record", "path", str(path))
    path.write_bytes(b"B=2")
    assert restore(manifest, path) == "drifted"


def test_a_second_run_changes_nothing(manifest, tmp_path):
    path = tmp_path / "env"
    assert step(manifest, "record", "path", str(path))
    path.write_bytes(b"x")
    assert step(manifest, "wrote", str(path))
    assert not step(manifest, "record", "path", str(path))
    assert not step(manifest, "wrote", str(path))
    assert step(manifest, "record", "network", "n", {"created": True})
    assert not step(manifest, "record", "network", "n", {"created": False})
    assert manifest().items["network:n"]["data"] == {"created": True}


def test_data_are_replaced_in_one_save(manifest):
    """After each save, a rollback finds the earlier data or the new data."""
    step(manifest, "record", "other", "gateway", {"image": "a"})
    now = manifest()
    assert now.record("other", "gateway", {"image": "b"}, True)
    assert manifest().items["other:gateway"]["data"] == {"image": "a"}
    now.save()
    assert manifest().items["other:gateway"]["data"] == {"image": "b"}
    assert not step(manifest, "record", "other", "gateway", {"image": "b"}, True)


def test_write_to_an_unrecorded_path_is_refused(manifest, tmp_path):
    assert manifest().status(str(tmp_path / "x")) == "unknown"
    with pytest.raises(ManifestError, match="state=recorded before the change"):
        manifest().wrote(str(tmp_path / "x"))


def test_only_the_owner_can_read_the_manifest(manifest, tmp_path):
    step(manifest, "record", "path", str(tmp_path / "x"))
    assert (tmp_path / "lib").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "lib/manifest.json").stat().st_mode & 0o777 == 0o600
    assert [kept.name for kept in (tmp_path / "lib").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ('{"version": 1, "ite', "is damaged"),
        ("[]", "it has no items"),
        ('{"version": 2, "items": {}}', "version 2"),
        ('{"version": 1, "items": {"path:/x": {"kind": "path", "name": "/y"}}}', "item 'path:/x'"),
        ('{"version": 1, "items": {"path:/x": {"kind": "path", "name": "/x", "before": null}}}', "item 'path:/x'"),
    ],
)
def test_a_damaged_manifest_is_refused_and_kept(manifest, tmp_path, content, message):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/manifest.json").write_text(content)
    with pytest.raises(ManifestError, match=message):
        manifest()
    assert (tmp_path / "lib/manifest.json").read_text() == content


def test_copy_with_a_wrong_digest_is_not_restored(manifest, tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"A=1")
    change(manifest, path, b"B=2")
    stored = tmp_path / "lib/manifest.json"
    stored.write_text(re.sub(r'(?s)("before": \{.*?"sha256": ")....', r"\g<1>0000", stored.read_text()))
    with pytest.raises(ManifestError, match="digest"):
        restore(manifest, path)
    assert path.read_bytes() == b"B=2"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_owner_is_restored(manifest, tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"A=1")
    os.chown(path, 65534, 65534)
    change(manifest, path, b"B=2")
    os.chown(path, 0, 0)
    step(manifest, "wrote", str(path))
    assert restore(manifest, path) == "restored"
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_special_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestError, match="neither a file"):
        state_of(str(tmp_path / "pipe"))


def test_content_is_not_stored_in_plain_text(manifest, tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"SECRET=hunter2")
    step(manifest, "record", "path", str(path))
    assert "hunter2" not in json.dumps(manifest().items)

"""Tests of the module host_files, which edits real files, and of the filter file_digests."""

import contextlib
import hashlib
import os
import socket
import stat

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.openclaw.egress.plugins.filter.file_digests import file_digests

from tests.unit.plugins.test_modules import call


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def listing(root):
    return sorted((str(path.relative_to(root)), mode(path)) for path in root.rglob("*"))


def test_items_get_their_state_in_order_and_a_second_run_changes_nothing(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/file").touch()
    files = [
        {"path": f"{tmp_path}/a", "state": "directory", "mode": "0750"},
        {"path": f"{tmp_path}/a/text", "content": "one\n", "mode": "0640"},
        {"path": f"{tmp_path}/a/copy", "src": f"{tmp_path}/a/text", "mode": "0604"},
        {"path": f"{tmp_path}/link", "state": "link", "target": "a/text"},
        {"path": f"{tmp_path}/old", "state": "absent"},
    ]
    planned = call("host_files", files=files, check=True)
    assert planned["changed_paths"] == [item["path"] for item in files]
    assert listing(tmp_path) == [("old", 0o755), ("old/file", 0o644)]
    result = call("host_files", files=files)
    assert result["changed_paths"] == [item["path"] for item in files]
    assert listing(tmp_path) == [("a", 0o750), ("a/copy", 0o604), ("a/text", 0o640), ("link", 0o777)]
    assert (tmp_path / "link").read_text() == (tmp_path / "a/copy").read_text() == "one\n"
    for check in (True, False):
        assert call("host_files", files=files, check=check)["changed"] is False


def test_changed_content_is_shown_unless_diff_is_false(tmp_path):
    for name in ("open", "hidden"):
        (tmp_path / name).write_text("before")
    files = [
        {"path": f"{tmp_path}/open", "content": "after"},
        {"path": f"{tmp_path}/hidden", "content": "after", "diff": False},
    ]
    result = call("host_files", files=files)
    assert [(one["before"], one["after"]) for one in result["diff"]] == [("before", "after")]
    assert (tmp_path / "hidden").read_text() == "after"


def test_replaced_file_keeps_the_mode_that_is_not_given_and_a_new_one_is_private(tmp_path):
    (tmp_path / "there").touch(mode=0o644)
    call("host_files", files=[{"path": f"{tmp_path}/{name}", "content": "x"} for name in ("there", "new")])
    assert (mode(tmp_path / "there"), mode(tmp_path / "new")) == (0o644, 0o600)


def test_mode_alone_is_changed_without_a_new_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("secret")
    before = path.stat().st_ino
    result = call("host_files", files=[{"path": str(path), "mode": "0400"}])
    assert result["changed"] and mode(path) == 0o400 and path.stat().st_ino == before
    assert "secret" not in str(result["diff"])


def test_invalid_content_is_not_written(tmp_path):
    path = tmp_path / "policy"
    path.write_text("good")
    item = {"path": str(path), "content": "bad", "validate": "grep -q good %s"}
    result = call("host_files", files=[item])
    assert result["failed"] and "its new content is not valid" in result["msg"]
    assert path.read_text() == "good" and os.listdir(tmp_path) == ["policy"]  # noqa: PTH208
    assert call("host_files", files=[{**item, "content": "also good"}])["changed"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"path": "{}/directory", "content": "x"}, "is a directory, not a file"),
        ({"path": "{}/file", "state": "directory"}, "is not a directory"),
        ({"path": "{}/file", "state": "link", "target": "x"}, "is not a symbolic link"),
        ({"path": "relative", "content": "x"}, "is not an absolute path"),
        ({"path": "{}/file/below", "content": "x"}, "/file is not a directory"),
        ({"path": "{}/file/below/deep", "state": "directory"}, "/file is not a directory"),
        ({"path": "{}/fifo", "content": "x"}, "/fifo is a FIFO, not a file"),
        ({"path": "{}/socket", "mode": "0600"}, "/socket is a socket, not a file"),
        ({"path": "{}/device", "content": "x"}, "/device is a device, not a file"),
        ({"path": "{}/copy", "src": "{}/fifo"}, "/fifo cannot be copied to"),
    ],
)
def test_item_of_another_type_stops_the_run_before_the_first_change(tmp_path, item, message):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
        server.bind("socket")
    item = {key: value.format(tmp_path) for key, value in item.items()}
    result = call("host_files", files=[{"path": f"{tmp_path}/first", "content": "x"}, item])
    assert result["failed"] and message in result["msg"] and "This step changed nothing" in result["msg"]
    assert not (tmp_path / "first").exists()


def test_missing_source_is_an_error_except_in_check_mode(tmp_path):
    files = [{"path": f"{tmp_path}/copy", "src": f"{tmp_path}/none"}]
    assert call("host_files", files=files, check=True)["changed"]
    assert f"{tmp_path}/none does not exist" in call("host_files", files=files)["msg"]


@pytest.mark.parametrize("keep", [False, True])
def test_linked_directory_gets_its_mode_and_the_link_stays(tmp_path, keep):
    (tmp_path / "big").mkdir(mode=0o755)
    (tmp_path / "spool").symlink_to("big")
    files = [{"path": f"{tmp_path}/spool", "state": "directory", "mode": "0700", "keep": keep}]
    for check in (True, False):
        assert call("host_files", files=files, check=check)["changed"] is not keep
    assert mode(tmp_path / "big") == (0o755 if keep else 0o700) and (tmp_path / "spool").is_symlink()
    for check in (True, False):
        assert call("host_files", files=files, check=check)["changed"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the owner")
def test_linked_directory_gets_its_owner(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "spool").symlink_to("big")
    files = [{"path": f"{tmp_path}/spool", "state": "directory", "owner": "10001", "group": "10001"}]
    assert call("host_files", files=files)["changed"]
    owners = [((tmp_path / name).lstat().st_uid, (tmp_path / name).lstat().st_gid) for name in ("big", "spool")]
    assert owners == [(10001, 10001), (0, 0)]
    assert call("host_files", files=files, check=True)["changed"] is False


def test_missing_parents_are_created_and_a_directory_without_mode_is_private(tmp_path):
    files = [{"path": f"{tmp_path}/a/b/c/", "state": "directory"}]
    assert call("host_files", files=files, check=True)["changed"] and not (tmp_path / "a").exists()
    before = os.umask(0o077)
    try:
        assert call("host_files", files=files)["changed"]
    finally:
        os.umask(before)
    assert listing(tmp_path) == [("a", 0o755), ("a/b", 0o755), ("a/b/c", 0o700)]
    assert call("host_files", files=files)["changed"] is False


@pytest.mark.parametrize("target", ["same", "other", "missing", "link"])
def test_link_is_replaced_by_a_file_and_its_target_stays(tmp_path, target):
    (tmp_path / "same").write_text("x")
    (tmp_path / "other").write_text("y")
    (tmp_path / "link").symlink_to(target)
    files = [{"path": f"{tmp_path}/link", "content": "x"}]
    assert call("host_files", files=files, check=True)["changed"] and (tmp_path / "link").is_symlink()
    assert call("host_files", files=files)["changed"]
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link").read_text() == "x"
    assert mode(tmp_path / "link") == 0o600 and mode(tmp_path / "same") == 0o644
    assert ((tmp_path / "same").read_text(), (tmp_path / "other").read_text()) == ("x", "y")
    for check in (True, False):
        assert call("host_files", files=files, check=check)["changed"] is False


def test_mode_of_a_linked_file_without_content_is_set_on_the_target(tmp_path):
    (tmp_path / "key").touch(mode=0o644)
    (tmp_path / "link").symlink_to("key")
    files = [{"path": f"{tmp_path}/link", "mode": "0400"}]
    assert call("host_files", files=files)["changed"]
    assert mode(tmp_path / "key") == 0o400 and (tmp_path / "link").is_symlink()
    for check in (True, False):
        assert call("host_files", files=files, check=check)["changed"] is False


@pytest.mark.parametrize("state", ["file", "absent"])
def test_temporary_file_of_an_interrupted_run_is_deleted_and_nothing_else(tmp_path, state):
    leftover = tmp_path / ".openclaw-egress-ab_9xyz0"
    others = [tmp_path / ".openclaw-egress-notes.txt", tmp_path / "x.openclaw-egress-ab_9xyz0"]
    for path in (leftover, *others):
        path.write_text("user:password")
    (tmp_path / ".openclaw-egress-abcdefgh").mkdir()
    files = [{"path": f"{tmp_path}/login", "state": state, "content": "x"}]
    call("host_files", files=files, check=True)
    assert leftover.exists()
    assert str(leftover) in str(call("host_files", files=files)["warnings"])
    assert not leftover.exists() and all(path.exists() for path in others)
    assert (tmp_path / ".openclaw-egress-abcdefgh").is_dir()
    assert "warnings" not in call("host_files", files=files)


@pytest.fixture
def package(tmp_path):
    """Return a directory with two files, and the item that describes it."""
    root = tmp_path / "package"
    (root / "part").mkdir(parents=True)
    for name in ("a.py", "part/b.py"):
        (root / name).write_text(name)
    return root, {
        "path": str(root),
        "state": "directory",
        "mode": "0755",
        "contains": file_digests(str(root), ["*.py"]),
    }


def test_other_files_are_deleted_and_nothing_else(package):
    root, item = package
    (root / "part/old.py").touch()
    (root / "gone/deep").mkdir(parents=True)
    (root / "gone/deep/c.py").touch()
    (root / "elsewhere").symlink_to(root / "part")
    assert call("host_files", files=[item], check=True)["changed"]
    result = call("host_files", files=[item])
    assert result["changed"] and result["incomplete"] == []
    assert [name for name, _ in listing(root)] == ["a.py", "part", "part/b.py"]
    assert call("host_files", files=[item])["changed"] is False


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_what_is_in_place_of_a_file_is_deleted(package, kind):
    root, item = package
    (root / "a.py").rename(root.parent / "a.py")
    if kind == "link":
        (root / "a.py").symlink_to(root.parent / "a.py")
    else:
        os.mkfifo(root / "a.py")
    planned = call("host_files", files=[item], check=True)
    assert planned["changed"] and planned["incomplete"] == [str(root)] and os.path.lexists(root / "a.py")
    result = call("host_files", files=[item])
    assert result["changed"] and result["incomplete"] == [str(root)]
    assert not os.path.lexists(root / "a.py") and (root.parent / "a.py").read_text() == "a.py"


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "part/b.py").write_text("other"),
        lambda root: (root / "a.py").unlink(),
        lambda root: (root / "a.py").chmod(0o600),
        lambda root: (root / "part").chmod(0o700),
        lambda root: ((root / "a.py").rename(root.parent / "a.py"), (root / "a.py").symlink_to(root.parent / "a.py")),
    ],
    ids=["content", "missing", "mode", "mode of a directory", "link"],
)
def test_directory_with_a_different_file_is_incomplete(package, damage):
    root, item = package
    damage(root)
    assert call("host_files", files=[item])["incomplete"] == [str(root)]


def test_missing_directory_is_incomplete(tmp_path):
    item = {"path": f"{tmp_path}/package", "state": "directory", "contains": {"a.py": "0"}}
    assert call("host_files", files=[item], check=True)["incomplete"] == [item["path"]]


def test_existing_directory_keeps_its_mode_if_asked(tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    files = [
        {"path": f"{tmp_path}/{name}", "state": "directory", "mode": "0755", "keep": True} for name in ("data", "new")
    ]
    assert call("host_files", files=files)["changed_paths"] == [f"{tmp_path}/new"]
    assert listing(tmp_path) == [("data", 0o700), ("new", 0o755)]


def test_digests_are_of_the_files_that_match(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part/b.py").write_text("b")
    (tmp_path / "a.txt").touch()
    assert file_digests(str(tmp_path), ["*.py"]) == {"part/b.py": hashlib.sha256(b"b").hexdigest()}
    with pytest.raises(AnsibleFilterError, match="is not a directory"):
        file_digests(str(tmp_path / "none"))

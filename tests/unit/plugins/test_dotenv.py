"""Tests of edits to a `.env` file: Compose reads the new values, and all other bytes stay unmodified."""

import os
import subprocess

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils.dotenv import Dotenv, DotenvError, default_files, quote
from hypothesis import example, given
from hypothesis import strategies as st

OURS = "/p/docker-compose.egress.yml"
values = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20).filter(
    lambda value: not value.endswith("\\")
)
lines = st.sampled_from(
    [
        "",
        "# note",
        "A=1",
        "export B='x y'",
        'C="two\nlines"',
        "D: yaml",
        "  E = 5 # five",
        "bad line",
        "A=2",
        "é=1",
    ]
)
files = st.builds(
    lambda parts, newline, end: newline.join(parts) + end,
    st.lists(lines),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\r\n"]),
)


def edited(text: str, *edits: tuple) -> str:
    env = Dotenv(text)
    for name, value in edits:
        env.set(name, value) if value is not None else env.remove(name)
    return env.text


@given(files)
def test_parsing_and_writing_a_dotenv_file_keeps_its_bytes(text):
    assert Dotenv(text).text == text


@given(files, values)
def test_adding_and_removing_a_variable_restores_the_bytes(text, value):
    assert edited(edited(text, ("OURS", value)), ("OURS", None)) == text


@given(files, values)
@example("", "\n")
def test_set_value_is_read_back(text, value):
    once = edited(text, ("A", value))
    assert Dotenv(once).get("A") == value
    assert edited(once, ("A", value)) == once


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("X=a", "a"),
        ("X = a b  # note\n", "a b"),
        ("X=a#b\n", "a#b"),
        ("export X='a$b'\n", "a$b"),
        ('X="a\\"b\\n$"\n', 'a"b\n$'),
        ("X: y\n", "y"),
        ("X=1\nX=2\n", "2"),
        ("X=\n", ""),
        ("Y=X=3\n#X=4\n", None),
        ('Y="\nX=no\n"\n', None),
        ("X=a\r\nY=b\r\n", "a"),
    ],
)
def test_values_are_read_as_compose_reads_them(text, value):
    assert Dotenv(text).get("X") == value


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("X=1\nY=2\n", "X=9\nY=2\n"),
        ("export X = '1' # keep\r\nY=2", "export X = 9 # keep\r\nY=2"),
        ("X=1\nX=2\nY=3\n", "X=1\nX=9\nY=3\n"),
        ("Y=1", "Y=1\nX=9"),
        ("Y=1\r\n", "Y=1\r\nX=9\r\n"),
        ("", "X=9\n"),
        ("# X=1\n", "# X=1\nX=9\n"),
        ("X='9'\n", "X='9'\n"),
    ],
)
def test_changed_value_stays_at_its_position(text, after):
    assert edited(text, ("X", "9")) == after


def test_a_value_with_special_characters_is_quoted():
    assert [quote(value) for value in ("a/b:c", "a b", "$x", "it's $5", 'a"b', "")] == [
        "a/b:c",
        "'a b'",
        "'$x'",
        '"it\'s \\$5"',
        "'a\"b'",
        "",
    ]


def test_invalid_name_is_refused():
    with pytest.raises(DotenvError, match="not a valid name"):
        Dotenv("").set("A B", "x")


def test_unterminated_quotes_are_refused_with_the_line_but_not_the_value():
    with pytest.raises(DotenvError, match=r"line 2: the value of X has no closing quote") as refused:
        Dotenv("A=1\nX='hunter2\nZ=1\n")
    assert "hunter2" not in str(refused.value)


def exists(*names: str):
    return lambda path: path in {f"/p/{name}" for name in names}


@pytest.mark.parametrize(
    ("present", "loaded"),
    [
        (["docker-compose.yml"], ["docker-compose.yml"]),
        (["docker-compose.yml", "docker-compose.override.yml"], ["docker-compose.yml", "docker-compose.override.yml"]),
        (
            ["compose.yaml", "docker-compose.yml", "docker-compose.override.yaml"],
            ["compose.yaml", "docker-compose.override.yaml"],
        ),
        (
            ["compose.yml", "compose.override.yaml", "docker-compose.override.yml"],
            ["compose.yml", "compose.override.yaml"],
        ),
        (["docker-compose.override.yml"], []),
    ],
)
def test_default_compose_files_are_found_in_composes_order(present, loaded):
    assert default_files("/p", exists(*present)) == [f"/p/{name}" for name in loaded]


BOTH = exists("docker-compose.yml", "docker-compose.override.yml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=1\n", f"/p/docker-compose.yml:/p/docker-compose.override.yml:{OURS}"),
        ("A=1", f"/p/docker-compose.yml:/p/docker-compose.override.yml:{OURS}"),
        ("COMPOSE_FILE=a.yml:/abs/b.yml\nA=1\n", f"/p/a.yml:/abs/b.yml:{OURS}"),
        ("export COMPOSE_FILE='a.yml' # mine\r\nA=1", f"/p/a.yml:{OURS}"),
        ("COMPOSE_PATH_SEPARATOR=;\nCOMPOSE_FILE=a.yml;b.yml\n", f"/p/a.yml;/p/b.yml;{OURS}"),
        ("COMPOSE_FILE=\n", f"/p/docker-compose.yml:/p/docker-compose.override.yml:{OURS}"),
        ("COMPOSE_FILE=old.yml\nCOMPOSE_FILE=a.yml\n", f"/p/a.yml:{OURS}"),
    ],
)
def test_our_compose_file_is_added_last_and_removed_completely(text, value):
    env = Dotenv(text)
    env.add_compose_files([OURS], "/p", BOTH)
    assert env.get("COMPOSE_FILE") == value
    added = env.text
    env.add_compose_files([OURS], "/p", BOTH)
    assert env.text == added
    assert env.remove_compose_files([OURS], "/p", BOTH) is False
    assert env.text == text


@given(files)
def test_removal_restores_the_bytes_of_any_file(text):
    env = Dotenv(text)
    env.add_compose_files([OURS], "/p", BOTH)
    env = Dotenv(env.text)
    env.remove_compose_files([OURS], "/p", BOTH)
    assert env.text == text


@pytest.mark.parametrize("text", ["A=1\n", "A=1", "COMPOSE_FILE=a.yml\nA=1\n", "A=1\nCOMPOSE_FILE=a.yml"])
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_files_of_several_gateways_are_removed_in_any_order(text, order):
    ours = {name: f"/p/docker-compose.egress.{name}.yml" for name in "ab"}
    env = Dotenv(text)
    for path in ours.values():
        env = Dotenv(env.text)
        env.add_compose_files([path], "/p", BOTH)
    first, last = (ours[name] for name in order)
    env = Dotenv(env.text)
    assert env.remove_compose_files([first], "/p", BOTH) is False
    assert last in env.get("COMPOSE_FILE") and first not in env.get("COMPOSE_FILE")
    env = Dotenv(env.text)
    assert env.remove_compose_files([last], "/p", BOTH) is False
    assert env.text == text


def test_compose_file_that_the_operator_added_later_stays():
    env = Dotenv("COMPOSE_FILE=a.yml\n")
    env.add_compose_files([OURS], "/p", BOTH)
    env = Dotenv(env.text.replace(OURS, f"{OURS}:/p/new.yml"))
    assert env.remove_compose_files([OURS], "/p", BOTH) is True
    assert env.text == "COMPOSE_FILE=/p/a.yml:/p/new.yml\n"


def test_entry_that_the_operator_removed_stays_removed():
    env = Dotenv("A=1\n")
    env.add_compose_files([OURS], "/p", BOTH)
    env.remove("COMPOSE_FILE")
    assert env.remove_compose_files([OURS], "/p", BOTH) is True
    assert env.text == "A=1\n"


@pytest.mark.parametrize(
    ("text", "found", "message"),
    [
        ("", exists(), "contains none of compose.yaml"),
        ("COMPOSE_FILE=${HOME}/a.yml\n", BOTH, "contains a variable"),
        ("COMPOSE_FILE=a.yml\n", None, "COMPOSE_PATH_SEPARATOR"),
    ],
)
def test_unsupported_compose_file_list_is_refused(text, found, message):
    with pytest.raises(DotenvError, match=message):
        Dotenv(text).add_compose_files([OURS if found else "/p/x:y.yml"], "/p", found or BOTH)


@pytest.mark.skipif(os.system("docker compose version >/dev/null 2>&1") != 0, reason="no docker compose")
@pytest.mark.parametrize(
    "value",
    ["plain", "a b", "$HOME", "it's", 'say "x" $y', "a#b", "a # b", "tab\tx", "back\\slash", "'\\n'", "two\nlines"],
)
def test_compose_reads_the_values_that_were_set(tmp_path, value):
    import json

    (tmp_path / ".env").write_text(edited("A=1", ("X", value)))
    (tmp_path / "compose.yaml").write_text('services: {a: {image: x, environment: {X: "${X}"}}}\n')
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"], cwd=tmp_path, capture_output=True, check=True
    )
    read = json.loads(done.stdout)["services"]["a"]["environment"]["X"]
    assert read.replace("$$", "$") == value


@pytest.mark.parametrize("text", ["", "A=1", "A=1\r\nB=2", "COMPOSE_FILE=a.yml", "A=1\nCOMPOSE_FILE=a.yml"])
@pytest.mark.parametrize("appended", ["", "X=1\n", "X=1"])
def test_line_that_is_appended_by_hand_changes_no_entry(text, appended):
    env = Dotenv(text)
    env.add_compose_files([OURS], "/p", BOTH)
    files = env.get("COMPOSE_FILE")
    by_hand = Dotenv(env.text + appended)
    assert by_hand.get("COMPOSE_FILE") == files and by_hand.get("X") == ("1" if appended else None)
    by_hand.remove_compose_files([OURS], "/p", BOTH)
    line_end = "" if not appended or not text else "\r\n" if "\r\n" in text else "\n"
    assert by_hand.text == text + line_end + appended


def test_open_end_of_an_older_version_is_restored():
    files = "/p/docker-compose.yml:/p/docker-compose.override.yml:"
    text = f"A=1\n# openclaw.egress keeps: COMPOSE_FILE was not set\nCOMPOSE_FILE={files}"
    env = Dotenv(text + OURS)
    env.remove_compose_files([OURS], "/p", BOTH)
    assert env.text == "A=1"


@pytest.mark.parametrize("rest", ["", "A=1", "A=1\n", "COMPOSE_FILE=a.yml", "COMPOSE_FILE=a.yml\n"])
def test_byte_order_mark_stays_the_first_character(rest):
    text = "\ufeff" + rest
    env = Dotenv(text)
    has_own = rest.startswith("COMPOSE_FILE")
    env.add_compose_files([OURS], "/p", BOTH)
    assert env.text.startswith("\ufeff") and "\ufeff" not in env.text[1:]
    files = ["/p/a.yml"] if has_own else ["/p/docker-compose.yml", "/p/docker-compose.override.yml"]
    assert env.get("COMPOSE_FILE") == ":".join([*files, OURS])
    assert not env.remove_compose_files([OURS], "/p", BOTH)
    assert env.text == text


def test_note_about_a_missing_newline_does_not_count_as_a_former_entry():
    env = Dotenv("A=1")
    env.add_compose_files([OURS], "/p", BOTH)
    without_note = Dotenv(env.text.replace("# openclaw.egress keeps: COMPOSE_FILE was not set\n", ""))
    without_note.remove_compose_files([OURS], "/p", BOTH)
    assert without_note.text == "A=1\nCOMPOSE_FILE=/p/docker-compose.yml:/p/docker-compose.override.yml"

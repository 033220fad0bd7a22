# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""An editor for the ``.env`` file of a compose project. It preserves every line that it does not edit.

The syntax follows compose: an optional ``export``, a name, ``=`` or ``:``, then a value that is bare, in single quotes
(literal) or in double quotes. A quoted value may have several lines. The last entry of a name wins. A new entry is
appended so that its removal restores the original bytes, including a missing newline at the end. A COMPOSE_FILE at the
end always gets a newline, because ``echo X=1 >> .env`` would otherwise append to its value.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Callable

_ENTRY = re.compile(r"(?P<lead>[ \t]*(?:export[ \t]+)?)(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?P<equals>[ \t]*[=:][ \t]*)")
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*\Z")  # Do not use $, which also matches before a final newline.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
KEPT = "# openclaw.egress keeps: "
NOT_SET = KEPT + "COMPOSE_FILE was not set"
OPEN_END = KEPT + "no line break at the end"
_BOM = "\ufeff"  # A byte order mark. Compose skips it only at the beginning of the file.

# Default file names in compose's order (compose-go's DefaultFileNames, DefaultOverrideFileNames).
BASE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_FILES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)

Exists = Callable[[str], bool]


# The compose files that this collection writes: the proxy's, and one for each gateway if a host has several.
_OURS = re.compile(r"/docker-compose\.egress(?:\.[a-z0-9-]+)?\.yml\Z")


class DotenvError(ValueError):
    """Error for a file that cannot be edited. The text is for the operator. It contains names, but never a value."""


@dataclass(frozen=True)
class _Piece:
    """A part of the file: an entry (with ``name``, and ``value`` as compose reads it), or text between entries."""

    text: str
    name: str = ""
    value: str = ""
    head: str = ""  # The text of the entry before its value.
    tail: str = ""  # The text of the entry after its value: comment and newline.


class Dotenv:
    """One ``.env`` file. ``text`` is the complete current text of the file."""

    def __init__(self, text: str) -> None:
        self._pieces = _read(text)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self._pieces)

    def get(self, name: str) -> str | None:
        """Return the value of the last entry of this name, or None."""
        values = [piece.value for piece in self._pieces if piece.name == name]
        return values[-1] if values else None

    def set(self, name: str, value: str) -> None:
        """Set a value in the last entry of this name, or append a new entry."""
        if not _NAME.match(name):
            raise DotenvError("%r is not a valid name of an environment variable" % name)
        if self.get(name) == value:
            return
        found = [index for index, piece in enumerate(self._pieces) if piece.name == name]
        if found:
            old = self._pieces[found[-1]]
            text = old.head + quote(value) + old.tail
            self._pieces[found[-1]] = _Piece(text, name, value, old.head, old.tail)
        else:
            self._append("%s=%s" % (name, quote(value)))

    def remove(self, name: str) -> None:
        """Remove all entries of this name."""
        self._drop(lambda piece: piece.name == name)

    # COMPOSE_FILE

    def add_compose_files(self, add: list[str], project_dir: str, exists: Exists = os.path.exists) -> None:
        """Append files to the list of files that compose loads, and make every path in COMPOSE_FILE absolute.

        Above the entry, write a comment that contains the previous entry or states that there was none.
        :meth:`remove_compose_files` uses this comment to restore the previous state. Raise :class:`DotenvError` if
        compose would load no files except ``add``.
        """
        former = self._former_files(project_dir, exists)
        files = former + [path for path in (_absolute(path, project_dir) for path in add) if path not in former]
        if self.get("COMPOSE_FILE") == self._separator().join(files):
            return
        if any(self._separator() in path for path in files):
            raise DotenvError(
                "COMPOSE_FILE cannot contain a path with %r; set COMPOSE_PATH_SEPARATOR to another character"
                % self._separator()
            )
        if not self._kept():
            entries = [index for index, piece in enumerate(self._pieces) if piece.name == "COMPOSE_FILE"]
            if self._is_open() and (not entries or entries[-1] == len(self._pieces) - 1):
                self._close()
                self._pieces.insert((entries or [len(self._pieces)])[-1], _Piece(OPEN_END + self._newline()))
                entries = [index + 1 for index in entries]
            if entries:
                old = self._pieces[entries[-1]]
                newline = _line_end(old.text)
                if "\n" in old.text.rstrip("\r\n"):
                    raise DotenvError("COMPOSE_FILE has several lines; write it on one line")
                self._pieces.insert(entries[-1], _Piece(KEPT + old.text.rstrip("\r\n") + newline))
            else:
                self._append(NOT_SET)
        self.set("COMPOSE_FILE", self._separator().join(files))

    def remove_compose_files(self, remove: list[str], project_dir: str, exists: Exists = os.path.exists) -> bool:
        """Undo :meth:`add_compose_files`. Return True if COMPOSE_FILE was edited since; then remove only our files."""
        # If we added a newline at the end of the file, remove it only if our entry is still the last line.
        is_last = bool(self._pieces) and self._pieces[-1].name == "COMPOSE_FILE"
        opens = is_last and any(piece.text.startswith(OPEN_END) for piece in self._pieces)
        edited = self._remove_compose_files(remove, project_dir, exists)
        if opens and not self._kept():
            self._open()
        return edited

    def _remove_compose_files(self, remove: list[str], project_dir: str, exists: Exists) -> bool:
        value = self.get("COMPOSE_FILE")
        kept = self._kept()
        ours = {_absolute(path, project_dir) for path in remove}
        if value is None:
            self._drop(lambda piece: piece.text.startswith(KEPT))
            return bool(kept)
        files = [path for path in value.split(self._separator()) if path]
        left = [path for path in files if _absolute(path, project_dir) not in ours]
        if not kept:
            self._drop(lambda piece: piece.text.startswith(KEPT))
            if len(left) != len(files):
                self._set_or_remove(left)
            return False
        before = None
        if kept != NOT_SET:
            before = Dotenv(kept[len(KEPT) :])
        former = before.get("COMPOSE_FILE") if before else ""
        expected = _files_of(former, self._separator(), project_dir) if former else default_files(project_dir, exists)
        edited = left != expected
        if edited and [path for path in left if not _OURS.search(path)] == expected:
            # Files of other gateways remain, so keep the comment for their removal.
            self.set("COMPOSE_FILE", self._separator().join(left))
            return False
        if edited:
            self._drop(lambda piece: piece.text.startswith(KEPT))
            self._set_or_remove(left)
        elif before is None:
            self._drop(lambda piece: piece.text.startswith(KEPT) or piece.name == "COMPOSE_FILE")
        else:
            index = max(i for i, piece in enumerate(self._pieces) if piece.name == "COMPOSE_FILE")
            newline = _line_end(self._pieces[index].text)
            self._pieces[index] = _Piece(kept[len(KEPT) :] + newline, "COMPOSE_FILE", before.get("COMPOSE_FILE") or "")
            self._drop(lambda piece: piece.text.startswith(KEPT))
        return edited

    def _set_or_remove(self, files: list[str]) -> None:
        if files:
            self.set("COMPOSE_FILE", self._separator().join(files))
        else:
            self.remove("COMPOSE_FILE")

    def _former_files(self, project_dir: str, exists: Exists) -> list[str]:
        value = self.get("COMPOSE_FILE")
        if value:
            if "$" in value:
                raise DotenvError(
                    "COMPOSE_FILE contains a variable, so its paths cannot be made absolute; write the value instead"
                )
            return _files_of(value, self._separator(), project_dir)
        files = default_files(project_dir, exists)
        if not files:
            raise DotenvError(
                "%s contains none of %s, and COMPOSE_FILE is not set: check that this is the compose directory"
                % (project_dir, ", ".join(BASE_FILES))
            )
        return files

    def _separator(self) -> str:
        return self.get("COMPOSE_PATH_SEPARATOR") or ":"

    def _kept(self) -> str:
        """Return the comment that contains the previous entry; empty if there is none."""
        found = [piece.text.rstrip("\r\n") for piece in self._pieces if piece.text.startswith(KEPT)]
        return next((text for text in reversed(found) if text != OPEN_END), "")

    def _append(self, line: str) -> None:
        if self._is_open():
            self._close()
            self._pieces.extend(_read(line))
        else:
            self._pieces.extend(_read(line + self._newline()))

    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _is_open(self) -> bool:
        """Return whether the file has no trailing newline."""
        return bool(self._pieces) and not self._pieces[-1].text.endswith("\n")

    def _close(self) -> None:
        """Add a trailing newline."""
        last, newline = self._pieces[-1], self._newline()
        self._pieces[-1] = _Piece(last.text + newline, last.name, last.value, last.head, last.tail + newline)

    def _open(self) -> None:
        """Remove the trailing newline."""
        if self._pieces:
            last = self._pieces[-1]
            text = re.sub(r"\r?\n$", "", last.text)
            self._pieces[-1] = _Piece(text, last.name, last.value, last.head, re.sub(r"\r?\n$", "", last.tail))

    def _drop(self, goes: Callable[[_Piece], bool]) -> None:
        """Remove the pieces for which ``goes`` is true. Add no trailing newline to a file that had none."""
        open_end = self._is_open()
        dropped_last = bool(self._pieces) and goes(self._pieces[-1])
        self._pieces = [piece for piece in self._pieces if not goes(piece)]
        if open_end and dropped_last:
            self._open()


def _line_end(text: str) -> str:
    return text[len(text.rstrip("\r\n")) :]


def default_files(project_dir: str, exists: Exists = os.path.exists) -> list[str]:
    """Return the files that compose loads by default: the directory's first base file and first override file."""
    base = [os.path.join(project_dir, name) for name in BASE_FILES if exists(os.path.join(project_dir, name))][:1]
    override = [os.path.join(project_dir, name) for name in OVERRIDE_FILES if exists(os.path.join(project_dir, name))][
        :1
    ]
    return base + override if base else []


def quote(value: str) -> str:
    """Return the value without quotes if that is safe, else in single quotes if possible, else in double quotes."""
    if _BARE.match(value):
        return value
    if value.endswith("\\"):
        raise DotenvError(
            "the value ends in a backslash, which versions of Docker Compose read differently; remove the backslash"
        )
    if not re.search(r"['\\\r\n]", value):
        return "'%s'" % value
    escaped = (
        value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("\n", "\\n").replace("\r", "\\r")
    )
    return '"%s"' % escaped


def _absolute(path: str, project_dir: str) -> str:
    return os.path.normpath(os.path.join(project_dir, path))


def _files_of(value: str, separator: str, project_dir: str) -> list[str]:
    return [_absolute(path, project_dir) for path in value.split(separator) if path]


def _read(text: str) -> list[_Piece]:
    pieces = [_Piece(_BOM)] if text.startswith(_BOM) else []
    at = len(pieces)
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end + 1
        match = _ENTRY.match(text, at, end)
        if match is None:
            pieces.append(_Piece(text[at:end]))
        else:
            value, stop = _value(text, match.end(), end)
            if stop < 0:
                line = text.count("\n", 0, at) + 1
                raise DotenvError("line %d: the value of %s has no closing quote" % (line, match["name"]))
            if stop > end:
                end = text.find("\n", stop)
                end = len(text) if end < 0 else end + 1
            pieces.append(_Piece(text[at:end], match["name"], value, text[at : match.end()], text[stop:end]))
        at = end
    return pieces


def _value(text: str, at: int, end: int) -> tuple[str, int]:
    """Return the value and the offset after it. For an unclosed quote, which compose refuses, the offset is -1."""
    if text.startswith("'", at):
        match = re.compile(r"'(.*?)(?<!\\)'", re.DOTALL).match(text, at)
        return (match[1], match.end()) if match else ("", -1)
    if text.startswith('"', at):
        match = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(text, at)
        if match is None:
            return "", -1
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), match[1], flags=re.DOTALL), match.end()
    bare = re.compile(r"(.*?)(?=[ \t]+#|[ \t]*\r?\n|[ \t]*$)", re.DOTALL).match(text, at, end)
    if bare is None:
        raise AssertionError("unreachable: the pattern matches every text")
    return bare[1], bare.end(1)

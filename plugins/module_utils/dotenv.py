# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Edits the ``.env`` file of a compose project: text in, text out, the other lines to the byte.

What counts as an entry follows compose: an optional ``export``, a name, ``=`` or ``:``, then a value that is bare, in
single quotes (taken as it is) or in double quotes; a quoted value may go over several lines; of two entries of one name
the last holds. A new entry is put at the end in such a way that taking it out again gives the former bytes, a missing
final newline included.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Callable

_ENTRY = re.compile(r"(?P<lead>[ \t]*(?:export[ \t]+)?)(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?P<equals>[ \t]*[=:][ \t]*)")
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*\Z")  # not $, which also matches before a final line break
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
KEPT = "# openclaw.egress keeps: "
NOT_SET = KEPT + "COMPOSE_FILE was not set"

# The names that compose looks for by itself, in its order (compose-go's DefaultFileNames, DefaultOverrideFileNames).
BASE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_FILES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)

Exists = Callable[[str], bool]


class DotenvError(ValueError):
    """Why the file is not edited, for the person who runs the playbook. Holds names and line numbers, never a value."""


@dataclass(frozen=True)
class _Piece:
    """A run of the text: an entry (``name`` set; ``value`` is what compose reads) or anything else."""

    text: str
    name: str = ""
    value: str = ""
    head: str = ""  # up to the value, as written
    tail: str = ""  # behind the value: comment, line break


class Dotenv:
    """One ``.env`` file. ``text`` is always the whole file as it would be written."""

    def __init__(self, text: str) -> None:
        self._pieces = _read(text)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self._pieces)

    def get(self, name: str) -> str | None:
        """The value of the last entry of this name, or None."""
        values = [piece.value for piece in self._pieces if piece.name == name]
        return values[-1] if values else None

    def set(self, name: str, value: str) -> None:
        """Give ``name`` this value: in place where it is (the last, if there are several), else in a new last line."""
        if not _NAME.match(name):
            raise DotenvError("%r is no name of an environment variable" % name)
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
        """Take out every entry of this name."""
        self._drop(lambda piece: piece.name == name)

    # COMPOSE_FILE

    def add_compose_files(self, add: list[str], project_dir: str, exists: Exists = os.path.exists) -> None:
        """Have compose load these files too, after all that it loads now; every path in COMPOSE_FILE becomes absolute.

        The former entry, or that there was none, is kept in a comment above, so that :meth:`remove_compose_files` can
        bring it back. Raises :class:`DotenvError` where compose would find no file of its own.
        """
        former = self._former_files(project_dir, exists)
        files = former + [path for path in (_absolute(path, project_dir) for path in add) if path not in former]
        if self.get("COMPOSE_FILE") == self._separator().join(files):
            return
        if any(self._separator() in path for path in files):
            raise DotenvError(
                "a path with %r in it cannot stand in COMPOSE_FILE; set COMPOSE_PATH_SEPARATOR to another character"
                % self._separator()
            )
        entries = [index for index, piece in enumerate(self._pieces) if piece.name == "COMPOSE_FILE"]
        if not self._kept():
            if entries:
                old = self._pieces[entries[-1]]
                newline = "\r\n" if old.text.endswith("\r\n") else "\n"
                if "\n" in old.text.rstrip("\r\n"):
                    raise DotenvError("COMPOSE_FILE goes over several lines; put it on one")
                self._pieces.insert(entries[-1], _Piece(KEPT + old.text.rstrip("\r\n") + newline))
            else:
                self._append(NOT_SET)
        self.set("COMPOSE_FILE", self._separator().join(files))

    def remove_compose_files(self, remove: list[str], project_dir: str, exists: Exists = os.path.exists) -> bool:
        """Undo :meth:`add_compose_files`. True if COMPOSE_FILE was changed since: then only these files go from it."""
        value = self.get("COMPOSE_FILE")
        kept = self._kept()
        ours = {_absolute(path, project_dir) for path in remove}
        if value is None:
            self._drop(lambda piece: piece.text.startswith(KEPT))
            return bool(kept)
        files = [path for path in value.split(self._separator()) if path]
        left = [path for path in files if _absolute(path, project_dir) not in ours]
        if not kept:
            if len(left) != len(files):
                self._set_or_remove(left)
            return False
        before = None
        if kept != NOT_SET:
            before = Dotenv(kept[len(KEPT) :])
        former = before.get("COMPOSE_FILE") if before else ""
        expected = _files_of(former, self._separator(), project_dir) if former else default_files(project_dir, exists)
        edited = left != expected
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
                raise DotenvError("COMPOSE_FILE holds a variable, which cannot be made an absolute path; write it out")
            return _files_of(value, self._separator(), project_dir)
        files = default_files(project_dir, exists)
        if not files:
            raise DotenvError(
                "%s holds none of %s, and COMPOSE_FILE is not set: is this the compose directory?"
                % (project_dir, ", ".join(BASE_FILES))
            )
        return files

    def _separator(self) -> str:
        return self.get("COMPOSE_PATH_SEPARATOR") or ":"

    def _kept(self) -> str:
        found = [piece.text.rstrip("\r\n") for piece in self._pieces if piece.text.startswith(KEPT)]
        return found[-1] if found else ""

    def _append(self, line: str) -> None:
        text = self.text
        newline = "\r\n" if "\r\n" in text else "\n"
        if text and not text.endswith("\n"):
            last = self._pieces[-1]
            self._pieces[-1] = _Piece(last.text + newline, last.name, last.value, last.head, last.tail + newline)
            self._pieces.extend(_read(line))
        else:
            self._pieces.extend(_read(line + newline))

    def _drop(self, goes: Callable[[_Piece], bool]) -> None:
        """Without these pieces. If the last line had no line break, the new last one has none either."""
        open_end = bool(self._pieces) and not self._pieces[-1].text.endswith("\n")
        dropped_last = bool(self._pieces) and goes(self._pieces[-1])
        self._pieces = [piece for piece in self._pieces if not goes(piece)]
        if open_end and dropped_last and self._pieces:
            last = self._pieces[-1]
            text = re.sub(r"\r?\n$", "", last.text)
            self._pieces[-1] = _Piece(text, last.name, last.value, last.head, re.sub(r"\r?\n$", "", last.tail))


def _line_end(text: str) -> str:
    return text[len(text.rstrip("\r\n")) :]


def default_files(project_dir: str, exists: Exists = os.path.exists) -> list[str]:
    """What compose loads in this directory when nobody names a file: the first base file, the first override."""
    base = [os.path.join(project_dir, name) for name in BASE_FILES if exists(os.path.join(project_dir, name))][:1]
    override = [os.path.join(project_dir, name) for name in OVERRIDE_FILES if exists(os.path.join(project_dir, name))][
        :1
    ]
    return base + override if base else []


def quote(value: str) -> str:
    """The value as it stands in the file: bare where that is safe, else in single quotes, else in double quotes."""
    if _BARE.match(value):
        return value
    if value.endswith("\\"):
        raise DotenvError("a value that ends in a backslash is not read alike by all releases of compose")
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
    pieces, at = [], 0
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
                raise DotenvError("line %d: the value of %s is in quotes that do not end" % (line, match["name"]))
            if stop > end:
                end = text.find("\n", stop)
                end = len(text) if end < 0 else end + 1
            pieces.append(_Piece(text[at:end], match["name"], value, text[at : match.end()], text[stop:end]))
        at = end
    return pieces


def _value(text: str, at: int, end: int) -> tuple[str, int]:
    """``(value, offset behind it)``; the offset is -1 where a quote does not end: compose refuses that too."""
    if text.startswith("'", at):
        match = re.compile(r"'(.*?)(?<!\\)'", re.DOTALL).match(text, at)
        return (match[1], match.end()) if match else ("", -1)
    if text.startswith('"', at):
        match = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(text, at)
        if match is None:
            return "", -1
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), match[1], flags=re.DOTALL), match.end()
    bare = re.compile(r"(.*?)(?=[ \t]+#|[ \t]*\r?\n|[ \t]*$)", re.DOTALL).match(text, at, end)
    assert bare is not None  # the pattern matches the empty text too
    return bare[1], bare.end(1)

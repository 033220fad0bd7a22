"""Reader of the operator's YAML files. It stores the line of each value, so that an error can name the line."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from openclaw_egress.errors import EgressError

MAX_FILE_BYTES = 1_000_000
MAX_ENTRIES = 50_000
"""Maximum number of entries in a list, because aliases can make a small YAML file expand to a large one."""


class FileError(EgressError):
    """An error in a file that the operator wrote.

    Its text is ``file:line: problem; remedy``. ``line`` starts at 1; it is None if the line is unknown.
    """

    def __init__(self, file: str, line: int | None, problem: str, remedy: str) -> None:
        self.file, self.line, self.problem, self.remedy = file, line, problem, remedy
        super().__init__(f"{file}:{line}: {problem}; {remedy}" if line else f"{file}: {problem}; {remedy}")


@dataclass(frozen=True, slots=True)
class Node:
    """A value in a YAML file, with its line. Each kind of file has a subclass with its own exception, ``error``."""

    error: ClassVar[type[FileError]] = FileError

    value: Any
    file: str
    line: int
    where: str

    @classmethod
    def document(cls, data: bytes, file: str, start: str, shrink: str) -> Self:
        """Return the whole file as a node.

        Args:
            data: the file's bytes, YAML 1.2 in UTF-8, at most 1 MB.
            file: the file's name in error messages.
            start: the remedy for an empty file.
            shrink: the remedy for a file that is too large.
        """
        return cls(_parse(data, file, cls.error, start, shrink), file, 1, "")

    def fail(self, problem: str, remedy: str) -> NoReturn:
        """Raise an exception of the class ``error`` that contains the file, the line and the keys of this value."""
        raise self.error(self.file, self.line, f"{self.where}: {problem}" if self.where else problem, remedy)

    def wrong_type(self, wanted: str) -> NoReturn:
        """Raise the exception for a value of the wrong type. ``wanted`` describes the expected type."""
        kinds = {
            bool: "true or false",
            int: "a number",
            float: "a fraction",
            str: "a string",
            dict: "a mapping",
            list: "a list",
        }
        is_ = next((text for kind, text in kinds.items() if isinstance(self.value, kind)), "something else")
        self.fail(f"the value is {'empty' if self.value is None else is_}", f"write {wanted}")

    def _child(self, value: Any, at: Any, where: str) -> Self:
        line = self.value.lc.data.get(at) if self.value.lc.data else None
        return type(self)(value, self.file, line[0] + 1 if line else self.line, where)

    def mapping(self, keys: Sequence[str] | None = None, example: str = "key: value") -> dict[str, Self]:
        """Return the entries of the value, which must be a mapping. If ``keys`` is given, refuse any other key."""
        if not isinstance(self.value, dict):
            self.wrong_type(f"a mapping, as in `{example}`")
        entries = {}
        for key, value in self.value.items():
            child = self._child(value, key, f"{self.where}.{key}".lstrip("."))
            if not isinstance(key, str):
                child.fail(f"the key {key!r} is not a string", "put it in quotes")
            if keys is not None and key not in keys:
                near = difflib.get_close_matches(key, keys, n=1)
                type(self)(None, self.file, child.line, self.where).fail(
                    f"unknown key '{key}'", f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(keys)}"
                )
            entries[key] = child
        return entries

    def required(self, entries: dict[str, Self], key: str, remedy: str) -> Self:
        """Return the entry for ``key``. Raise an error with ``remedy`` if it is missing."""
        if key not in entries:
            self.fail(f"'{key}' is missing", remedy)
        return entries[key]

    def items(self, example: str) -> list[Self]:
        """Return the entries of the value, which must be a list."""
        if not isinstance(self.value, list):
            self.wrong_type(f"a list, as in `{example}`")
        if len(self.value) > MAX_ENTRIES:
            self.fail(f"there are more than {MAX_ENTRIES} entries", "use wildcards, and fewer aliases")
        return [self._child(value, at, f"{self.where}[{at}]") for at, value in enumerate(self.value)]

    def text(self, example: str) -> str:
        """Return the value, which must be a string."""
        if not isinstance(self.value, str):
            self.wrong_type(f"a string, as in `{example}`")
        return str(self.value)

    def choice[T: str](self, known: Sequence[T], what: str, example: str) -> T:
        """Return the value, which must be one of ``known``. ``what`` describes a valid value in the error message."""
        chosen = self.text(example)
        for one in known:
            if one == chosen:
                return one
        near = difflib.get_close_matches(chosen, known, n=1)
        return self.fail(
            f"'{chosen}' is not {what}", f"did you mean '{near[0]}'?" if near else f"write one of {', '.join(known)}"
        )

    def integer(self, example: str) -> int:
        """Return the value, which must be an integer."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.wrong_type(f"a whole number, as in `{example}`")
        return int(self.value)

    def number(self, example: str) -> float:
        """Return the value, which must be a number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.wrong_type(f"a number, as in `{example}`")
        return float(self.value)

    def boolean(self) -> bool:
        """Return the value, which must be a boolean."""
        if self.value is not True and self.value is not False:
            self.wrong_type("true or false")
        return bool(self.value)


def read_file(path: Path, failure: type[FileError], what: str, remedy: str) -> bytes:
    """Read at most one byte more than `MAX_FILE_BYTES`, so that `Node.document` can detect a file that is too large.

    Raises:
        failure: the file cannot be read. In the message, ``what`` describes the file, and ``remedy`` says what to do.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise failure(str(path), None, f"{what} cannot be read ({error.strerror})", remedy) from None


def _parse(data: bytes, file: str, failure: type[FileError], start: str, shrink: str) -> Any:
    if len(data) > MAX_FILE_BYTES:
        raise failure(file, None, f"the file is larger than {MAX_FILE_BYTES} bytes", shrink)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise failure(file, line, f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Do not warn about a reused anchor, because it may be intended.
            document = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"{error.problem or error.context}"
        raise failure(file, mark.line + 1 if mark else None, *_explain(problem, error.context or "")) from None
    except Exception as error:  # noqa: BLE001  (invalid input can make the parser raise any exception)
        position = getattr(error, "position", None)
        found = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        what = "nested too deeply" if isinstance(error, RecursionError) else type(error).__name__
        remedy = "use only mappings, lists and plain values, without control characters"
        raise failure(file, found, f"the file is not readable YAML ({what})", remedy) from None
    if document is None:
        raise failure(file, 1, "the file is empty", start)
    return document


def _explain(problem: str, context: str) -> tuple[str, str]:
    """Return the problem and the remedy for an error of the YAML parser. Explain common mistakes in plain words."""
    if duplicate := re.match(r'found duplicate key "([^"]*)"', problem):
        return f"key '{duplicate[1]}' appears twice", "keep one of them"
    if "\\t" in problem:
        return "there is a tab at the start of a line", "indent with spaces"
    if "alias" in problem + context:
        return (
            "a * without quotes is an alias in YAML",
            'put names that begin with * in quotes, as in "*.example.com"',
        )
    return f"the file is not valid YAML ({problem})", "check indentation, colons, brackets and quotes up to here"

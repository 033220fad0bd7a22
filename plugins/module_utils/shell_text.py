# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Parser for shell scripts. It finds the commands of a script and their lines.

The parser expands nothing. It recognizes quotes, comments, here-documents, command substitutions and line
continuations. It therefore does not mistake the words ``docker build`` in a comment or message for a command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_OPERATORS = (
    ";;&",
    "&&",
    "||",
    ";;",
    ";&",
    "|&",
    "&>>",
    "&>",
    "<<<",
    "<<-",
    "<<",
    ">>",
    ">&",
    "<&",
    ">|",
    "<>",
) + tuple("|&;()<>")
_REDIRECTIONS = ("&>>", "&>", "<<<", "<<-", "<<", ">>", ">&", "<&", ">|", "<>", "<", ">")
_OPENERS = {"if": "fi", "for": "done", "while": "done", "until": "done", "select": "done", "case": "esac", "{": "}"}
_RESERVED = {"then", "else", "elif", "do", "!", "time", "fi", "done", "esac", "}"} | set(_OPENERS)


class ShellTextError(ValueError):
    """Error for an unclosed quote or here-document. ``line`` (1-based) is the line where it begins."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Word:
    """Word of a command. ``raw`` is its text, ``value`` the text without quotes, and ``line`` is 1-based."""

    raw: str
    value: str
    line: int

    @property
    def quoted(self) -> bool:
        return self.raw != self.value


@dataclass
class Command:
    """Simple command of a shell script, without its redirections."""

    words: list[Word] = field(default_factory=list)

    @property
    def line(self) -> int:
        return self.words[0].line


@dataclass
class Script:
    """Commands of a script in the order in which the text contains them."""

    commands: list[Any] = field(default_factory=list)


def parse(text: str, first_line: int = 1) -> Script:
    """Parse ``text``, whose first line has the number ``first_line``. Raise :class:`ShellTextError`."""
    return _Reader(text, first_line).run()


class _Reader:
    def __init__(self, text: str, first_line: int) -> None:
        self.text = text
        self.at = 0
        self.line = first_line
        self.script = Script()
        self.command = Command()
        self.stack: list[Any] = []
        self.here: list[Any] = []  # Open here-documents: (delimiter, whether to strip tabs, line).

    def run(self) -> Script:
        while self.at < len(self.text):
            self._step()
        self._end_command()
        if self.here:
            raise ShellTextError("the here-document <<%s does not end" % self.here[0][0], self.here[0][2])
        return self.script

    def _step(self) -> None:
        char = self.text[self.at]
        if char == "\n":
            self._newline()
        elif char in " \t\r":
            self.at += 1
        elif self.text.startswith("\\\n", self.at) or self.text.startswith("\\\r\n", self.at):
            self.at = self.text.index("\n", self.at) + 1
            self.line += 1
        elif char == "#":
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
        elif self.text.startswith(("<(", ">("), self.at):
            self._word()
        else:
            operator = next((op for op in _OPERATORS if self.text.startswith(op, self.at)), None)
            if operator is None:
                self._word()
            else:
                self.at += len(operator)
                self._operator(operator)

    def _newline(self) -> None:
        self._end_command()
        self.at += 1
        self.line += 1
        for delimiter, strip, began in self.here:
            self._skip_here(delimiter, strip, began)
        self.here = []

    def _skip_here(self, delimiter: str, strip: bool, began: int) -> None:
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end
            content = self.text[self.at : end].rstrip("\r")
            self.at = min(end + 1, len(self.text))
            self.line += 1
            if (content.lstrip("\t") if strip else content) == delimiter:
                return
        raise ShellTextError("the here-document <<%s does not end" % delimiter, began)

    def _operator(self, operator: str) -> None:
        if operator in _REDIRECTIONS:
            self._redirection(operator)
            return
        words = self.command.words
        if operator == "(" and len(words) == 1 and self._rest_is_function():
            self.command = Command()
            return
        self._end_command()
        if operator == "(":
            self.stack.append(")")
        elif operator == ")" and self.stack and self.stack[-1] == ")":
            self.stack.pop()

    def _rest_is_function(self) -> bool:
        match = re.compile(r"[ \t]*\)").match(self.text, self.at)
        if match:
            self.at = match.end()
        return bool(match)

    def _redirection(self, operator: str) -> None:
        if self.command.words and re.match(r"\d+$", self.command.words[-1].raw):
            self.command.words.pop()
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1
        if self.at >= len(self.text) or self.text[self.at] in "\n;":
            return
        target = self._read_word()
        if operator in ("<<", "<<-"):
            self.here.append((target.value, operator == "<<-", target.line))

    def _word(self) -> None:
        word = self._read_word()
        words = self.command.words
        if not words and word.raw in _RESERVED and self._keyword(word.raw):
            return
        if len(words) == 1 and words[0].raw == "function":
            self.command = Command()
            match = re.compile(r"[ \t]*\([ \t]*\)").match(self.text, self.at)
            self.at = match.end() if match else self.at
            return
        words.append(word)

    def _keyword(self, word: str) -> bool:
        if word in _OPENERS:
            if self.stack and self.stack[-1] == "pattern":
                return False
            self.stack.append(_OPENERS[word])
            # Skip the words of `for x in a b` and `case $x in`, which are not a command.
            if word in ("for", "select", "case"):
                self.command.words.append(Word(word, word, self.line))
        elif self.stack and self.stack[-1] == word:
            self.stack.pop()
        return True

    def _end_command(self) -> None:
        command, self.command = self.command, Command()
        if not command.words or command.words[0].raw in ("for", "select", "case"):
            return
        self.script.commands.append(command)

    def _read_word(self) -> Word:
        start, line, value = self.at, self.line, []
        while self.at < len(self.text):
            char = self.text[self.at]
            two = self.text[self.at : self.at + 2]
            if two == "\\\n":
                self.at += 2
                self.line += 1
            elif char == "\\":
                value.append(self.text[self.at + 1 : self.at + 2])
                self.at += 2
            elif char == "'" or two == "$'":
                value.append(self._single(two == "$'"))
            elif char == '"' or two == '$"':
                self.at += len(two) - 1 if two == '$"' else 0
                value.append(self._double())
            elif two in ("$(", "${", "<(", ">(") or char == "`":
                value.append(self._substitution(two if char != "`" else "`"))
            elif char in " \t\r\n;|&()<>":
                break
            else:
                value.append(char)
                self.at += 1
        return Word(self.text[start : self.at], "".join(value), line)

    def _single(self, ansi: bool) -> str:
        began = self.line
        start = self.at + (2 if ansi else 1)
        match = re.compile(r"(?:[^'\\]|\\.)*'" if ansi else r"[^']*'", re.DOTALL).match(self.text, start)
        if match is None:
            raise ShellTextError("a single quote is not closed", began)
        self.at = match.end()
        self.line += match.group().count("\n")
        return match.group()[:-1]

    def _double(self) -> str:
        began = self.line
        value: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            two = self.text[self.at : self.at + 2]
            if char == '"':
                self.at += 1
                return "".join(value)
            if char == "\\":
                value.append("" if two == "\\\n" else two)
                self.line += two.count("\n")
                self.at += 2
            elif two in ("$(", "${") or char == "`":
                value.append(self._substitution(two if char != "`" else "`"))
            else:
                self.line += char == "\n"
                value.append(char)
                self.at += 1
        raise ShellTextError("a double quote is not closed", began)

    def _substitution(self, opener: str) -> str:
        """Return ``$(…)``, ``<(…)``, ``${…}`` or backticks as written, and parse the commands in it."""
        start, began = self.at, self.line
        self.at += len(opener)
        if opener == "`":
            match = re.compile(r"(?:[^`\\]|\\.)*`", re.DOTALL).match(self.text, self.at)
            if match is None:
                raise ShellTextError("a backtick is not closed", began)
            self.at = match.end()
        else:
            self._to_closing(")" if opener.endswith("(") else "}", began)
        raw = self.text[start : self.at]
        self.line = began + raw.count("\n")
        if opener != "${" and not raw.startswith("$(("):
            inner = parse(raw[len(opener) : -1], began)
            self.script.commands.extend(inner.commands)
        return raw

    def _to_closing(self, closing: str, began: int) -> None:
        opening, depth = {")": "(", "}": "{"}[closing], 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "'":
                self._single(False)
                continue
            if char == '"':
                self._double()
                continue
            if char == "\\":
                self.at += 1
            elif char == "#" and closing == ")" and self.text[self.at - 1] in " \t\n":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
                continue
            elif char == opening:
                depth += 1
            elif char == closing:
                depth -= 1
                if not depth:
                    self.at += 1
                    return
            self.at += 1
        raise ShellTextError("a substitution is not closed", began)

# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Edit of a build script for ``build_patch``: text in, text out; every other line keeps its bytes.

One block between two marks stands before the top-level statement that runs (or contains) ``docker build``. The first
mark holds a digest of the block's body, which distinguishes a block of an older release from an edited one.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.openclaw.egress.plugins.module_utils import build_block, shell_text

_BEGIN = re.compile(r"^#.{0,12}? openclaw\.egress: begin ([0-9a-f]{12})\b.*$", re.MULTILINE)
_END = re.compile(r"^#.{0,12}? openclaw\.egress: end\b.*$", re.MULTILINE)
_HEADING = re.compile(r"^# ?(([^\w\s#])\2+) \S.*$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)(?:(?::?[-=])([^}]*))?\}?$")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=(.*)$", re.DOTALL)
_BUILD_TEXT = re.compile(r"\bdocker(\s+-\S+)*\s+(buildx\s+|image\s+|builder\s+)?build\b")
# Programs that run their remaining arguments as a command; wrapped as `docker` itself is.
_RUNNERS = {
    "sudo",
    "timeout",
    "nice",
    "ionice",
    "nohup",
    "env",
    "stdbuf",
    "chronic",
    "unbuffer",
    "setsid",
    "systemd-run",
}
_MESSAGES = {"echo", "printf", "log", "info", "warn", "warning", "error", "die", "say", "msg", "note", ":", "print"}
_DECLARE = {"declare", "local", "export", "readonly", "typeset"}
_OTHER_SHELL = {"bash", "sh", "dash", "su", "runuser", "ssh", "script", "watch", "flock"}


class BuildScriptError(ValueError):
    """Reason why a script is not patched, for the operator: problem, line and remedy."""


@dataclass
class Anchors:
    """Lines of the script that matter here, 1-based, in the text without our block."""

    docker_build: list[Any] = field(default_factory=list)
    restore: list[Any] = field(default_factory=list)
    inserted_at: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {"docker_build": self.docker_build, "restore": self.restore, "inserted_at": self.inserted_at}


@dataclass
class _Block:
    start: int
    end: int
    text: str
    digest: str
    line: int

    @property
    def edited(self) -> bool:
        return _digest(_body_of(self.text)) != self.digest


class BuildScriptPatch:
    """Text of one build script.

    ``bootstrap_src`` and ``context_dir`` are paths on the host that runs the script; ``skip_dockerfiles`` are shell
    patterns for the names of Dockerfiles whose builds stay as they are. Methods return the new text. For text that they
    cannot handle they raise :class:`BuildScriptError`.
    """

    def __init__(
        self,
        text: str,
        bootstrap_src: str = "",
        context_dir: str = "",
        skip_dockerfiles: tuple[Any, ...] = ("*sandbox*",),
    ) -> None:
        self.text = text
        self.bootstrap_src = bootstrap_src
        self.context_dir = context_dir
        self.skip_dockerfiles = skip_dockerfiles
        self._block = _find_block(text)

    @property
    def found(self) -> str:
        """Return ``absent``, ``edited`` (the body differs from the digest in its mark) or ``patched``."""
        if self._block is None:
            return "absent"
        return "edited" if self._block.edited else "patched"

    def absent(self) -> str:
        """Return the text without our block: byte for byte the original, other edits kept."""
        if self._block is None:
            return self.text
        return self.text[: self._block.start] + self.text[self._block.end :]

    def present(self) -> tuple[Any, ...]:
        """Return ``(text, Anchors)`` with the block as this release writes it."""
        original = self.absent()
        script = _parse(original)
        anchors, wrapped, first = _find_anchors(original, script)
        lines = original.splitlines(True)
        at = _top_of_section(lines, first - 1)
        anchors.inserted_at = at + 1
        _refuse_conflicts(script, at + 1)
        return "".join(lines[:at]) + self._render(original, wrapped) + "".join(lines[at:]), anchors

    def _render(self, original: str, wrapped: list[Any]) -> str:
        skip = "|".join(_pattern(pattern) for pattern in self.skip_dockerfiles) or "''/"
        body = build_block.BODY
        for name, value in (
            ("@WRAPPERS@", "\n".join('%s() { openclaw_egress_run %s "$@"; }' % (word, word) for word in wrapped)),
            ("@BOOTSTRAP@", shlex.quote(self.bootstrap_src)),
            ("@CONTEXT@", shlex.quote(self.context_dir)),
            ("@SKIP@", skip),
            ("@MARK@", build_block.DOCKERFILE_MARK),
            ("@COPY@", build_block.DOCKERFILE_COPY),
        ):
            body = body.replace(name, value)
        rule, width = _heading_style(original)
        begin = "# %s openclaw.egress: begin %s " % (rule[:2], _digest(body))
        end = "# %s openclaw.egress: end " % rule[:2]
        return "%s\n%s%s\n\n" % (begin + rule[0] * (width - len(begin)), body, end + rule[0] * (width - len(end)))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _body_of(block: str) -> str:
    return "".join(block.replace("\r\n", "\n").rstrip("\n").splitlines(True)[1:-1])


def _pattern(pattern: str) -> str:
    """Return a ``case`` pattern in which only ``*``, ``?`` and ``[…]`` are special."""
    return "".join(char if char in "*?[]-._" or char.isalnum() else shlex.quote(char) for char in pattern)


def _heading_style(text: str) -> tuple[Any, ...]:
    headings = list(_HEADING.finditer(_END.sub("", _BEGIN.sub("", text))))
    if not headings:
        return "──", 78
    return headings[0].group(1), min(max([78] + [len(heading.group().rstrip()) for heading in headings]), 120)


def _find_block(text: str) -> _Block | None:
    begins, ends = list(_BEGIN.finditer(text)), list(_END.finditer(text))
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or ends[0].start() < begins[0].start():
        lines = sorted(text.count("\n", 0, mark.start()) + 1 for mark in begins + ends)
        raise BuildScriptError(
            "the marks 'openclaw.egress: begin' and 'openclaw.egress: end' do not make one pair (line %s). Take that "
            "section out by hand, marks included, or restore the script from your backup, and run again"
            % ", ".join(map(str, lines))
        )
    start, end = begins[0].start(), ends[0].end()
    # The end mark's line break, and the blank line that belongs to the block.
    for _line in range(2):
        match = re.compile(r"\r?\n").match(text, end)
        end = match.end() if match else end
    block = text[start:end]
    return _Block(start, end, block, begins[0].group(1), text.count("\n", 0, start) + 1)


def _parse(text: str) -> shell_text.Script:
    try:
        return shell_text.parse(text.replace("\r\n", " \n"))
    except shell_text.ShellTextError as error:
        raise BuildScriptError("line %d: %s. Check the script with `bash -n`" % (error.line, error))


def _find_anchors(text: str, script: shell_text.Script) -> tuple[Any, ...]:
    """Return ``(Anchors, words to wrap, line of the first statement that builds)``."""
    source = text.splitlines()
    anchors, wrapped, statements, unusable = Anchors(), ["docker"], [], []
    values = _assigned_values(script)
    for command in script.commands:
        words = command.words
        while words and _ASSIGNMENT.match(words[0].raw):
            if _BUILD_TEXT.search(words[0].value):
                _add(anchors.docker_build, command, source, "variable")
                statements.append(command.statement)
            words = words[1:]
        if not words:
            continue
        kind, problem = _classify(words, script, values)
        if problem:
            unusable.append("line %d: %s" % (words[0].line, problem))
        elif kind:
            _add(anchors.docker_build, command, source, "runner" if kind in _RUNNERS else kind)
            statements.append(command.statement)
            if kind in _RUNNERS and kind not in wrapped:
                wrapped.append(kind)
        restore = _restore_kind(words)
        if restore:
            _add(anchors.restore, command, source, restore)
    if unusable:
        raise BuildScriptError("; ".join(unusable))
    if not statements:
        raise BuildScriptError(_nothing_found(source))
    return anchors, wrapped, min(statements)


def _add(found: list[Any], command: shell_text.Command, source: list[Any], kind: str) -> None:
    entry = {"line": command.line, "kind": kind, "text": source[command.line - 1].strip()}
    if entry not in found:
        found.append(entry)


def _classify(words: list[Any], script: shell_text.Script, values: dict[str, Any]) -> tuple[Any, ...]:
    """Return ``(kind, problem)``: how this command builds an image, or why it cannot be followed; else two None."""
    name, rest = words[0].value, words[1:]
    whole = " ".join(word.value for word in words)
    variable = _VARIABLE.match(name)
    if variable and _is_build(rest):
        problem = _problem_of_variable(variable.group(1), variable.group(2), values)
        return (None, problem) if problem else ("variable", None)
    if name == "docker" and _is_build(rest):
        return "direct", None
    if name.endswith(("/docker", "/docker.exe")) and _is_build(rest):
        return None, "%s is called by its path; write `docker build`, so that the patch can stand in front of it" % name
    if name in ("podman", "nerdctl", "buildah") and rest and rest[0].value in ("build", "bud"):
        return None, "%s builds the image; the patch knows docker only" % name
    if (name == "docker" and rest and rest[0].value == "compose" and "build" in whole) or (
        name == "docker-compose" and "build" in whole
    ):
        return (
            None,
            "`docker compose build` names no context here; write `docker build` for the gateway's image",
        )
    if not _BUILD_TEXT.search(whole) or name in _MESSAGES:
        return None, None
    if name in _DECLARE or name in ("eval", "trap"):
        return "variable", None
    runs_it = any(word.value == "docker" and _is_build(words[i + 1 :]) for i, word in enumerate(words))
    if name in _OTHER_SHELL or (runs_it and name not in _RUNNERS and name not in script.functions):
        return (
            None,
            "docker build is run by `%s`, where the patch cannot stand in front of it; call `docker build` itself"
            % name,
        )
    if runs_it:
        return (name, None) if name in _RUNNERS else ("function", None)
    return None, None


def _is_build(words: list[Any]) -> bool:
    values = [word.value for word in words]
    while values and values[0].startswith("-"):
        values = values[1:] if "=" in values[0] or values[0] in ("-D", "--debug") else values[2:]
    if values and values[0] in ("buildx", "image", "builder"):
        values = values[1:]
    return bool(values) and values[0] == "build"


def _assigned_values(script: shell_text.Script) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for command in script.commands:
        for word in command.words:
            match = _ASSIGNMENT.match(word.value)
            if match:
                values.setdefault(match.group(1), []).append((match.group(2), word.line))
    return values


def _problem_of_variable(name: str, default: str, values: dict[str, Any]) -> str | None:
    for value, line in values.get(name, []) + ([(default, 0)] if default else []):
        inline = _VARIABLE.match(value)
        program = (inline.group(2) if inline and inline.group(2) else value).strip("\"'")
        if "/" in program or "command -v" in program or "which" in program or "type -P" in program:
            where = "line %d" % line if line else "its default"
            return "$%s gets docker's path (%s: %s); set it to the plain word docker" % (name, where, value)
        if program in ("podman", "nerdctl", "buildah"):
            return "$%s is %s; the patch knows docker only" % (name, program)
    return None


def _restore_kind(words: list[shell_text.Word]) -> str | None:
    values = [word.value for word in words]
    if values[0] == "trap" and re.search(r"\bgit\b.*\b(checkout|restore|stash|reset)\b", " ".join(values)):
        return "trap"
    if values[0] != "git":
        return None
    arguments = values[1:]
    while len(arguments) > 1 and arguments[0] in ("-C", "-c"):
        arguments = arguments[2:]
    if arguments and arguments[0] in ("checkout", "restore", "stash", "reset", "switch"):
        return "git " + arguments[0]
    return None


def _top_of_section(lines: list[Any], at: int) -> int:
    """Move up over the comments before the statement, but never over the script's first line."""
    while at > 0 and lines[at - 1].startswith("#") and not lines[at - 1].startswith("#!"):
        at -= 1
    return at


def _refuse_conflicts(script: shell_text.Script, inserted_at: int) -> None:
    if "docker" in script.functions:
        raise BuildScriptError(
            "the script defines a function named docker, which the patch would replace; give it another name"
        )
    for command in script.commands:
        values = [word.value for word in command.words]
        if values[0] == "alias" and any(value.startswith("docker=") for value in values):
            raise BuildScriptError("line %d: the script makes an alias named docker; call docker itself" % command.line)
        probes = any("command -v docker" in values[i + 1] for i, value in enumerate(values[:-1]) if value == "-x")
        if probes and command.line >= inserted_at:
            raise BuildScriptError(
                "line %d: a test of `-x` on `command -v docker` fails once docker is wrapped; "
                "write `command -v docker >/dev/null`" % command.line
            )


def _nothing_found(source: list[Any]) -> str:
    mentions = [str(number) for number, line in enumerate(source, 1) if "docker" in line]
    looked = "line%s %s" % ("s" if len(mentions) > 1 else "", ", ".join(mentions[:10])) if mentions else "no line"
    return (
        "anchor `docker build` not found: none of the script's %d lines runs it (docker is named on %s, in comments, "
        "messages or other commands). Check that this is the script that builds the gateway's image, or have it call "
        "`docker build` itself" % (len(source), looked)
    )

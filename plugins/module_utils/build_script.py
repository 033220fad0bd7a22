# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Functions that insert or remove our block in a build script, for ``build_patch``. They take and return text.

The block is between two marks near the top of the script, after the first comments and the ``set`` lines. It wraps
docker (``build_block``), so it need not be near the build command. The first mark contains a digest of the block's
body. This distinguishes a block that somebody edited from a block of an older release. All other bytes stay unmodified.
"""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import json
import os
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.openclaw.egress.plugins.module_utils import build_block, build_wrapper, shell_text

_BEGIN = re.compile(r"^#.{0,12}? openclaw\.egress: begin ([0-9a-f]{12})\b.*$", re.MULTILINE)
_END = re.compile(r"^#.{0,12}? openclaw\.egress: end\b.*$", re.MULTILINE)
_HEADING = re.compile(r"^# ?(([^\w\s#])\2+) \S.*$", re.MULTILINE)
_HEAD_LINE = re.compile(r"\s*(#.*|(set|shopt)\s+[-+\w][^;&|\\`$(]*)?\s*$")
_VARIABLE = re.compile(r"[\"']?\$\{?([A-Za-z_]\w*)(?:\[[@*]\])?(?:(?::?[-=])([^}]*))?\}?[\"']?$")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=(.*)$", re.DOTALL)
_DOCKER = r"(?:\bdocker(?:\s+-\S+)*|\$\{?\w*(?:DOCKER|COMPOSE|ENGINE)\w*\}?)"
_BUILD_TEXT = re.compile(
    _DOCKER + r"[\"']?\s+(?:(?:buildx|image|builder)\s+)?(?:build|bake)(?![\w-])"
    r"|\bdocker[\s-]compose\b[^;&|\n]*\s(?:--)?build(?![\w-])",
    re.IGNORECASE,
)
_PATH_OF_DOCKER = re.compile(
    r"(?:command -v|type -[pP]|which)\s+[\"']?docker[\"']?\s*(?:2>\s*/dev/null\s*)?"
    r"(?:\|\|[^)`]*)?[)`]"
)
_ABSOLUTE = re.compile(r"(?<![\w.$}/~-])(/[\w./-]*bin/docker(?:-compose)?)(?![\w./-])")
_SETS_PATH = re.compile(r"\s*(?:export\s+)?PATH=(?![\"']?\$\{?PATH)")
_URL = re.compile(r"(?:https?|git|ssh)://|git@|github\.com/")
_MESSAGES = {"echo", "printf", "log", "info", "warn", "warning", "error", "die", "say", "msg", "note", ":", "print"}
# Programs whose arguments may mention a build without running it: they print, store or search text.
_MESSAGES |= {"fail", "usage", "log_info", "log_error", "grep", "sed", "awk", "read", "git", "gh", "curl", "logger"}
_MESSAGES |= {"tee", "test", "[", "[[", "cat", "mail", "notify-send", "docker", "docker-compose", "apt-get", "apt"}
_DOCKER_NAMES = {"docker", "docker-compose"}
_ELSEWHERE = {"ssh", "su", "runuser", "pkexec", "machinectl", "nsenter", "chroot", "vagrant", "multipass"}
_OTHER_ENGINES = {"podman", "nerdctl", "buildah", "kaniko", "img"}
_SHELLS = {"sh", "bash", "dash", "ash", "ksh", "zsh"}
_MAKERS = {"make": "build|docker|image", "just": "build|docker|image", "task": "build|docker|image"}
_MAKERS.update(dict.fromkeys(("npm", "pnpm", "yarn", "bun"), "docker|image"))
OR_MOUNT = "or use the bootstrap as a mount (openclaw_gateway_bootstrap: mount)"


class BuildScriptError(ValueError):
    """Error for a script that cannot be patched. Its text contains the problem, the line and the remedy."""


@dataclass
class Anchors:
    """Line numbers that the patch reports. They are 1-based and refer to the text without our block."""

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

    @property
    def edited(self) -> bool:
        return _digest(_body_of(self.text)) != self.digest


class BuildScriptPatch:
    """Text of one build script.

    ``bootstrap_src`` is the path of the bootstrap on the host that runs the script. ``skip_dockerfiles`` are shell
    patterns: a build whose Dockerfile matches one of them gets no bootstrap. ``image`` is the gateway's image; if it is
    empty, all other builds get the bootstrap. Methods return the new text. They raise :class:`BuildScriptError` for
    text that they cannot handle.
    """

    def __init__(
        self,
        text: str,
        bootstrap_src: str = "",
        skip_dockerfiles: tuple[Any, ...] = ("*sandbox*",),
        image: str = "",
    ) -> None:
        self.text = text
        self.settings = build_wrapper.Settings(bootstrap_src, image, list(skip_dockerfiles))
        self._block = _find_block(text)

    @property
    def found(self) -> str:
        """Return the state of our block: ``absent``, ``edited`` (its digest differs from the mark's) or ``patched``."""
        if self._block is None:
            return "absent"
        return "edited" if self._block.edited else "patched"

    def absent(self) -> str:
        """Return the text without our block. All other bytes stay unmodified."""
        if self._block is None:
            return self.text
        return self.text[: self._block.start] + self.text[self._block.end :]

    def present(self) -> tuple[Any, ...]:
        """Return the text with the block of this release, and the :class:`Anchors`."""
        original = self.absent()
        lines = original.splitlines(True)
        _refuse_other_languages(lines)
        anchors = _Search(original, self.settings).run()
        _refuse_conflict(lines)
        at = _place(lines)
        anchors.inserted_at = at + 1
        return "".join(lines[:at]) + self._render(original) + "".join(lines[at:]), anchors

    def _render(self, original: str) -> str:
        functions = [build_block.PATH_FUNCTION % (path, path) for path in sorted(set(_ABSOLUTE.findall(original)))]
        # Define no function `docker` if the script uses `command -v docker`, which would then print the function's name
        # instead of a path.
        names = [] if _PATH_OF_DOCKER.search(original) else ["docker"]
        names += [name for name in ("sudo", "doas") if re.search(r"\b%s\b" % name, original)]
        functions += [build_block.FUNCTION % (name, name) for name in names]
        body = build_block.BODY
        for name, value in (
            ("@SETTINGS@", shlex.quote(json.dumps(vars(self.settings)))),
            ("@FUNCTIONS@", "".join(functions)),
            ("@WRAPPER@", inspect.getsource(build_wrapper)),
        ):
            body = body.replace(name, value)
        body = body.replace("@KEY@", _digest(body))
        rule, width = _heading_style(original)
        begin = "# %s openclaw.egress: begin %s " % (rule[:2], _digest(body))
        end = "# %s openclaw.egress: end " % rule[:2]
        return "%s\n%s%s\n\n" % (begin + rule[0] * (width - len(begin)), body, end + rule[0] * (width - len(end)))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _body_of(block: str) -> str:
    return "".join(block.replace("\r\n", "\n").rstrip("\n").splitlines(True)[1:-1])


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
            "the marks 'openclaw.egress: begin' and 'openclaw.egress: end' do not form one pair (line %s). Delete that "
            "section and its marks by hand, or restore the script from your backup, and run again"
            % ", ".join(map(str, lines))
        )
    start, end = begins[0].start(), ends[0].end()
    # Skip the end mark's line break, and the blank line that belongs to the block.
    for _line in range(2):
        match = re.compile(r"\r?\n").match(text, end)
        end = match.end() if match else end
    return _Block(start, end, text[start:end], begins[0].group(1))


def _refuse_other_languages(lines: list[Any]) -> None:
    first = lines[0] if lines else ""
    if first.startswith("#!"):
        programs = [
            os.path.basename(word) for word in first[2:].split() if not word.startswith("-") and "=" not in word
        ]
        program = programs[1] if programs[:1] == ["env"] and len(programs) > 1 else "".join(programs[:1])
        if program not in _SHELLS:
            raise BuildScriptError(
                "line 1: %s is not a shell that the patch supports; call this program from a bash script, %s"
                % (program or "the interpreter", OR_MOUNT)
            )
    if lines and all(line.endswith("\r\n") for line in lines[:-1] or lines):
        raise BuildScriptError(
            "the script's lines end in CRLF, which no shell can run. Convert them to LF: sed -i 's/\\r$//' FILE"
        )


def _refuse_conflict(lines: list[Any]) -> None:
    """Refuse a script that both looks up docker's path and sets PATH.

    The script's PATH would hide the wrapper. A function `docker` would still be found, but `command -v docker` would
    then print its name instead of a path.
    """
    for number, line in enumerate(lines, 1):
        if _PATH_OF_DOCKER.search(line) and any(_SETS_PATH.match(other) for other in lines):
            raise BuildScriptError(
                "line %d: this line needs docker's path, and another line sets PATH, so the patch cannot precede "
                "docker in PATH; write `command -v docker >/dev/null` and call `docker`, %s" % (number, OR_MOUNT)
            )


def _place(lines: list[Any]) -> int:
    """Return the index of the line before which to insert the block.

    The block comes after the first comments and `set` lines, but before a comment that describes the next command.
    """
    at = 0
    while at < len(lines) - 1 and _HEAD_LINE.match(lines[at]):
        at += 1
    comment = at
    while comment > 0 and lines[comment - 1].lstrip().startswith("#"):
        comment -= 1
    return comment or at


class _Search:
    """Search for commands that build an image. The result decides whether to patch the script, but not where."""

    def __init__(self, text: str, settings: build_wrapper.Settings) -> None:
        self.settings = settings
        self.source = text.splitlines()
        self.anchors = Anchors()
        self.unusable: list[str] = []
        self.for_gateway: list[str] = []
        self.builds = 0
        self.programs: list[dict[str, Any]] = []
        self.posix = bool(re.match(r"#!\s*\S*/(?:env\s+)?(?:sh|dash|ash)\b", text))
        try:
            self.commands = shell_text.parse(text.replace("\r\n", " \n")).commands
        except shell_text.ShellTextError:
            self.commands = _plain_commands(self.source)  # build_patch reports the error.
        self.values = _assigned_values(self.commands)

    def run(self) -> Anchors:
        for command in self.commands:
            words = command.words
            while words and _ASSIGNMENT.match(words[0].raw):
                if _BUILD_TEXT.search(words[0].value) and "$(" not in words[0].value[:2]:
                    self._found(command, "variable")
                words = words[1:]
            if words:
                self._classify(command, words)
                restore = _restore_kind(words)
                if restore:
                    self._add(self.anchors.restore, command, restore)
        if self.for_gateway:
            raise BuildScriptError("; ".join(self.for_gateway))
        if not self.builds and self.programs and not self.unusable:
            self.anchors.docker_build = self.programs
        elif not self.builds:
            raise BuildScriptError("; ".join(self.unusable) if self.unusable else self._nothing_found())
        return self.anchors

    def _add(self, found: list[Any], command: shell_text.Command, kind: str) -> None:
        entry = {"line": command.line, "kind": kind, "text": self.source[command.line - 1].strip()}
        if entry not in found:
            found.append(entry)

    def _found(self, command: shell_text.Command, kind: str) -> None:
        self.builds += 1
        self._add(self.anchors.docker_build, command, kind)

    def _refuse(self, command: shell_text.Command, reason: str, tags: list[str] | None = None) -> None:
        message = "line %d: %s" % (command.line, reason)
        self.unusable.append(message)
        image = build_wrapper.normal(self.settings.image) if self.settings.image else ""
        if image and image in [build_wrapper.normal(tag) for tag in tags or []]:
            self.for_gateway.append(message)

    def _classify(self, command: shell_text.Command, words: list[Any]) -> None:
        values = [self._as_docker(word) for word in words]
        name = os.path.basename(values[0])
        whole = " ".join(word.value for word in words)
        if name in _OTHER_ENGINES and {"build", "bud"} & set(values[1:3]):
            self._refuse(
                command, "%s builds the image; the patch supports docker only. Build with docker, %s" % (name, OR_MOUNT)
            )
            return
        found = build_wrapper.find_build(values)
        if found and (name in _MESSAGES - _DOCKER_NAMES or not _builds(found, values)):
            found = None
        in_text = found is None and name not in _MESSAGES and _BUILD_TEXT.search(whole)
        if not found and not in_text:
            self._classify_program(command, words)
            return
        before = [os.path.basename(value) for value in values[: found[1]]] if found else [name]
        elsewhere = [program for program in before if program in _ELSEWHERE]
        if in_text and name in ("sudo", "doas"):
            elsewhere.append(name)
        if "env" in before and [value for value in values if value == "-i" or value.startswith("PATH=")]:
            elsewhere.append("env")
        if elsewhere:
            reason = "`%s` runs docker build where the patch has no effect; call `docker build` directly, %s"
            self._refuse(command, reason % (elsewhere[0], OR_MOUNT))
        elif found and "/" in values[found[1]] and self._escapes(values[found[1]], before):
            self._refuse(command, "%s is called by its path; write `docker`, %s" % (values[found[1]], OR_MOUNT))
        elif found and found[0] in ("build", "buildx"):
            self._classify_build(command, values, found, words[found[1]].value)
        else:
            self._found(command, "variable" if in_text else str(found and found[0]))

    def _escapes(self, program: str, before: list[str]) -> bool:
        """Return whether a call of docker by its path bypasses the wrapper.

        In bash, the block catches such a call with a function that has this path as its name. Other shells do not
        permit such a name, and programs that start docker, such as `env`, ignore functions.
        """
        return self.posix or not _ABSOLUTE.fullmatch(program) or bool(before and before[0] not in ("sudo", "doas"))

    def _classify_build(
        self, command: shell_text.Command, values: list[str], found: tuple[str, int, int], program: str
    ) -> None:
        try:
            read = build_wrapper.read_build(values, found[2])
        except build_wrapper.NotPatched:  # The arguments are variables: assume that the build context is ".".
            read = build_wrapper.Build("."), []
        if read is None:
            return
        build = read[0]
        if "-" in (build.context, build.file):
            reason = "the patch does not support a docker build from standard input; use a Dockerfile and a directory"
        elif _URL.match(build.context):
            reason = "the patch does not support a URL as build context; clone the repository and build the directory"
        else:
            reason = ""
        if reason:
            self._refuse(command, "%s, %s" % (reason, OR_MOUNT), build.tags)
        elif any(fnmatch.fnmatch(build.file, pattern) for pattern in self.settings.skip):
            reason = "the patch skips %s (skip_dockerfiles); set the script that builds the gateway's image, %s"
            self._refuse(command, reason % (build.file, OR_MOUNT))
        elif program.startswith("$"):
            self._found(command, "variable")
        else:
            self._found(command, "runner" if found[1] else "direct")

    def _as_docker(self, word: shell_text.Word) -> str:
        """Return the word's value or, for a variable such as `$DOCKER`, the engine's command that it stands for.

        Take that command from the values that the script assigns, otherwise infer it from the variable's name.
        """
        match = _VARIABLE.match(word.raw)
        if not match:
            return word.value
        values = self.values.get(match.group(1), []) + ([match.group(2)] if match.group(2) else [])
        values = [value.strip("\"'()") for value in values]
        for value in values:
            if _ABSOLUTE.fullmatch(value):
                return value
            if re.search(r"\bdocker[ -]compose\b", value):
                return "docker-compose"
            if re.search(r"\bdocker\b", value):
                return "docker"
        if values and all(os.path.basename(value) in _OTHER_ENGINES for value in values):
            return os.path.basename(values[0])
        if re.search(r"COMPOSE|^DC$", match.group(1), re.IGNORECASE):
            return "docker-compose"
        named = re.search(r"DOCKER|ENGINE|CONTAINER_(CMD|TOOL|RUNTIME)", match.group(1), re.IGNORECASE)
        return "docker" if named and not re.search(r"FILE|TAG|IMAGE|ARGS|OPTS", match.group(1)) else word.value

    def _classify_program(self, command: shell_text.Command, words: list[Any]) -> None:
        """Add a program or script to `programs` if its name or arguments suggest that it builds an image."""
        values = [word.value for word in words if not word.value.startswith("-")]
        name = os.path.basename(values[0]) if values else ""
        rest = " ".join(values[1:])
        if name in _MAKERS:
            builds = re.search(_MAKERS[name], rest) or (name == "make" and not rest)
        elif name in _SHELLS | {"source", "."} and len(values) > 1:
            builds = re.search("build|docker|image", os.path.basename(values[1]))
        else:
            builds = ("/" in values[0] if values else False) and re.search("build|docker|image", name)
        if builds:
            self._add(self.programs, command, "program")

    def _nothing_found(self) -> str:
        mentions = [str(number) for number, line in enumerate(self.source, 1) if "docker" in line]
        looked = "line%s %s" % ("s" if len(mentions) > 1 else "", ", ".join(mentions[:10])) if mentions else "no line"
        return (
            "anchor `docker build` not found: none of the script's %d lines runs it (docker is named on %s, in "
            "comments, messages or other commands). Set the script that builds the gateway's image, have it call "
            "`docker build`, %s" % (len(self.source), looked, OR_MOUNT)
        )


def _plain_commands(source: list[str]) -> list[Any]:
    """Return the commands of a script that the parser cannot read: treat each line as one command."""
    commands = []
    for number, line in enumerate(source, 1):
        words = [shell_text.Word(word, word.strip("\"'"), number) for word in line.split()]
        if words and not words[0].raw.startswith("#"):
            commands.append(shell_text.Command(words))
    return commands


def _builds(found: tuple[str, int, int], words: list[str]) -> bool:
    if found[0] != "compose":
        return True
    values = words[found[2] :]
    at = build_wrapper.after_options(values, 0, build_wrapper.COMPOSE_VALUES)
    verb = values[at] if at < len(values) else ""
    return verb == "build" or "--build" in values[at:]


def _assigned_values(commands: list[Any]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for number, command in enumerate(commands):
        for word in command.words:
            match = _ASSIGNMENT.match(word.value)
            if match:
                values.setdefault(match.group(1), []).append(match.group(2))
                # For an array, `NAME=(a b)`, the parser reads an empty value, and the elements as the next command.
                if word is command.words[-1] and not match.group(2) and number + 1 < len(commands):
                    values[match.group(1)].append(" ".join(item.value for item in commands[number + 1].words))
    return values


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

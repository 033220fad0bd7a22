# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Docker wrapper that adds the proxy bootstrap to builds of the gateway's image.

``build_patch`` embeds this file in the operator's build script. There it runs as a program with the host's own Python,
3.8 or later, and needs only the standard library: ``build_wrapper.py SETTINGS COMMAND [ARGUMENT…]``.

It copies the Dockerfile and ``proxy-bootstrap.cjs`` to a temporary directory, and adds a ``COPY`` line to the copied
Dockerfile. Then it runs the same command with ``--file`` and ``--build-context``. It writes nothing to the build
context. Commands that are not builds run unmodified.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

BOOTSTRAP = "proxy-bootstrap.cjs"
# Names of the build context that contains the bootstrap, and of the image that builders without named contexts use
# instead.
CONTEXT = "openclaw-egress"
IMAGE = "openclaw-egress-bootstrap"
COPY = "COPY --from=%s --chown=0:0 " + BOOTSTRAP + " ./" + BOOTSTRAP
# An earlier release temporarily added this line and a COPY line to the clone's Dockerfile. If a build was killed, they
# are still there.
EARLIER_MARK = "# openclaw.egress: proxy-bootstrap.cjs, here for the time of this build only"
WITHOUT = (
    "so the build runs without the bootstrap. Set openclaw_gateway_bootstrap to mount if it builds the gateway's image"
)

_DOCKER_VALUES = {"-c", "--context", "-H", "--host", "-l", "--log-level", "--config"}
_DOCKER_VALUES |= {"--tlscacert", "--tlscert", "--tlskey"}
_BUILD_FLAGS = {"no-cache", "pull", "rm", "force-rm", "quiet", "load", "push", "squash", "compress", "check", "debug"}
_BUILD_FLAGS |= {"disable-content-trust", "stream", "detach"}
_BUILD_LETTERS = {"f": "file", "t": "tag", "o": "output", "m": "memory", "c": "cpu-shares"}
# Options that select the compose project. The wrapper removes them, because it passes the resolved project instead.
_PROJECT = {"-f", "--file", "-p", "--project-name", "--project-directory", "--env-file", "--profile"}
COMPOSE_VALUES = _PROJECT | {"--ansi", "--progress", "--parallel", "--workdir"}
_COMPOSE_BUILD_VALUES = {"--build-arg", "--builder", "-m", "--memory", "--progress", "--ssh"}
_COMPOSE_UP_VALUES = {"--scale", "-t", "--timeout", "--exit-code-from", "--attach", "--no-attach", "--pull"}
_COMPOSE_UP_VALUES |= {"--wait-timeout"}
_BAKE_VALUES = {"-f", "--file", "--set", "--builder", "--metadata-file", "--progress", "--provenance", "--sbom"}
_BAKE_VALUES |= {"--allow", "--call", "--list"}


class NotPatched(Exception):
    """Error for a build that runs without the bootstrap.

    The text is the start of the warning that the wrapper prints. If the text is empty, the wrapper prints no warning.
    """


class Stopped(Exception):
    """Error for a build that must not run. The text is the reason."""


@dataclass
class Settings:
    """Settings of the patch: the bootstrap's path, the gateway's image, and patterns of Dockerfiles to skip."""

    bootstrap: str
    image: str = ""
    skip: list[str] = field(default_factory=list)


@dataclass
class Build:
    """An image build. ``inline`` is the text of an inline Dockerfile."""

    context: str
    file: str = ""
    target: str = ""
    tags: list[str] = field(default_factory=list)
    inline: str | None = None

    @property
    def dockerfile(self) -> str:
        """Return the path of the Dockerfile."""
        if self.file:
            return self.file
        path = os.path.join(self.context, "Dockerfile")
        lower = os.path.join(self.context, "dockerfile")
        return lower if not os.path.exists(path) and os.path.exists(lower) else path


def say(text: str) -> None:
    """Print one line to standard error."""
    print("openclaw.egress: " + text, file=sys.stderr, flush=True)


# Parsing of commands


def after_options(words: list[str], at: int, values: set[str]) -> int:
    """Skip the options that start at ``at``. Those in ``values`` take a value. Return the index of the next word."""
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        at += 2 if words[at] in values else 1
    return at


def find_build(words: list[str]) -> tuple[str, int, int] | None:
    """Find a build command. Return its kind, the index of `docker` and the index of the first argument, or None.

    Kinds are ``build``, ``buildx``, ``bake`` and ``compose``. For ``compose`` the second index is that of its first
    option. Other programs, such as sudo, may precede `docker`.
    """
    for index, word in enumerate(words):
        name = os.path.basename(word)
        if name == "docker-compose":
            return "compose", index, index + 1
        if name != "docker":
            continue
        at = after_options(words, index + 1, _DOCKER_VALUES)
        verb = words[at] if at < len(words) else ""
        if os.path.basename(verb) == "docker":  # `word` is a user name, as in `sudo -u docker docker build`.
            continue
        kind = {"build": "build", "bake": "bake", "compose": "compose"}.get(verb)
        if verb == "buildx":
            at = after_options(words, at + 1, {"--builder"})
            verb = words[at] if at < len(words) else ""
            kind = {"build": "buildx", "b": "buildx", "bake": "bake", "f": "bake"}.get(verb)
        elif verb in ("image", "builder") and words[at + 1 : at + 2] == ["build"]:
            at, kind = at + 1, "build"
        return (kind, index, at + 1) if kind else None
    return None


def read_build(words: list[str], at: int) -> tuple[Build, list[str]] | None:
    """Parse the arguments of a build, which begin at ``at``. Return the build and the arguments without ``--file``."""
    build, kept, contexts = Build(""), [], []
    while at < len(words):
        word, start = words[at], at
        at += 1
        if word == "--":
            contexts += words[at:]
            kept += words[start:]
            break
        if not word.startswith("-") or word == "-":
            contexts.append(word)
            kept.append(word)
            continue
        prefix = ""
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name in ("help", "check", "call", "print"):
                return None
            if name in _BUILD_FLAGS:
                kept.append(word)
                continue
        else:
            flags = re.match(r"-[qD]*", word).group()  # type: ignore[union-attr]
            letter, value = word[len(flags) : len(flags) + 1], word[len(flags) + 1 :].lstrip("=")
            name = _BUILD_LETTERS.get(letter, "")
            prefix, equals = (flags if flags != "-" else ""), value
            if word == flags:
                kept.append(word)
                continue
        if not equals:
            value = words[at] if at < len(words) else ""
            at += 1
        if name == "file":
            build.file = value
            kept += [prefix] if prefix else []
        else:
            kept += words[start:at]
        if name == "target":
            build.target = value
        if name == "tag":
            build.tags.append(value)
    if len(contexts) != 1:
        raise NotPatched("this release does not support the options of the build")
    build.context = contexts[0]
    return build, kept


# Decide whether a build is the gateway's, and change its Dockerfile


def normal(image: str) -> str:
    """Return an image's name for comparisons: with the tag ``latest`` if it has none, without Docker Hub's prefix."""
    image = re.sub(r"^(docker\.io/)?(library/)?", "", image)
    return image if ":" in image.rpartition("/")[2] or "@" in image else image + ":latest"


def read_dockerfile(build: Build) -> str:
    """Return the Dockerfile's text. Raise :class:`NotPatched` if docker reads it from standard input or a URL."""
    if build.inline is not None:
        return build.inline
    if build.context == "-" or build.file == "-":
        raise NotPatched("a build from standard input is not supported")
    if not os.path.isdir(build.context):
        url = re.match(r"[a-z]+://|git@|github\.com/", build.context)
        raise NotPatched("a URL as build context is not supported" if url else "")
    try:
        with open(build.dockerfile, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except OSError:
        raise NotPatched("") from None  # Print no warning: docker fails with a better message.


def is_gateway(build: Build, text: str, settings: Settings) -> bool:
    """Return whether the build produces the gateway's image. See `notes` in the documentation of build_patch."""
    image = normal(settings.image) if settings.image else ""
    if image and any(normal(tag) == image for tag in build.tags):
        return True
    names = [os.path.basename(build.dockerfile), os.path.relpath(build.dockerfile, build.context)]
    names += [build.file, build.context] if not os.path.isabs(build.context) else []
    skipped = [any(fnmatch.fnmatch(name, pattern) for name in names) for pattern in settings.skip]
    if any(skipped):
        return False
    if build.tags and all(any(fnmatch.fnmatch(tag, pattern) for pattern in settings.skip) for tag in build.tags):
        return False
    if not image:
        return True
    try:
        with open(os.path.join(build.context, "package.json"), encoding="utf-8") as file:
            package = str(json.load(file).get("name"))
    except (OSError, ValueError, AttributeError):
        package = ""
    return "openclaw" in " ".join([package, text, *build.tags]).lower()


def with_copy(text: str, source: str, target: str = "") -> str | None:
    """Return the Dockerfile's text with the ``COPY`` line at the end of the stage ``target``, by default the last one.

    Return None if there is no such stage. ``source`` is the build context or image that contains the bootstrap. COPY
    ignores USER, so the line also works at the end of the stage. It copies the file to the last WORKDIR.
    """
    lines = text.splitlines(True)
    for at in [i for i, line in enumerate(lines) if line.rstrip() == EARLIER_MARK][::-1]:
        del lines[at : at + 2]
    escape, stages, chosen, opened = "\\", 0, False, 0
    here: list[str] = []
    word, is_open, end = "", False, len(lines)
    for number, whole in enumerate(lines):
        line = whole.rstrip("\r\n")
        if here:
            if line.lstrip("\t") == here[0] or line == here[0]:
                here.pop(0)
            continue
        if not stages and re.match(r"#\s*escape\s*=\s*`", line, re.IGNORECASE):
            escape = "`"
        if re.match(r"\s*(#|$)", line):
            continue
        if not is_open:
            opened = number
            part = line.split()
            word = part[0].upper()
            if word == "FROM":
                if chosen:
                    end = number
                    break
                alias = part[-1].lower() if len(part) > 2 and part[-2].upper() == "AS" else None
                chosen = bool(target) and (alias == target.lower() or str(stages) == target)
                stages += 1
        is_open = line.rstrip(" \t").endswith(escape)
        if word in ("RUN", "COPY", "ADD"):
            here += re.findall(r"(?:^|\s)\d*<<-?[\"']?([A-Za-z_]\w*)", line)
    if not stages or (target and not chosen):
        return None
    if is_open and end == len(lines):  # The text ends in a line continuation: insert before the unfinished line.
        end = opened
    before = "".join(lines[:end])
    if before and not before.endswith("\n"):
        before += "\n"
    return before + COPY % source + "\n" + "".join(lines[end:])


# Run commands


@dataclass
class Runner:
    """Runner of commands. It forwards signals to the command, and stores the first signal that it received."""

    signal: int = 0
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._got)

    def _got(self, number: int, _frame: object) -> None:
        self.signal = self.signal or number
        # Do not forward SIGINT: docker also gets it from the terminal, and a second one would interrupt its clean-up.
        if self.process is not None and number != signal.SIGINT and self.process.poll() is None:
            self.process.send_signal(number)

    def run(self, words: list[str], text: bytes | None = None, **options: Any) -> int:
        """Run the command. Its input is ``text`` or our standard input. Return its status, negative after a signal."""
        if self.signal:
            return -self.signal
        try:
            self.process = subprocess.Popen(words, stdin=None if text is None else subprocess.PIPE, **options)
        except OSError as error:
            say("%s: %s" % (words[0], error.strerror))
            return 126 if isinstance(error, PermissionError) else 127
        if text is not None and self.process.stdin:
            try:
                with self.process.stdin as pipe:
                    pipe.write(text)
            except BrokenPipeError:
                pass
        status = self.process.wait()
        self.process = None
        return status or -self.signal


def output(words: list[str]) -> str | None:
    """Run a command without input. Return its standard output, or None if it fails."""
    try:
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            text = process.communicate()[0]
    except OSError:
        return None
    return text.decode("utf-8", "surrogateescape") if process.returncode == 0 else None


def has_named_contexts(docker: list[str], buildx: bool) -> bool:
    """Return whether builds support ``--build-context``, which needs BuildKit 0.10 (Docker 23)."""
    if not buildx and ("DOCKER_BUILDKIT=0" in docker or os.environ.get("DOCKER_BUILDKIT") in ("0", "false")):
        return False
    if output([*docker, "buildx", "version"]) is None:
        return False
    major = re.match(r"(\d+)\.", output([*docker, "version", "--format", "{{.Server.Version}}"]) or "")
    if major is None or int(major.group(1)) >= 23:
        return True
    # An older daemon's BuildKit does not support the option. Only the buildx driver `docker` uses the daemon's
    # BuildKit.
    driver = re.search(r"^Driver:\s*(\S+)", output([*docker, "buildx", "inspect"]) or "", re.MULTILINE)
    return driver is not None and driver.group(1) != "docker"


class Workspace:
    """Temporary directory for the Dockerfiles and the bootstrap. It also deletes directories of killed builds."""

    def __init__(self, settings: Settings, docker: list[str], buildx: bool = False) -> None:
        self.settings = settings
        self.docker = docker
        self.buildx = buildx
        self.images: list[str] = []
        self.source = ""
        root = os.path.dirname(os.path.abspath(__file__))
        program = shutil.which(docker[-1]) if len(docker) == 1 else None
        if program and program.startswith("/snap/"):  # Docker from a snap has its own /tmp and cannot see ours.
            root = os.path.expanduser("~/snap/docker/common")
        for name in os.listdir(root):
            if name.startswith("build.") and not _is_alive(name.split(".")[1]):
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)
        self.directory = tempfile.mkdtemp(prefix="build.%d." % os.getpid(), dir=root)
        self.context = os.path.join(self.directory, "context")

    def __enter__(self) -> Workspace:
        os.chmod(self.directory, 0o755)  # Let other users read it, because `sudo -u` may run the build.
        os.mkdir(self.context, 0o755)
        os.chmod(self.context, 0o755)
        copy = os.path.join(self.context, BOOTSTRAP)
        try:
            shutil.copyfile(self.settings.bootstrap, copy)
        except OSError as error:
            self.__exit__()
            raise Stopped(
                "%s is missing or cannot be read (%s). Run the playbook site.yml again, or remove the section of "
                "openclaw.egress from this script" % (self.settings.bootstrap, error.strerror)
            ) from None
        os.chmod(copy, 0o644)
        return self

    def __exit__(self, *_error: object) -> None:
        for image in self.images:
            output([*self.docker, "image", "rm", "--force", image])
        shutil.rmtree(self.directory, ignore_errors=True)

    def prepare(self, build: Build, number: int = 0) -> str:
        """Write the patched Dockerfile of a build. Return its path. ``number`` is unique within the workspace.

        Raise :class:`NotPatched` if the build needs no bootstrap, and :class:`Stopped` if the image that would
        provide the bootstrap cannot be built.
        """
        text = read_dockerfile(build)
        if not is_gateway(build, text, self.settings):
            raise NotPatched("")
        directory = os.path.join(self.directory, str(number))
        os.mkdir(directory, 0o755)
        os.chmod(directory, 0o755)
        patched = with_copy(text, self.bootstrap_source(text), build.target)
        if patched is None:
            raise NotPatched("")
        path = os.path.join(directory, "Dockerfile")
        _write(path, patched)
        ignored = build.dockerfile + ".dockerignore"
        if build.inline is None and os.path.isfile(ignored):
            shutil.copyfile(ignored, path + ".dockerignore")
            os.chmod(path + ".dockerignore", 0o644)
        return path

    def bootstrap_source(self, text: str = "") -> str:
        """Return the source for ``COPY --from`` in the Dockerfile ``text``.

        It is the build context with the bootstrap, or an image if the builder or the Dockerfile's syntax version does
        not support named contexts.
        """
        old = re.search(
            r"^#\s*syntax\s*=\s*\S*docker/dockerfile:1\.[0-3](\.\d+)?\s*$", text, re.IGNORECASE | re.MULTILINE
        )
        if not self.source and not old and has_named_contexts(self.docker, self.buildx):
            self.source = CONTEXT
        if self.source and not (old and self.source == CONTEXT):
            return self.source
        self._remove_old_images()
        _write(os.path.join(self.context, "Dockerfile"), "FROM scratch\nCOPY %s /%s\n" % (BOOTSTRAP, BOOTSTRAP))
        self.source = "%s:%d" % (IMAGE, os.getpid())
        with subprocess.Popen(
            [*self.docker, "build", "--quiet", "--tag", self.source, self.context],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            problem = process.communicate()[1].decode("utf-8", "replace").strip()
        if process.returncode:
            raise Stopped(
                "this Docker does not support build contexts, and the image of the bootstrap cannot be built: %s. "
                "Install docker-buildx, or set openclaw_gateway_bootstrap to mount" % problem[-300:]
            )
        self.images.append(self.source)
        return self.source

    def _remove_old_images(self) -> None:
        names = output([*self.docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", IMAGE]) or ""
        for name in names.split():
            pid = name.partition(IMAGE + ":")[2]
            if pid.isdigit() and not _is_alive(pid):
                output([*self.docker, "image", "rm", "--force", name])


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
    os.chmod(path, 0o644)


# docker commands


def docker_build(
    settings: Settings, runner: Runner, words: list[str], docker: int, at: int, buildx: bool
) -> int | None:
    """Run `docker build` or `docker buildx build` with the bootstrap.

    Return the exit status, or None without running it if the build needs no bootstrap.
    """
    read = read_build(words, at)
    if read is None:
        return None
    build, kept = read
    try:
        if not is_gateway(build, read_dockerfile(build), settings):
            return None
    except NotPatched as reason:
        image = normal(settings.image) if settings.image else None
        if str(reason) and (not build.tags or image in [normal(tag) for tag in build.tags]):
            raise
        return None
    globals_end = after_options(words, docker + 1, _DOCKER_VALUES)
    with Workspace(settings, words[:globals_end], buildx) as work:
        path = work.prepare(build)
        extra = ["--build-context", "%s=%s" % (CONTEXT, work.context)] if work.source == CONTEXT else []
        return runner.run([*words[:at], *extra, "--file", path, *kept])


def compose_build(settings: Settings, runner: Runner, words: list[str], docker: int, at: int) -> int | None:
    """Run `compose build` or `compose up --build` with the bootstrap.

    Return the exit status, or None without running it if no build needs the bootstrap. The build reads the resolved
    configuration from standard input, reduced to the keys that builds need, so that no file contains the project's
    secrets. `compose up` itself loads the operator's own files, because Compose writes their names to container labels.
    """
    verb_at = after_options(words, at, COMPOSE_VALUES)
    verb = words[verb_at] if verb_at < len(words) else ""
    rest = words[verb_at + 1 :]
    if verb not in ("build", "up", "create", "run") or (verb != "build" and "--build" not in rest):
        return None
    if {"--help", "--print", "--check", "--dry-run", "-h"} & set(words[at:]) and verb != "run":
        return None
    if verb == "run":
        raise NotPatched("`compose run --build` is not supported")
    options, named = _positionals(rest, _COMPOSE_BUILD_VALUES if verb == "build" else _COMPOSE_UP_VALUES)
    config = _compose_config(words[:verb_at], named)
    if verb != "build":
        named, options = _with_dependencies(config, named), []
    builds = {name: service for name, service in config["services"].items() if service.get("build")}
    named_builds = [name for name in named if name in builds]
    if not builds or (named and not named_builds):
        return None
    kept = _without(words[at:verb_at], _PROJECT)
    globals_end = after_options(words, docker + 1, _DOCKER_VALUES)
    standalone = os.path.basename(words[docker]) == "docker-compose"
    engine = [*words[:docker], "docker"] if standalone else words[:globals_end]
    with Workspace(settings, engine) as work:
        if not _prepare_services(work, config, {name: builds[name] for name in named_builds or builds}):
            return None
        project: dict[str, Any] = {key: config[key] for key in ("name", "secrets") if key in config}
        project["services"] = {name: _for_build(service, builds) for name, service in builds.items()}
        command = [*words[:at], *kept, "--project-directory", os.getcwd(), "--file", "-", "build", *options]
        status = runner.run([*command, *named_builds], json.dumps(project).encode())
    if status or verb == "build":
        return status
    again = [word for word in rest if word != "--build"]
    return runner.run([*words[: verb_at + 1], *again])


def _positionals(words: list[str], values: set[str]) -> tuple[list[str], list[str]]:
    options: list[str] = []
    named: list[str] = []
    at = 0
    while at < len(words):
        end = at + (2 if words[at] in values else 1)
        (options if words[at].startswith("-") else named).extend(words[at:end])
        at = end
    return options, named


def _without(words: list[str], values: set[str]) -> list[str]:
    kept, at = [], 0
    while at < len(words):
        end = at + (2 if words[at] in COMPOSE_VALUES else 1)
        name = words[at].partition("=")[0]
        if name not in values and not re.match(r"-[fp].", name):
            kept += words[at:end]
        at = end
    return kept


def _compose_config(compose: list[str], named: list[str]) -> dict[str, Any]:
    for profiles in ([], ["--profile", "*"]):
        text = output([*compose, *profiles, "config", "--format", "json"])
        try:
            config: dict[str, Any] = json.loads(text or "")
        except ValueError:
            break
        if isinstance(config, dict) and isinstance(config.get("services"), dict):
            if all(name in config["services"] for name in named):
                return config
    raise NotPatched("`compose config` does not show the services of `compose build`")


def _with_dependencies(config: dict[str, Any], named: list[str]) -> list[str]:
    found: list[str] = []
    queue = list(named)
    while queue:
        name = queue.pop(0)
        if name not in found and name in config["services"]:
            found.append(name)
            queue += list(config["services"][name].get("depends_on") or {})
    return found


def _for_build(service: dict[str, Any], builds: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: service[key] for key in ("build", "image", "platform") if key in service}
    depends = service.get("depends_on") or {}
    kept["depends_on"] = (
        {name: depends[name] for name in depends if name in builds} if isinstance(depends, dict) else []
    )
    return kept


def _prepare_services(work: Workspace, config: dict[str, Any], services: dict[str, Any]) -> int:
    """Set a patched Dockerfile in each service that builds the gateway's image. Return the number of these services."""
    count = 0
    for name, service in services.items():
        spec = service["build"]
        image = service.get("image") or "%s-%s" % (config.get("name", ""), name)
        context = str(spec.get("context", ".")).replace("$$", "$")
        file = str(spec.get("dockerfile", "") or "").replace("$$", "$")
        build = Build(
            context,
            os.path.join(context, file) if file else "",
            str(spec.get("target", "") or ""),
            [image, *(spec.get("tags") or [])],
            spec["dockerfile_inline"].replace("$$", "$") if spec.get("dockerfile_inline") else None,
        )
        try:
            path = work.prepare(build, count)
        except NotPatched as reason:
            if str(reason):
                say("service %s: %s, %s" % (name, reason, WITHOUT))
            continue
        count += 1
        spec.pop("dockerfile_inline", None)
        spec["dockerfile"] = path.replace("$", "$$")
        if work.source == CONTEXT:
            contexts = spec.get("additional_contexts") or {}
            if isinstance(contexts, list):
                contexts = dict(item.partition("=")[::2] for item in contexts)
            spec["additional_contexts"] = {**contexts, CONTEXT: work.context.replace("$", "$$")}
    return count


def bake(settings: Settings, runner: Runner, words: list[str], docker: int, at: int) -> int | None:
    """Run `docker buildx bake` with the bootstrap.

    Return the exit status, or None without running it if no target needs the bootstrap.
    """
    if {"--help", "--print", "--check", "--list", "-h"} & {word.partition("=")[0] for word in words[at:]}:
        return None
    if "-" in words[at:]:
        raise NotPatched("`docker buildx bake` from standard input is not supported")
    try:
        targets = json.loads(output([*words[:at], *words[at:], "--print"]) or "")["target"]
    except (ValueError, KeyError, TypeError):
        raise NotPatched("`docker buildx bake --print` does not show the targets") from None
    globals_end = after_options(words, docker + 1, _DOCKER_VALUES)
    with Workspace(settings, words[:globals_end], True) as work:
        extra: list[str] = []
        for number, (name, spec) in enumerate(targets.items()):
            context, file = spec.get("context", "."), spec.get("dockerfile", "")
            inline = spec.get("dockerfile-inline")
            build = Build(context, os.path.join(context, file) if file else "", spec.get("target", ""), inline=inline)
            build.tags = spec.get("tags") or []
            try:
                if inline is not None:
                    raise NotPatched("an inline Dockerfile is not supported")
                path = work.prepare(build, number)
            except NotPatched as reason:
                if str(reason):
                    say("target %s: %s, %s" % (name, reason, WITHOUT))
                continue
            extra += ["--set", "%s.dockerfile=%s" % (name, path)]
            if work.source == CONTEXT:
                extra += ["--set", "%s.contexts.%s=%s" % (name, CONTEXT, work.context)]
        if not extra:
            return None
        # Set this variable, because newer versions of buildx ask before reading files outside the working directory.
        return runner.run([*words, *extra], env={**os.environ, "BUILDX_BAKE_ENTITLEMENTS_FS": "0"})


def execute(words: list[str]) -> int:
    """Replace this process with the command. If that fails, return the exit status that a shell would return."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE, and the command would inherit that.
    try:
        os.execvp(words[0], words)
    except OSError as error:
        say("%s: %s" % (words[0], error.strerror))
        return 126 if isinstance(error, PermissionError) else 127


def main(arguments: list[str]) -> int:
    """Run the command, with the bootstrap if it builds the gateway's image. Return its exit status."""
    settings, words = Settings(**json.loads(arguments[0])), arguments[1:]
    found = find_build(words)
    runner, status = Runner(), None
    if found is not None:
        kind, docker, at = found
        try:
            if kind == "compose":
                status = compose_build(settings, runner, words, docker, at)
            elif kind == "bake":
                status = bake(settings, runner, words, docker, at)
            else:
                status = docker_build(settings, runner, words, docker, at, kind == "buildx")
        except NotPatched as reason:
            if str(reason):
                say("%s, %s" % (reason, WITHOUT))
        except Stopped as reason:
            say(str(reason))
            return 1
    if status is None:
        return execute(words)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Fake `docker` with several compose projects, which it reads from real compose files.

Use `tests.support.docker` for one project with responses from the test. `DockerHost(directory)` creates the command
`directory/docker`, which a test puts on the PATH, and a JSON file with its state. `docker compose up` creates and
recreates containers as Compose does: if the merged definition of a service has changed. The fake fails with an error
message if it does not support a command. Keys of the state:

- `networks`: name to subnet, driver and label
- `images`: name to id
- `containers`: name to service, project, directory, files, definition and its digest
- `broken`: names of containers that become unhealthy if they use a proxy
- `openclaw`: container to the settings of OpenClaw in it
- `removed`: names of removed networks, in order
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

State = dict[str, Any]


class DockerHost:
    """State and command of the fake."""

    def __init__(self, directory: Path, **state: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / "docker.json"
        empty: State = {"networks": {}, "images": {}, "containers": {}, "broken": [], "openclaw": {}, "removed": []}
        self.file.write_text(json.dumps(empty | state))
        self.command = directory / "docker"
        words = shlex.join([sys.executable, str(Path(__file__).resolve()), str(self.file)])
        self.command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        self.command.chmod(0o755)

    @property
    def state(self) -> State:
        """Return the current content of the JSON file."""
        found: State = json.loads(self.file.read_text())
        return found

    def change(self, **state: Any) -> None:
        """Replace the values of these keys in the JSON file."""
        self.file.write_text(json.dumps(self.state | state))

    def up(self, directory: Path, *services: str) -> None:
        """Start services as an operator does."""
        state = self.state
        compose_up(state, str(directory), list(services))
        self.file.write_text(json.dumps(state))


class _Loader(yaml.SafeLoader):
    """Loader that accepts Compose's tags for lists and mappings that replace those of other files."""


def _tagged(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {"!": loader.construct_mapping(node, deep=True)}
    return {"!": loader.construct_sequence(node, deep=True)}  # type: ignore[arg-type]


for _tag in ("!override", "!reset"):
    _Loader.add_constructor(_tag, _tagged)


def merged(base: Any, other: Any, key: str = "") -> Any:
    """Merge a value of a later compose file into that of an earlier one."""
    if key == "networks":
        base, other = _mapping(base), _mapping(other)
    if isinstance(other, dict) and set(other) == {"!"}:
        return other["!"]
    if isinstance(base, dict) and isinstance(other, dict):
        names = [*base, *(name for name in other if name not in base)]
        return {name: merged(base.get(name), other[name], name) if name in other else base[name] for name in names}
    if isinstance(base, list) and isinstance(other, list) and key in ("volumes", "ports", "dns"):
        return [*base, *other]
    return other


def _mapping(value: Any) -> Any:
    return dict.fromkeys(value) if isinstance(value, list) else value or {}


def files_of(directory: str) -> list[str]:
    """Return the compose files in effect: those in COMPOSE_FILE of `.env`, or the default one."""
    env = Path(directory, ".env")
    for line in env.read_text().splitlines() if env.exists() else []:
        if line.startswith("COMPOSE_FILE="):
            return line.removeprefix("COMPOSE_FILE=").strip("'\"").split(":")
    return [str(path) for path in [Path(directory, "docker-compose.yml")] if path.exists()]


def project_of(directory: str, files: list[str]) -> dict[str, Any]:
    """Return the merged project.

    Raises:
        LookupError: a file is missing, or a service needs a service or a network that no file defines.
    """
    found: dict[str, Any] = {"name": Path(directory).name, "services": {}, "networks": {}}
    for name in files:
        path = Path(directory, name)
        if not path.exists():
            raise LookupError(f"open {path}: no such file or directory")
        found = merged(found, yaml.load(path.read_text(), _Loader) or {})
    for name, service in found["services"].items():
        for needed in service.get("depends_on") or {}:
            if needed not in found["services"]:
                raise LookupError(f'service "{name}" depends on undefined service "{needed}": invalid compose project')
        for network in _mapping(service.get("networks")):
            if network != "default" and network not in found["networks"]:
                raise LookupError(f'service "{name}" refers to undefined network {network}: invalid compose project')
    return found


def compose_up(state: State, directory: str, services: list[str]) -> list[str]:
    """Create and recreate the containers of services and their dependencies. Return Compose's progress."""
    files = files_of(directory)
    project = project_of(directory, files)
    lines: list[str] = []
    wanted = list(services or project["services"])
    for name in list(wanted):
        if name not in project["services"]:
            raise LookupError(f"no such service: {name}")
        wanted = [*(project["services"][name].get("depends_on") or {}), *wanted]
    for name in dict.fromkeys(wanted):
        definition = project["services"][name]
        container = definition.get("container_name") or f"{project['name']}-{name}-1"
        for volume in definition.get("volumes") or []:
            if isinstance(volume, dict) and volume["type"] == "bind" and not Path(volume["source"]).exists():
                raise LookupError(f"bind source path does not exist: {volume['source']}")
        for network in _mapping(definition.get("networks")):
            settings = (project["networks"] or {}).get(network) or {}
            if settings.get("external") and network not in state["networks"]:
                raise LookupError(f"network {network} declared as external, but could not be found")
        digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:12]
        known = state["containers"].get(container)
        if known is not None and known["digest"] == digest:
            continue
        state["containers"][container] = {
            "service": name, "project": project["name"], "directory": directory, "files": files,
            "definition": definition, "digest": digest,
        }  # fmt: skip
        lines.append(f" Container {container}  {'Recreated' if known else 'Created'}")
        lines.append(f" Container {container}  Started")
    return lines


def health(state: State, name: str) -> str:
    found = state["containers"][name]
    proxied = "HTTP_PROXY" in (found["definition"].get("environment") or {})
    return "unhealthy" if name in state["broken"] and proxied else "healthy"


def inspected(state: State, name: str, form: str) -> str:
    """Return the output of `docker inspect --format` for a container."""
    if name not in state["containers"]:
        raise LookupError(f"Error: No such object: {name}")
    found = state["containers"][name]
    definition = found["definition"]
    labels = {
        "com.docker.compose.project": found["project"],
        "com.docker.compose.service": found["service"],
        "com.docker.compose.project.working_dir": found["directory"],
        "com.docker.compose.project.config_files": ",".join(found["files"]),
    } | (definition.get("labels") or {})
    environment = [f"{key}={value}" for key, value in (definition.get("environment") or {}).items()]
    config = {"Labels": labels, "Env": environment}
    networks = {key: {} for key in _mapping(definition.get("networks")) or {"default": None}}
    if form == "{{json .}}":
        return json.dumps({"Config": config, "NetworkSettings": {"Networks": networks}})
    if "json .Config.Labels" in form:
        return json.dumps(labels)
    if "Networks" in form:
        return json.dumps(networks)
    return health(state, name)


def network(state: State, words: list[str]) -> str:
    networks = state["networks"]
    match words:
        case ["inspect", "--format", form, name]:
            if name not in networks:
                raise LookupError(f"Error response from daemon: network {name} not found")
            found = networks[name]
            if "Labels" in form:
                return f"{found['driver']} {found['subnet']} true {found['label']}"
            return str(found["subnet"]) if "Subnet" in form else ""
        case ["create", *options, name]:
            given = dict(itertools.pairwise(options))
            label = given.get("--label", "").partition("=")[2]
            networks[name] = {"subnet": given["--subnet"], "driver": given.get("--driver", "bridge"), "label": label}
            return name
        case ["rm", name]:
            if name not in networks:
                raise LookupError(f"Error response from daemon: network {name} not found")
            users = [
                one
                for one, found in state["containers"].items()
                if name in _mapping(found["definition"].get("networks"))
            ]
            if users:
                raise LookupError(f"network {name} has active endpoints: {users}")
            del networks[name]
            state["removed"].append(name)
            return name
        case ["ls", *_]:
            return "\n".join(name for name, found in networks.items() if found["label"])
        case _:
            raise LookupError(f"the Docker fake does not support: docker network {shlex.join(words)}")


def compose(state: State, words: list[str]) -> str:
    """Return the output of `docker compose` with these arguments."""
    directory, files, rest = ".", [], []
    words = list(words)
    while words:
        word = words.pop(0)
        if word == "--project-directory":
            directory = words.pop(0)
        elif word in ("-f", "--file"):
            files.append(words.pop(0))
        elif word in ("--ansi", "--progress", "--profile"):
            words.pop(0)
        else:
            rest = [word, *words]
            break
    match rest:
        case ["config", *options]:
            project = project_of(directory, files or files_of(directory))
            return "" if "--quiet" in options else json.dumps(project)
        case ["up", *options]:
            print("\n".join(compose_up(state, directory, options[options.index("--") + 1 :])), file=sys.stderr)
            return ""
        case ["ps", *_]:
            return ""
        case ["images", *_]:
            return "[]"
        case _:
            raise LookupError(f"the Docker fake does not support: docker compose {shlex.join(rest)}")


def openclaw(state: State, container: str, words: list[str]) -> str:
    if container not in state["containers"]:
        raise LookupError(f"Error response from daemon: No such container: {container}")
    settings = state["openclaw"].setdefault(container, {})
    match words:
        case ["get", section, "--json"]:
            return json.dumps(settings.get(section, {}))
        case ["patch", "--stdin"]:
            state["openclaw"][container] = patched(settings, json.loads(sys.stdin.read()))
            return "Applied."
        case _:
            raise LookupError(f"the OpenClaw fake does not support: config {shlex.join(words)}")


def patched(tree: Any, patch: Any) -> Any:
    """Merge a patch into settings as OpenClaw does: merge objects recursively; null removes a key."""
    if not isinstance(patch, dict):
        return patch
    found = dict(tree) if isinstance(tree, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = patched(found.get(name), value)
    return found


def run(words: list[str]) -> str:
    """Return the output of `docker run` with one of the proxy's own commands."""
    if "create" in words and "ca" in words:
        directory = next(word.split("=", 1)[1] for word in words if word.endswith(":/ca")).removesuffix(":/ca")
        files = [Path(directory, name) for name in ("mitmproxy-ca.pem", "mitmproxy-ca-cert.pem")]
        if all(file.exists() for file in files):
            return "unchanged"
        for file in files:
            file.write_text("-----BEGIN CERTIFICATE-----\nproxy\n-----END CERTIFICATE-----\n")
        return "created"
    return ""


def answer(words: list[str], state: State) -> str:
    """Return the output of `docker` with these arguments and update the state.

    Raises:
        LookupError: Docker fails; the text is Docker's message.
    """
    images, containers, plain = state["images"], state["containers"], [word for word in words if word[0] != "-"]
    match words:
        case ["info"]:
            return "fake"
        case ["version", "--format", form]:
            return json.dumps({"Server": {"ApiVersion": "1.47"}}) if "json" in form else "1.47"
        case ["compose", "version", *options]:
            return json.dumps({"version": "2.28.1"}) if "json" in options else "2.28.1"
        case ["compose", *rest]:
            return compose(state, rest)
        case ["network", *rest]:
            return network(state, rest)
        case ["build", *_]:
            images[words[words.index("--tag") + 1]] = "sha256:built"
            return ""
        case ["image", "inspect", "--format", form, name]:
            if name not in images:
                raise LookupError(f"Error response from daemon: No such image: {name}")
            config = {"Cmd": None, "Entrypoint": None, "User": "root", "WorkingDir": "/app"}
            return json.dumps(config) if "json .Config" in form else images[name]
        case ["image", "inspect", name]:
            if name not in images:
                raise LookupError(f"Error response from daemon: No such image: {name}")
            return images[name]
        case ["image", "ls", "--format", _, name]:
            return "\n".join(tag for tag in images if tag.rpartition(":")[0] == name)
        case ["image", "rm", *names]:
            for tag in [tag for tag, identity in images.items() if tag in names or identity in names]:
                del images[tag]
            return ""
        case ["tag", source, target]:
            images[target] = images[source]
            return ""
        case ["run", *rest]:
            return run(rest)
        case ["ps", "--all", "--filter", service, "--format", _]:
            return "\n".join(
                f"{name}|False|{found['directory']}"
                for name, found in containers.items()
                if service == f"label=com.docker.compose.service={found['service']}"
            )
        case ["container", "inspect", "--format", form, name] | ["inspect", "--format", form, name]:
            return inspected(state, name, form)
        case ["container", "inspect", name]:
            return inspected(state, name, "")
        case ["exec", "--interactive", "--user", _, name, "node", _, "config", *rest]:
            return openclaw(state, name, rest)
        case ["exec", *_] if "egress" in plain or "python3" in plain:
            return json.dumps(
                {"classes": {name: {"inspected": ["api.anthropic.com"]} for name in state.get("classes", [])}}
            )
        case ["exec", *_]:
            return f"docker {' '.join(plain[:3])}"
        case ["rm", "--force", name]:
            if containers.pop(name, None) is None:
                raise LookupError(f"Error response from daemon: No such container: {name}")
            return name
        case ["logs", *_]:
            return "the log"
        case _:
            raise LookupError(f"the Docker fake does not support: docker {shlex.join(words)}")


def main() -> int:
    """Run the command. The first argument is the state file; all others are the arguments of `docker`."""
    file = Path(sys.argv[1])
    state = json.loads(file.read_text())
    words = sys.argv[2:]
    if words[:1] == ["--host"]:
        words = words[2:]
    try:
        print(answer(words, state))
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 1
    file.write_text(json.dumps(state))
    return 0


if __name__ == "__main__":
    sys.exit(main())

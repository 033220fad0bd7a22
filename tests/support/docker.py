"""Fake `docker` whose responses come from a JSON file, to test playbooks on a host without Docker.

`Docker(directory)` creates the command `directory/docker`, which a test puts on the PATH, and the JSON file with its
state. The fake fails with an error message if it does not support a command. Keys of the state:

- `networks` (name to subnet), `images` (name to id), `containers` (name to state)
- `compose`: the project that `docker compose config` prints, or an object whose `message` is its error
- `openclaw`: the settings in OpenClaw's container, or an object whose `message` is the error of `openclaw config`

Keys that a test may add:

- `compose_version`, `api`: the versions of Compose and of Docker's API
- `filled`: the project that `docker compose config` prints without `--no-interpolate`, with its variables interpolated
- `labels`: the labels of each container
- `lacks`: the name of a tool that is missing from images
- `macvlan`: the error message of `docker network create`
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any


class Docker:
    """The Docker fake: its command, and its state in a JSON file."""

    def __init__(self, directory: Path, **state: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / "docker.json"
        empty: dict[str, Any] = {"networks": {}, "images": {}, "containers": {}, "compose": {}, "openclaw": {}}
        self.file.write_text(json.dumps(empty | state))
        command = directory / "docker"
        words = shlex.join([sys.executable, str(Path(__file__).resolve()), str(self.file)])
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(0o755)

    def change(self, **state: Any) -> None:
        """Replace the values of these keys in the JSON file."""
        self.file.write_text(json.dumps(self.state | state))

    @property
    def state(self) -> dict[str, Any]:
        """Return the current content of the JSON file."""
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found


def answer(words: list[str], state: dict[str, Any]) -> str:
    """Return the output of `docker` with these arguments and update the state.

    Raises:
        LookupError: Docker fails; the text is Docker's message.
    """
    images, containers, plain = state["images"], state["containers"], [word for word in words if word[0] != "-"]
    match words:
        case ["info"] | ["compose", "version"]:
            return "stand-in"
        case ["compose", "version", "--short"]:
            return str(state.get("compose_version", "2.40.0"))
        case ["version", "--format", _]:
            return str(state.get("api", "1.47"))
        case ["run", "--rm", "--network=none", "--entrypoint=sh", *_]:
            if "lacks" in state:
                raise LookupError(f"no {state['lacks']}")
            return ""
        case ["network", "rm", _]:
            return plain[-1]
        case ["network", "create", *_]:
            if "macvlan" in state:
                raise LookupError(f"Error response from daemon: {state['macvlan']}")
            return plain[-1]
        case ["compose", *rest] if "config" in rest:
            if "message" in state["compose"]:
                raise LookupError(state["compose"]["message"])
            if "--no-interpolate" in rest:
                return json.dumps(state["compose"])
            project = state.get("filled", state["compose"])
            # Compose omits services whose profiles are not active.
            active = {
                name: one
                for name, one in project.get("services", {}).items()
                if not one.get("profiles") or {*one["profiles"]} & {*rest}
            }
            return json.dumps({**project, "services": active})
        case ["network", "inspect", "--format", form, name]:
            subnet = state["networks"].get(name)
            if subnet is None:
                raise LookupError(f"Error response from daemon: network {name} not found")
            return subnet if "Subnet" in form else ""
        case ["image", "inspect", *_]:
            if plain[-1] not in images and plain[-1] not in images.values():
                raise LookupError(f"Error response from daemon: No such image: {plain[-1]}")
            config = {"Cmd": None, "Entrypoint": None, "User": "node", "WorkingDir": "/app"}
            return json.dumps(config) if "json .Config" in " ".join(words) else images.get(plain[-1], plain[-1])
        case ["image", "ls", "--format", _, name]:
            return "\n".join(tag for tag in images if tag.rpartition(":")[0] == name)
        case ["image", "rm", *names]:
            gone = [tag for tag, identity in images.items() if tag in names or identity in names]
            if not gone:
                raise LookupError(f"Error response from daemon: No such image: {names}")
            for tag in gone:
                del images[tag]
            return "\n".join(f"Untagged: {tag}" for tag in gone)
        case ["tag", source, target]:
            images[target] = images[source]
            return ""
        case ["ps", "--all", "--filter", service, "--format", _]:
            return "\n".join(
                f"{name}|False|{found.get('com.docker.compose.project.working_dir')}"
                for name, found in state.get("labels", {}).items()
                if service == f"label=com.docker.compose.service={found.get('com.docker.compose.service')}"
            )
        case ["container", "inspect", "--format", "{{json .}}", name] if name in containers:
            return json.dumps({"Config": {"Labels": state.get("labels", {}).get(name)}})
        case ["container", "inspect", *_, name] | ["inspect", "--format", _, name]:
            if name not in containers:
                raise LookupError(f"Error: No such object: {name}")
            return str(containers[name])
        case ["exec", "--interactive", "--user", _, name, "node", _, "config", *rest]:
            if name not in containers:
                raise LookupError(f"Error response from daemon: No such container: {name}")
            return configured(rest, state)
        case ["rm", "--force", name]:
            containers.pop(name, None)
            return name
        case _:
            raise LookupError(f"the Docker fake does not support: docker {shlex.join(words)}")


def configured(words: list[str], state: dict[str, Any]) -> str:
    """Return the output of `openclaw config` with these arguments. Read a patch from standard input and apply it."""
    if "message" in state["openclaw"]:
        raise LookupError(state["openclaw"]["message"])
    match words:
        case ["get", section, "--json"]:
            return json.dumps(state["openclaw"].get(section, {}))
        case ["patch", "--stdin"]:
            merge(state["openclaw"], json.loads(sys.stdin.read()))
            return "Applied."
        case _:
            raise LookupError(f"the OpenClaw fake does not support: config {shlex.join(words)}")


def merge(tree: dict[str, Any], patch: dict[str, Any]) -> None:
    """Merge a patch into settings as OpenClaw does: merge objects recursively; null removes a key."""
    for name, value in patch.items():
        if value is None:
            tree.pop(name, None)
        elif isinstance(value, dict):
            merge(tree.setdefault(name, {}), value)
        else:
            tree[name] = value


def main() -> int:
    """Run the command. The first argument is the state file; all others are the arguments of `docker`."""
    file = Path(sys.argv[1])
    state = json.loads(file.read_text())
    try:
        print(answer(sys.argv[2:], state))
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 1
    file.write_text(json.dumps(state))
    return 0


if __name__ == "__main__":
    sys.exit(main())

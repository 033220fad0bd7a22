# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Functions that read a service definition in Compose's configuration, where a value can have several forms.

``docker compose config`` resolves variables and ``env_file``, prints mappings, and writes a literal ``$`` as ``$$``.
With ``--no-interpolate`` it prints the operator's text unmodified: commands as strings, lists of ``NAME=VALUE``, and
variable references.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Any, Dict, List, Mapping, Optional

Environment = Dict[str, Optional[str]]
Words = List[str]

# A Compose variable without a default value: `$NAME`, `${NAME}`, `${NAME-}`, `${NAME:-}`.
_UNSET = re.compile(r"\$(?:\w+|\{\w+(?::?-)?\})\Z")
_BRACES = re.compile(r"(?<!\$)\$\{[^}]*\}")
_SHARED = ipaddress.ip_network("100.64.0.0/10")
# Hostnames by which containers reach their host in Docker Desktop and in Podman.
_CONTAINER_HOSTS = ("host.docker.internal", "gateway.docker.internal", "host.containers.internal")


def literal(text: str) -> str:
    """Return the literal value of a text that `docker compose config` prints."""
    return text.replace("$$", "$")


def escaped(text: str) -> str:
    """Escape a literal value for a compose file."""
    return text.replace("$", "$$")


def environment(service: Mapping[str, Any]) -> Environment:
    """Return the environment of a service. A value is None if Compose takes it from its own environment."""
    given = service.get("environment") or {}
    if isinstance(given, dict):
        return {str(name): None if value is None else _text(value) for name, value in given.items()}
    found: Environment = {}
    for entry in given:
        name, equals, value = str(entry).partition("=")
        found[name] = value if equals else None
    return found


def image_environment(image: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment in an image's configuration, whose values are literal."""
    return dict(entry.partition("=")[::2] for entry in image.get("Env") or [])


def resolved(raw: Environment) -> dict[str, str]:
    """Return the environment without unknown values: None, and references without a default value, such as ${NAME}."""
    known = {}
    for name, value in raw.items():
        if value is None or _UNSET.match(value):
            continue
        known[name] = literal(value)
    return known


def words(value: str | list[Any] | None) -> Words:
    """Return the words of a command or entrypoint, split as Compose splits a string.

    Raises:
        ValueError: The string has an unclosed quote.
    """
    if value is None:
        return []
    if isinstance(value, str):
        # Replace variables before splitting, because their default values may contain spaces and quotes.
        variables = _BRACES.findall(value)
        split = shlex.split(_BRACES.sub("\0", value))
        return [re.sub("\0", lambda found: variables.pop(0), word) for word in split]
    return [_text(word) for word in value]


def networks(service: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of each network of a service, by the network's key in the compose file.

    A service without networks is on ``default``. A service with ``network_mode`` is on no network.
    """
    if service.get("network_mode"):
        return {}
    given = service.get("networks") or ["default"]
    if isinstance(given, dict):
        return {name: settings or {} for name, settings in given.items()}
    return {str(name): {} for name in given}


def reached_networks(project: Mapping[str, Any], service: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a service's networks. With ``network_mode: service:NAME``, these are the networks of NAME."""
    kind, name = str(service.get("network_mode") or "").partition(":")[::2]
    other = (project.get("services") or {}).get(name) if kind == "service" else None
    return networks(other or {}) if name and other is not None else networks(service)


def network_names(project: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, str]:
    """Return the name that each network has in Docker, by its key in the compose file."""
    known = project.get("networks") or {}
    found = {}
    for key in keys:
        settings = known.get(key) or {}
        external = settings.get("external")
        name = settings.get("name") or (external.get("name") if isinstance(external, dict) else None)
        found[key] = name or (key if external else "%s_%s" % (project.get("name", ""), key))
    return found


def extra_hosts(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the extra hosts by name. Each value is an address, or ``host-gateway``."""
    given = service.get("extra_hosts") or []
    if isinstance(given, dict):
        return {
            name: str(address[0] if isinstance(address, list) and address else address)
            for name, address in given.items()
        }
    found = {}
    for entry in given:
        name, address = re.sub(r"[:=]", "=", str(entry), count=1).partition("=")[::2]
        found[name.strip()] = address.strip()
    return found


def is_local(address: str) -> bool:
    """Return whether an address is private or the host itself.

    The carrier-grade NAT range (RFC 6598) counts as private, because Tailscale uses it. Link-local addresses do not.
    """
    if address == "host-gateway":
        return True
    found = _address(address)
    if found is None:
        return False
    return (found.is_private and not found.is_link_local) or (found.version == 4 and found in _SHARED)


def is_local_host(host: str) -> bool:
    """Return whether the host in a URL is a container, the containers' host, or a private address."""
    return host in _CONTAINER_HOSTS or ("." not in host if _address(host) is None else is_local(host))


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address, or the unspecified address, which also connects to this host."""
    found = _address(host)
    return found is not None and (found.is_loopback or found.is_unspecified)


def health_check(service: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """Return the command of the container's health check as text; empty if there is none or it is disabled."""
    given = service.get("healthcheck") or {}
    test = [] if given.get("disable") else given.get("test") or (image.get("Healthcheck") or {}).get("Test") or []
    return test if isinstance(test, str) else " ".join(str(word) for word in test)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def mounts(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return source and target of each volume. The source of a named volume is its name, which has no slash."""
    found = []
    for volume in service.get("volumes") or []:
        if isinstance(volume, dict):
            found.append((str(volume.get("source") or ""), str(volume.get("target") or "")))
        else:
            source, rest = str(volume).partition(":")[::2]
            found.append((source, rest.partition(":")[0] or source))
    return found


def files(project: Mapping[str, Any], service: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return source and target of each secret or config of a service whose source is a file on the host."""
    found = []
    for kind, directory in (("secrets", "/run/secrets/"), ("configs", "/")):
        for entry in service.get(kind) or []:
            given = entry if isinstance(entry, dict) else {"source": entry}
            name = str(given.get("source") or "")
            target = str(given.get("target") or name)
            source = ((project.get(kind) or {}).get(name) or {}).get("file")
            if source:
                found.append((str(source), target if target.startswith("/") else directory + target))
    return found


def image_name(project: Mapping[str, Any], name: str) -> str:
    """Return the image of a service, as Compose names it; empty if it depends on an unresolved variable."""
    service = project["services"][name] or {}
    image = str(service.get("image") or "")
    if not image and service.get("build") is not None:
        image = "%s-%s" % (project.get("name", ""), name)
    return "" if "$" in image else image


def full_image_name(name: str) -> str:
    """Return an image's name with registry and tag, for comparisons."""
    name = re.sub(r"\A(?:(?:index\.)?docker\.io/)?(?:library/)?", "", name)
    return name if "@" in name or ":" in name.rpartition("/")[2] else name + ":latest"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

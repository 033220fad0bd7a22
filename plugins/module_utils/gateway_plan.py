# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The plan for the gateway's service: settings that the role writes into its own compose file, or problems.

:func:`make_plan` is pure. It decides on the basis of the interpolated configuration, but copies the text of settings
from the uninterpolated one. The role's file therefore contains no secret from ``.env``, and later edits of ``.env``
take effect. If Compose cannot print the uninterpolated configuration, the plan does not change the operator's command,
and loads the bootstrap with ``NODE_OPTIONS``.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import posixpath
import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Union
from urllib.parse import urlsplit

from ansible_collections.openclaw.egress.plugins.module_utils import gateway_plan_inputs as inputs

Settings = Mapping[str, Any]
Command = Union[str, List[str]]

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
OTHER_PROXIES = (*PROXY_VARIABLES, "ALL_PROXY", "all_proxy", "OPENCLAW_PROXY_URL")
_KEPT = ("NO_PROXY", "no_proxy", "NODE_EXTRA_CA_CERTS", "NODE_OPTIONS")
CA_IN_GATEWAY = "/etc/ssl/certs/proxy-ca.pem"
# Use this path if a volume covers CA_IN_GATEWAY: Docker could not create the mount point in a read-only volume.
CA_ELSEWHERE = "/etc/openclaw-egress/proxy-ca.pem"
OUR_LABEL = "openclaw.egress.command"
# `openclaw-carrier` is the name of the ingress forwarder in deployments from before the first release.
OUR_SERVICES = ("openclaw-proxy", "openclaw-proxy-ui", "openclaw-ingress-forwarder", "openclaw-carrier")
# Use a path outside of the gateway's working directory, because the operator may mount the clone over that directory.
MOUNTED_BOOTSTRAP = "/etc/openclaw-egress/proxy-bootstrap.cjs"
# Network and bridge of each class in the nested daemon. Firewall rules distinguish the classes by bridge.
NESTED_NETWORKS = {
    "sandbox": ("openclaw-egress-sandbox", "egress-sandbox"),
    "browser": ("openclaw-egress-browser", "egress-browser"),
    "build": ("bridge", "docker0"),
}

_NODE = re.compile(r"(?:\S*/)?node(?:js)?\Z")
_NODE_FIRST = re.compile(r"\s*(?:[^\s\"'\\$]*/)?node(?:js)?(?=\s|\Z)")
# Wrappers that start another program, but whose first argument is not that program: a user (`gosu`), shell code
# (`sh -c`), a package (`npx`).
_INTERPRETS = re.compile(
    r"(?:\S*/)?(?:gosu|su-exec|setpriv|chroot|su|sudo|runuser|env|(?:ba|da|a|z)?sh|npm|npx|pnpm|yarn)\Z"
)
# Commands that may start Node, directly or through a script or supervisor. Do not add systemd: its services do not get
# the container's environment.
_RUNS_NODE = re.compile(
    r"\A(?:\S*/)?gateway\b|\b(?:node|nodejs|npm|npx|pnpm|yarn|tsx|ts-node|nodemon|pm2|openclaw|clawdbot|moltbot)\b"
    r"|\b(?:supervisord|s6-svscan)\b|\.[cm]?js\b|\.sh\b|entrypoint|(?<!/sbin)/init\b"
)
# Runtimes that ignore NODE_OPTIONS.
_OTHER_RUNTIME = re.compile(r"(?:\A|[\s;&|(/])(?:bun|bunx|deno)(?=\s|\Z)")
_SHELL_START = r"(?:^|[\s;&|(\"'`])"
# Programs that start another program with an empty environment. The first line of the pattern matches the text that can
# precede a program's name.
_CLEARS = re.compile(
    r"(?:^|[;&|(\n]\s*|\bexec\s+|\s-c\s+|\s--\s+|\bthen\s+)(?:\S*/)?"
    r"(env\s+(?:-i\b|-(?=\s)|--ignore-environment)"
    r"|(?:su|runuser)\s+(?:(?!-c\b|--command\b|--\s)[^\s;&|]+\s+)*?(?:-(?=\s)|-l\b|--login\b)"
    r"|setpriv\s+(?:[^\s;&|]+\s+)*?--reset-env"
    r"|sudo(?=\s)(?!(?:\s+\S+)*?\s+(?:-[A-Za-z]*E|--preserve-env)))"
)
# Commands that remove variables: `unset A B`, `env -u A`.
_UNSETS = re.compile(r"(?:\bunset\s+(?:-v\s+)?|\s(?:-u\s*|--unset[= ]))(\w+(?:[ \t]+\w+)*)")
# The compose files of the proxy and of other gateways, if the host has several.
_OUR_FILE = re.compile(r"/docker-compose\.egress(?:\.[a-z0-9-]+)?\.yml\Z")
_SECRET = re.compile(r"(?i)\A--?\S*(?:token|password|secret|key)")
# The default socket of the host's Docker daemon, and the directories that contain it.
_HOST_SOCKET = re.compile(r"\A(?:(?:/var)?/run(?:/docker[.]sock)?/?|/var/?|/)\Z")


@dataclass(frozen=True)
class Options:
    """The options of the role that affect the plan."""

    service: str
    # The gateway's name if the host has several gateways; empty otherwise.
    instance: str = ""
    compose_dir: str = ""
    # The operator's compose files.
    compose_files: List[str] = field(default_factory=list)
    # The compose file that the role writes.
    compose_file: str = ""
    # The project's .env file.
    env_file: str = ""
    image: str = ""
    bootstrap: str = "image"
    enforcement: str = "application"
    sandbox_daemon: str = "auto"
    # Whether the daemon that the running gateway uses is the host's: same, other, or empty if it was not compared.
    daemon_seen: str = ""
    proxy_url: str = "http://openclaw-proxy:8080"
    proxy_network: str = "openclaw-gateway-net"
    proxy_address: str = "172.30.0.250"
    # URL of the network's HTTP proxy, which the egress proxy uses (openclaw_proxy_upstream_proxy); empty if none.
    upstream_proxy: str = ""
    direct_hosts: List[str] = field(default_factory=list)
    no_proxy: List[str] = field(default_factory=list)
    inner_subnet: str = "172.31.250.0/24"
    shared_port: str = "3128"
    classes: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """An error or a warning: code, finding, location and remedy."""

    code: str
    found: str
    where: str
    remedy: str
    # The enforcement level at which the problem stops the role.
    level: str = "application"

    @property
    def message(self) -> str:
        return "%s: %s. %s" % (self.where, self.found, self.remedy)

    def as_dict(self) -> dict[str, str]:
        return dict(asdict(self), message=self.message)


@dataclass
class Plan:
    """The settings for the gateway's service. If a setting is None, the operator's own value stays in effect."""

    problems: List[Problem] = field(default_factory=list)
    warnings: List[Problem] = field(default_factory=list)
    workdir: str = "/app"
    # The path of the bootstrap in the gateway's container.
    bootstrap: str = ""
    # The setting that loads the bootstrap: command, entrypoint or NODE_OPTIONS.
    loaded_by: str = ""
    command: Optional[Command] = None
    entrypoint: Optional[List[str]] = None
    environment: Dict[str, str] = field(default_factory=dict)
    networks: Optional[Dict[str, Any]] = None
    # The path in the operator's NODE_EXTRA_CA_CERTS, and the file on the host that is mounted there, if known.
    ca: str = ""
    ca_on_host: str = ""
    # Networks and ports of the operator's service. At enforcement level `network`, the ingress forwarder gets them.
    own_networks: Dict[str, Any] = field(default_factory=dict)
    ports: List[Any] = field(default_factory=list)
    # NETWORK:BRIDGE=PORT for each class that has a network in the nested daemon: arguments of the firewall entrypoint.
    class_networks: List[str] = field(default_factory=list)
    # The setting that gives the gateway the host's Docker daemon, in which sandboxes run as its siblings. If it is
    # empty, they run in a nested daemon.
    siblings: str = ""
    # A hash of the operator's settings that the plan replaces. If it changes, the role must make a new plan.
    fingerprint: str = ""

    def as_dict(self) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self).items() if name not in ("problems", "warnings")}
        plain["problems"] = [problem.as_dict() for problem in self.problems]
        plain["warnings"] = [warning.as_dict() for warning in self.warnings]
        return plain


def make_plan(
    uninterpolated: Settings | None,
    interpolated: Settings | None,
    image: Settings | None,
    container: Settings | None,
    options: Options,
    real: Callable[[str], str] = posixpath.normpath,
) -> Plan:
    """Return the plan for the gateway's service.

    Args:
        uninterpolated: The project as printed by `docker compose config --no-interpolate`; None if that fails.
        interpolated: The project as printed by `docker compose config`; None if that fails. One of the two is required.
        image: `Config` of `docker image inspect`; None if the image does not exist.
        container: The output of `docker inspect` for the gateway's container; None if there is none.
        options: The role's options.
        real: A function that resolves the symbolic links in a path.
    """
    plan = Plan()
    project = interpolated or uninterpolated or {}
    services = project.get("services") or {}
    if options.service not in services:
        plan.problems.append(
            Problem(
                "no-service",
                "the compose project has no service %s. It has: %s" % (options.service, ", ".join(services) or "none"),
                "openclaw_gateway_service",
                _profile_remedy(uninterpolated, options) or _service_remedy(services),
            )
        )
        return plan
    options = replace(options, proxy_url=_reached_proxy_url(services[options.service] or {}, options))
    gateway = _Gateway(uninterpolated, interpolated, image, options)
    _plan_siblings(plan, gateway, container or {})
    try:
        _plan_start(plan, gateway)
    except ValueError as error:
        plan.problems.append(
            Problem(
                "command-unreadable",
                "the command or entrypoint cannot be split into words: %s" % error,
                gateway.where("command"),
                "Write the command and the entrypoint as YAML lists.",
            )
        )
        return plan
    _plan_environment(plan, gateway)
    _plan_ca(plan, gateway)
    _plan_networks(plan, gateway)
    _check_names(plan, gateway)
    _check_image(plan, gateway, image is None)
    if uninterpolated is None:
        plan.warnings.append(
            Problem(
                "only-interpolated",
                "`docker compose config --no-interpolate` fails, as Compose 2.26 does for some projects."
                " Nothing is lost, because NODE_OPTIONS loads the bootstrap",
                "compose files",
                "Update Docker Compose if you want `--require` in the command.",
            )
        )
    _check_container(plan, gateway, container or {}, real)
    _check_running(plan, gateway, container or {})
    _check_requirements_of_level_network(plan, gateway)
    plan.fingerprint = _fingerprint(gateway)
    return plan


def _plan_siblings(plan: Plan, gateway: _Gateway, container: Settings) -> None:
    """Decide whether the sandboxes run in the host's Docker daemon, as siblings of the gateway."""
    options = gateway.options
    daemon = _declared_daemon(gateway, inputs.mounts(gateway.service), gateway.environment)
    of_container = _declared_daemon(
        gateway,
        [(str(one.get("Source") or ""), str(one.get("Destination") or "")) for one in container.get("Mounts") or []],
        inputs.image_environment(container.get("Config") or {}),
    )
    # Ignore the comparison if the compose files add a daemon that the running container does not use yet.
    seen = options.daemon_seen if of_container.where or not daemon.where else ""
    found = daemon if daemon.where else of_container
    where, kind = found.where, found.kind
    has_socket = kind == "host" or seen == "same"
    if seen:
        kind = "host" if seen == "same" else "other" if where else ""
    where = where or ("the container %s" % options.service if kind == "host" else "")
    if options.sandbox_daemon == "host" or (options.sandbox_daemon == "auto" and kind == "host"):
        plan.siblings = where or "openclaw_gateway_sandbox_daemon"
    _check_daemon(plan, gateway, where, kind)
    # Warn in any case: with the setting `nested`, the gateway can still use the host's daemon.
    if has_socket:
        plan.warnings.append(
            Problem(
                "host-docker",
                "%s can use the host's Docker daemon. A process in the gateway can therefore become root on the host,"
                " and bypass the proxy with a container on another network" % options.service,
                where,
                "Give the gateway its own Docker daemon, or a socket proxy that permits only the calls that OpenClaw"
                " needs (SECURITY.md explains both).",
            )
        )


def _check_daemon(plan: Plan, gateway: _Gateway, where: str, kind: str) -> None:
    """Refuse a Docker daemon that the role cannot identify, or in which it cannot confine the sandboxes."""
    options = gateway.options
    if kind == "unknown" and options.sandbox_daemon == "auto":
        plan.problems.append(
            Problem(
                "daemon-unknown",
                "%s uses a Docker daemon that may be the host's or another one, and cannot be asked now, because the"
                " gateway does not run or has no `docker` command" % options.service,
                where,
                "Start the gateway (`docker compose up -d %s` in %s), so that the role can compare the daemons, or set"
                " openclaw_gateway_sandbox_daemon to host or nested." % (options.service, options.compose_dir),
            )
        )
    if kind != "other":
        return
    found = "%s uses another Docker daemon than the host's" % options.service
    if options.sandbox_daemon == "host":
        plan.problems.append(
            Problem(
                "other-daemon",
                found + ", but openclaw_gateway_sandbox_daemon is host",
                where,
                "Mount the host's /var/run/docker.sock, or set openclaw_gateway_sandbox_daemon to auto.",
            )
        )
        return
    plan.warnings.append(
        Problem(
            "other-daemon",
            found + ". The role sets the proxy in OpenClaw's sandbox settings, but creates no networks there",
            where,
            "Check that containers of that daemon reach %s, for example by connecting its container to %s."
            % (options.proxy_address, options.proxy_network),
        )
    )
    if gateway.is_network:
        plan.problems.append(
            Problem(
                "other-daemon",
                found + ", whose containers have egress besides the proxy",
                where,
                "Run the daemon in the gateway's container, or mount the host's /var/run/docker.sock.",
                "network",
            )
        )


@dataclass(frozen=True)
class _Daemon:
    """A Docker daemon outside of the gateway's container: the setting that names it, and which daemon it is.

    The kind is ``host``, ``other`` or ``unknown``; empty if there is none.
    """

    where: str = ""
    kind: str = ""


def _declared_daemon(gateway: _Gateway, mounts: Iterable[tuple[str, str]], environment: Mapping[str, str]) -> _Daemon:
    """Find the Docker daemon outside of the gateway's container that mounts and environment give it."""
    mounts = list(mounts)
    if any(_HOST_SOCKET.search(source) for source, _target in mounts):
        return _Daemon(gateway.where("volumes"), "host")
    # Look at the target too: a rootless daemon, Podman, or a variable without a value can give the source any name.
    if any(source.endswith("docker.sock") or target.endswith("/docker.sock") for source, target in mounts):
        return _Daemon(gateway.where("volumes"), "unknown")
    parts = urlsplit(environment.get("DOCKER_HOST", ""))
    where = gateway.where("environment.DOCKER_HOST")
    if parts.scheme == "unix":
        covered = any((parts.path + "/").startswith(target.rstrip("/") + "/") for _source, target in mounts if target)
        return _Daemon(where, "unknown") if covered else _Daemon()
    if parts.scheme not in ("tcp", "http", "https", "ssh") or not parts.hostname:
        return _Daemon()
    if parts.hostname == "localhost" or inputs.is_loopback(parts.hostname):
        # In the network namespace of the host or of another container, loopback can lead to any daemon.
        return _Daemon(where, "unknown") if gateway.service.get("network_mode") else _Daemon()
    for name, service in (gateway.project.get("services") or {}).items():
        if parts.hostname in (name, (service or {}).get("container_name")):
            sockets = any(_HOST_SOCKET.search(source) for source, _target in inputs.mounts(service or {}))
            return _Daemon(where, "host" if sockets else "other")
    return _Daemon(where, "unknown")


def _reached_proxy_url(service: Settings, options: Options) -> str:
    """Return the URL by which the service reaches the proxy.

    For a service on the host's network, it contains the proxy's address, because Docker's DNS is not available there.
    """
    url = urlsplit(options.proxy_url)
    if options.enforcement == "network" or service.get("network_mode") != "host" or url.hostname != OUR_SERVICES[0]:
        return options.proxy_url
    return url._replace(netloc="%s:%d" % (options.proxy_address, url.port or 8080)).geturl()


def _profile_remedy(uninterpolated: Settings | None, options: Options) -> str:
    """Return the remedy for a service whose profile is not active; empty if the service has no profile.

    Look in the uninterpolated configuration: Compose lists a service with an inactive profile there, but omits it from
    the interpolated one.
    """
    service = ((uninterpolated or {}).get("services") or {}).get(options.service) or {}
    profiles = service.get("profiles") or []
    if not profiles:
        return ""
    return "The service belongs to a profile that is not active. Set COMPOSE_PROFILES=%s in %s." % (
        profiles[0],
        options.env_file,
    )


def _service_remedy(services: Settings) -> str:
    alike = [
        name
        for name, service in services.items()
        if name not in OUR_SERVICES
        and re.search(r"openclaw|clawdbot|moltbot", json.dumps([name, service or {}], default=str))
    ]
    name = alike[0] if len(alike) == 1 else "the name of the gateway's service"
    return "Set openclaw_gateway_service to %s." % name


class _Gateway:
    """The gateway's service in the interpolated and in the uninterpolated configuration, its image, and the options."""

    def __init__(
        self, uninterpolated: Settings | None, interpolated: Settings | None, image: Settings | None, options: Options
    ) -> None:
        self.options = options
        self.image = image or {}
        self.project = interpolated or uninterpolated or {}
        self.service: Settings = self.project["services"][options.service] or {}
        # The service in the uninterpolated configuration; None if Compose cannot print it.
        self.raw: Settings | None = uninterpolated["services"].get(options.service) if uninterpolated else None
        self.is_network = options.enforcement == "network"
        self.is_resolved = interpolated is not None
        self.environment = inputs.image_environment(self.image)
        own = inputs.environment(self.service)
        if self.is_resolved:
            self.environment.update({name: inputs.literal(value) for name, value in own.items() if value is not None})
        else:
            self.environment.update(inputs.resolved(own))

    def where(self, setting: str) -> str:
        return "services.%s.%s" % (self.options.service, setting)

    def words(self, setting: str) -> list[str] | None:
        """Return the words of the service's command or entrypoint, or None if the compose files do not set it."""
        value = self.service.get(setting)
        return None if value is None else [inputs.literal(word) for word in inputs.words(value)]

    def text_of(self, variable: str) -> str:
        """Return the operator's value of an environment variable for a compose file.

        Leave variable references in the value unexpanded where possible.
        """
        raw = inputs.environment(self.raw) if self.raw is not None else {}
        if variable in raw:
            given = raw[variable]
            return "${%s:-}" % variable if given is None else given
        return inputs.escaped(self.environment.get(variable, ""))

    @property
    def source(self) -> Settings:
        return self.service if self.raw is None else self.raw


@dataclass(frozen=True)
class _Start:
    """Effective entrypoint and command of the container. Docker combines them from Compose and the image."""

    entrypoint: List[str]
    command: List[str]
    # True if the container runs the image's own command.
    by_image: bool


def _start(gateway: _Gateway) -> _Start:
    entrypoint, command = gateway.words("entrypoint"), gateway.words("command") or []
    of_image = list(gateway.image.get("Cmd") or [])
    if entrypoint is None:
        entrypoint = list(gateway.image.get("Entrypoint") or [])
    elif entrypoint:
        # Ignore the image's command: an entrypoint in a compose file clears it.
        return _Start(entrypoint, command, False)
    return _Start(entrypoint, command or of_image, not command)


def _plan_start(plan: Plan, gateway: _Gateway) -> None:
    """Choose the setting that loads the bootstrap, and plan command, entrypoint and NODE_OPTIONS."""
    options = gateway.options
    start = _start(gateway)
    in_image = str(gateway.image.get("WorkingDir") or ("/" if gateway.image else "/app"))
    plan.workdir = str(gateway.service.get("working_dir") or in_image)
    mounted = options.bootstrap == "mount"
    plan.bootstrap = MOUNTED_BOOTSTRAP if mounted else posixpath.join(in_image, "proxy-bootstrap.cjs")
    required = plan.bootstrap if mounted or plan.workdir != in_image else "./proxy-bootstrap.cjs"
    command: Command | None = None
    entrypoint: Command | None = None
    if start.entrypoint and _NODE.match(start.entrypoint[0]):
        entrypoint = _with_bootstrap(gateway, "entrypoint", start.entrypoint, required)
    elif start.command and _NODE.match(start.command[0]) and _is_transparent(start.entrypoint):
        command = _with_bootstrap(gateway, "command", start.command, required)
    if entrypoint is None and command is None:
        plan.loaded_by = "NODE_OPTIONS"
        options_of_node = ["--require %s" % _quoted(plan.bootstrap), gateway.text_of("NODE_OPTIONS")]
        plan.environment["NODE_OPTIONS"] = " ".join(filter(None, options_of_node))
    else:
        plan.loaded_by = "command" if entrypoint is None else "entrypoint"
    if gateway.is_network:
        own = entrypoint if entrypoint is not None else _entrypoint_text(gateway, start)
        # Siblings have networks of the host's daemon. Their classes need no rule in the gateway's namespace.
        plan.class_networks = [] if plan.siblings else _class_networks(options)
        entrypoint = _firewall_entrypoint(plan, options) + inputs.words(own)
    if entrypoint is not None:
        plan.entrypoint = inputs.words(entrypoint)
        if command is None and start.by_image and start.command:
            # Docker ignores the image's command if the compose file sets an entrypoint, so write the command too.
            command = [inputs.escaped(word) for word in start.command]
    plan.command = command
    _check_words(plan, gateway, start)
    if not mounted and _covering(gateway, plan.bootstrap):
        plan.problems.append(
            Problem(
                "bootstrap-hidden",
                "a volume at %s hides the bootstrap in the image, %s"
                % (_covering(gateway, plan.bootstrap)[0], plan.bootstrap),
                gateway.where("volumes"),
                "Set openclaw_gateway_bootstrap: mount.",
            )
        )


def _entrypoint_text(gateway: _Gateway, start: _Start) -> list[str]:
    """Return the operator's entrypoint as a list for a compose file.

    Leave variable references such as ${NAME} unexpanded where possible.
    """
    if gateway.raw is not None and gateway.words("entrypoint"):
        text = inputs.words(gateway.raw.get("entrypoint"))
        # If the number of words differs, return the expanded words: Compose expands variables before it splits a
        # string, so a variable can stand for several words.
        if len(text) == len(start.entrypoint):
            return text
    return [inputs.escaped(word) for word in start.entrypoint]


def _with_bootstrap(gateway: _Gateway, setting: str, effective: list[str], required: str) -> Command | None:
    """Insert the bootstrap's `--require` after `node` in command or entrypoint. Return None if `node` is not first."""
    if not gateway.service.get(setting):
        return [inputs.escaped(effective[0]), "--require", required] + [inputs.escaped(word) for word in effective[1:]]
    text = gateway.raw.get(setting) if gateway.raw is not None else None
    if isinstance(text, str):
        found = _NODE_FIRST.match(text)
        if found is None:
            return None
        return "%s --require %s%s" % (text[: found.end()], shlex.quote(required), text[found.end() :])
    if text and _NODE.match(str(text[0])):
        return [str(text[0]), "--require", required] + [str(word) for word in text[1:]]
    return None


def _is_transparent(entrypoint: list[str]) -> bool:
    """Return whether an entrypoint runs the command unmodified, as `tini --` and entrypoint scripts do."""
    if not entrypoint or entrypoint[-1] == "--":
        return True
    return len(entrypoint) == 1 and not _INTERPRETS.match(entrypoint[0])


def _covering(gateway: _Gateway, path: str) -> list[str]:
    """Return the mount points of the operator's volumes that contain this path, except `/`, which Docker forbids."""
    targets = [target.rstrip("/") for _source, target in inputs.mounts(gateway.service)]
    return [target for target in targets if target and path.startswith(target + "/")]


def _quoted(path: str) -> str:
    """Quote a path for NODE_OPTIONS: in double quotes if it contains spaces."""
    escaped = inputs.escaped(path)
    return '"%s"' % escaped.replace("\\", "\\\\").replace('"', '\\"') if re.search(r"[\s\"\\]", path) else escaped


def _inner_address(options: Options, number: int) -> str:
    return str(ipaddress.ip_network(options.inner_subnet, strict=False).network_address + number)


def _class_networks(options: Options) -> list[str]:
    return [
        "%s:%s=%s" % (network, bridge, options.classes[name]["listen"])
        for name, (network, bridge) in NESTED_NETWORKS.items()
        if "listen" in (options.classes.get(name) or {})
    ]


def _firewall_entrypoint(plan: Plan, options: Options) -> list[str]:
    """Return the firewall entrypoint with its arguments. The comment at the top of the script describes them."""
    ports: list[str] = []
    # Without a nested daemon, the gateway has no use for the listener of the class build.
    for name in ("gateway",) if plan.siblings else ("gateway", "build"):
        port = str((options.classes.get(name) or {}).get("listen", 8080))
        if port not in ports:
            ports.append(port)
    addresses = [_inner_address(options, 2), _inner_address(options, 4)]
    words = [*addresses, options.inner_subnet, options.shared_port, ",".join(ports), *plan.class_networks]
    return ["/opt/openclaw-egress/firewall-entrypoint", *words, "--"]


def _check_words(plan: Plan, gateway: _Gateway, start: _Start) -> None:
    """Add a problem for each part of the command that removes or replaces our variables in the gateway's processes."""
    text = " ".join([*start.entrypoint, *start.command])
    ours = (*OTHER_PROXIES, *_KEPT, "NODE_USE_ENV_PROXY")
    set_names = [(name, "sets") for name in re.findall(_SHELL_START + r"(%s)=" % "|".join(ours), text)]
    unset = [name for names in _UNSETS.findall(text) for name in names.split() if name in ours]
    for name, verb in [*set_names, *((name, "unsets") for name in unset)]:
        if name == "NODE_OPTIONS" and (
            plan.loaded_by != "NODE_OPTIONS" or (verb == "sets" and re.search(r"\$\{?NODE_OPTIONS\b", text))
        ):
            continue
        if verb == "unsets":
            remedy = "Do not unset %s in the command." % name
        elif name in _KEPT:
            remedy = "Set %s in `environment` of the service, because the role preserves it there." % name
        else:
            remedy = "Remove the assignment from the command."
        plan.problems.append(
            Problem(
                "variable-overridden",
                "the command %s %s itself, so the gateway would not get the value that the role sets" % (verb, name),
                gateway.where("command"),
                remedy,
            )
        )
    words = start.command if start.command and _is_transparent(start.entrypoint) else start.entrypoint + start.command
    named = " ".join(words)
    if plan.loaded_by == "NODE_OPTIONS" and words and (_OTHER_RUNTIME.search(named) or not _RUNS_NODE.search(named)):
        plan.warnings.append(
            Problem(
                "no-node",
                "the command names no Node program (%s). The bootstrap covers only Node processes that the command"
                " starts" % words[0],
                gateway.where("command"),
                "Set openclaw_gateway_enforcement to network if other programs must not bypass the proxy.",
            )
        )
    cleared = _CLEARS.search(text)
    if cleared:
        plan.problems.append(
            Problem(
                "environment-cleared",
                "the command starts the gateway with `%s`, which removes the proxy variables" % cleared[1],
                gateway.where("command"),
                "Use a program that preserves them, such as `gosu USER …`, `su -m USER -c …` or `sudo "
                "--preserve-env …`.",
            )
        )


def _plan_environment(plan: Plan, gateway: _Gateway) -> None:
    options = gateway.options
    found = gateway.environment
    _check_other_proxy(plan, gateway)
    plan.environment.update(dict.fromkeys(PROXY_VARIABLES, options.proxy_url))
    own = _entries(gateway.text_of("NO_PROXY")) + _entries(gateway.text_of("no_proxy"))
    effective = [found.get("NO_PROXY", ""), found.get("no_proxy", "")]
    if "*" in [*own, *(entry for value in effective for entry in re.split(r"[,\s]+", value))]:
        plan.problems.append(
            Problem(
                "no-proxy-all",
                "NO_PROXY is *, so no request would use the proxy",
                gateway.where("environment"),
                "List only the destinations that need no proxy.",
            )
        )
    local = [name for name in _local_names(gateway) if name not in options.no_proxy]
    # List hosts in addition to address ranges, because Node compares each entry of NO_PROXY as text.
    entries = [*options.direct_hosts, *_telemetry_hosts(found), *own, *local, *options.no_proxy]
    if gateway.is_network:
        _warn_of_local_names(plan, gateway, local)
    # At enforcement level `network`, all traffic except loopback uses the proxy, including the gateway's telemetry.
    no_proxy = "localhost,127.0.0.1" if gateway.is_network else ",".join(dict.fromkeys(entries))
    plan.environment.update({"NO_PROXY": no_proxy, "no_proxy": no_proxy})
    ca = CA_ELSEWHERE if _covering(gateway, CA_IN_GATEWAY) else CA_IN_GATEWAY
    plan.environment.update({"NODE_USE_ENV_PROXY": "1", "NODE_EXTRA_CA_CERTS": ca})


def _check_other_proxy(plan: Plan, gateway: _Gateway) -> None:
    """Refuse another proxy of the operator, unless the egress proxy uses it as its upstream proxy.

    The plan overrides the variables of the accepted proxy: `PROXY_VARIABLES` with the egress proxy, others with an
    empty value. A rollback removes our compose file, so the operator's own values apply again.
    """
    own = inputs.environment(gateway.service)
    options = gateway.options
    other: list[str] = []
    of_image: list[str] = []
    for name in OTHER_PROXIES:
        value = gateway.environment.get(name, "").rstrip("/")
        if value in ("", options.proxy_url):
            continue
        # The plan overrides the variables in PROXY_VARIABLES of an image, so ignore them.
        if name not in own and name in PROXY_VARIABLES:
            continue
        if options.upstream_proxy and _upstream_of(value) == _upstream_of(options.upstream_proxy):
            if name not in PROXY_VARIABLES:
                plan.environment[name] = ""
            continue
        (other if name in own else of_image).append(name)
    if other or of_image:
        plan.problems.append(
            Problem(
                "other-proxy",
                "%s has a proxy already (%s in your own compose files, env_file or image), and it can use only one"
                % (options.service, ", ".join([*other, *("%s of the image" % name for name in of_image)])),
                gateway.where("environment"),
                "Remove these variables."
                + (" Set the variables of the image to an empty value in `environment`." if of_image else "")
                + _upstream_remedy([gateway.environment[name] for name in [*other, *of_image]]),
            )
        )


def _upstream_of(value: str) -> str:
    """Return the URL of an HTTP proxy in one spelling and without credentials; empty if the value is not one."""
    try:
        url = urlsplit(value if "://" in value else "http://" + value)
        host, port = url.hostname, url.port
    except ValueError:
        return ""
    if url.scheme not in ("http", "https") or not host or not re.match(r"[a-z0-9._:-]+\Z", host):
        return ""
    shown = "[%s]" % host if ":" in host else host.rstrip(".")
    return "%s://%s:%d" % (url.scheme, shown, port or (443 if url.scheme == "https" else 80))


def _upstream_remedy(values: list[str]) -> str:
    """Return how to send the traffic on through the operator's proxy; empty if there is no single HTTP proxy."""
    urls = list(dict.fromkeys(_upstream_of(value) for value in values))
    if len(urls) != 1 or not urls[0]:
        return ""
    with_login = " and openclaw_proxy_upstream_proxy_auth to its USER:PASSWORD" if "@" in values[0] else ""
    return (
        " If the internet is reachable only through that proxy, set openclaw_proxy_upstream_proxy to %s%s instead:"
        " the egress proxy then uses it, and the variables can stay." % (urls[0], with_login)
    )


def _entries(no_proxy: str) -> list[str]:
    """Split NO_PROXY into its entries, but not at a comma in the default value of a Compose variable."""
    return [entry.strip() for entry in re.split(r",(?![^{]*\})", no_proxy) if entry.strip()]


def _telemetry_hosts(environment: Mapping[str, str]) -> list[str]:
    found = []
    for name, value in environment.items():
        if re.match(r"OTEL_EXPORTER_OTLP_.*ENDPOINT\Z", name):
            host = re.search(r"://(?:[^/@]*@)?([A-Za-z0-9.-]+)", value)
            if host:
                found.append(host[1])
    return found


def _local_names(gateway: _Gateway) -> list[str]:
    """Return the hosts that the gateway can reach directly, but the proxy probably cannot.

    These are the other services on its networks, links, extra hosts with a private address, and local hosts in URLs of
    its environment and health check, such as a container of another project.
    """
    service, project = gateway.service, gateway.project
    own = set(inputs.network_names(project, inputs.reached_networks(project, service)).values())
    mode_service = str(service.get("network_mode") or "").partition("service:")[2]
    names: list[str] = []
    for name, other in (project.get("services") or {}).items():
        if name in (gateway.options.service, mode_service, *OUR_SERVICES):
            continue
        theirs = inputs.networks(other or {})
        shared = [key for key, real in inputs.network_names(project, theirs).items() if real in own]
        if shared:
            names += [name, str((other or {}).get("container_name") or name)]
            names += [str(alias) for key in shared for alias in theirs[key].get("aliases") or []]
    for link in [*(service.get("links") or []), *(service.get("external_links") or [])]:
        names.append(str(link).rpartition(":")[2])
    names += [name for name, address in inputs.extra_hosts(service).items() if inputs.is_local(address)]
    texts = [value for variable, value in gateway.environment.items() if variable not in OTHER_PROXIES]
    for text in [*texts, inputs.health_check(service, gateway.image)]:
        names += [host for host in _hosts(text) if inputs.is_local_host(host)]
    ours = {"localhost", urlsplit(gateway.options.proxy_url).hostname, *OUR_SERVICES}
    return [name for name in dict.fromkeys(names) if name not in ours]


def _hosts(text: str) -> list[str]:
    """Return the hosts of the URLs in a text, without IPv6 addresses."""
    return [host.lower() for host in re.findall(r"[a-z][a-z0-9+.-]*://(?:[^/@\s]*@)?([A-Za-z0-9][\w.-]*)", text)]


def _warn_of_local_names(plan: Plan, gateway: _Gateway, local: list[str]) -> None:
    # Do not warn about telemetry: at enforcement level `network`, the proxy forwards it.
    telemetry = [host for host in _telemetry_hosts(gateway.environment) if "." in host]
    reached = (gateway.options.service, *telemetry)
    elsewhere = [name for name in local if name not in reached and not inputs.is_loopback(name)]
    for variable, value in gateway.environment.items():
        for name in elsewhere:
            if name in _hosts(value) or re.match(r"%s(?::\d+)?\Z" % re.escape(name), value):
                plan.warnings.append(
                    Problem(
                        "local-service",
                        "%s names %s, which the gateway does not reach directly at the level network"
                        % (variable, name),
                        gateway.where("environment"),
                        "Connect openclaw-proxy to a network of %s, and name its range and port in `addresses` of the"
                        " policy's class gateway." % name,
                        "network",
                    )
                )


def _plan_ca(plan: Plan, gateway: _Gateway) -> None:
    """Find the operator's own CA certificates. The role combines them with the proxy's certificate in one file."""
    path = gateway.environment.get("NODE_EXTRA_CA_CERTS", "")
    if path in ("", CA_IN_GATEWAY, CA_ELSEWHERE):
        return
    plan.ca = posixpath.join(plan.workdir, path)
    files = [*inputs.mounts(gateway.service), *inputs.files(gateway.project, gateway.service)]
    above = [(target, source) for source, target in files if (plan.ca + "/").startswith(target.rstrip("/") + "/")]
    if above:
        target, source = max(above, key=lambda pair: len(pair[0]))
        rest = plan.ca[len(target.rstrip("/")) :]
        plan.ca_on_host = source.rstrip("/") + rest if source.startswith("/") else ""


def _plan_networks(plan: Plan, gateway: _Gateway) -> None:
    """Plan the ingress forwarder's networks. Add the gateway to the proxy's network if the two share none."""
    options, project = gateway.options, gateway.project
    plan.own_networks = dict(inputs.networks(gateway.source)) or {"default": {}}
    plan.ports = list(gateway.source.get("ports") or [])
    if gateway.is_network:
        return
    if gateway.service.get("network_mode"):
        _check_network_mode(plan, gateway)
        return
    own = inputs.networks(gateway.service)
    if options.proxy_network not in inputs.network_names(project, own).values():
        # Name `default` too: Compose adds it automatically only if no file names a network for the service.
        plan.networks = {**({"default": {}} if list(own) == ["default"] else {}), options.proxy_network: {}}


def _check_network_mode(plan: Plan, gateway: _Gateway) -> None:
    options = gateway.options
    mode = str(gateway.service["network_mode"])
    kind, name = mode.partition(":")[::2]
    found = "%s has network_mode %s, so it cannot reach the proxy at %s" % (options.service, mode, options.proxy_url)
    if kind == "host" and options.instance:
        remedy = (
            "Remove network_mode, because only the gateway's own network distinguishes it from other gateways."
            " The role then joins it to %s." % options.proxy_network
        )
    elif kind == "host":
        if _is_address(urlsplit(options.proxy_url).hostname or ""):
            return
        remedy = (
            "Set openclaw_gateway_proxy_url: http://%s:8080, the proxy's address on %s, which the host reaches."
            % (options.proxy_address, options.proxy_network)
        )
    elif kind == "service":
        other = (gateway.project.get("services") or {}).get(name) or {}
        reached = inputs.reached_networks(gateway.project, other)
        if options.proxy_network in inputs.network_names(gateway.project, reached).values():
            return
        remedy = (
            "In your compose file add the external network %s to the networks of the service %s, whose network it uses."
            % (options.proxy_network, name)
        )
    else:
        remedy = "Remove network_mode. The role then joins the gateway to %s." % options.proxy_network
    plan.problems.append(Problem("network-mode", found, gateway.where("network_mode"), remedy))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_names(plan: Plan, gateway: _Gateway) -> None:
    """Add a problem for each service or network in the operator's files that Compose would merge with one of ours."""
    project, network = gateway.project, gateway.options.proxy_network

    def taken(found: str, where: str, remedy: str) -> None:
        plan.problems.append(Problem("name-taken", found, where, remedy))

    for name, service in (project.get("services") or {}).items():
        where = "services.%s" % name
        if name in OUR_SERVICES:
            taken(
                "your compose files have a service named %s, but the role uses that name" % name,
                where,
                "Rename your service.",
            )
        elif (service or {}).get("container_name") in OUR_SERVICES:
            found = "the container is named %s, but the role uses that name" % service["container_name"]
            taken(found, where + ".container_name", "Choose another container_name.")
    if network in (project.get("networks") or {}):
        real = inputs.network_names(project, {network: {}})[network]
        if real != network:
            taken(
                "your compose files use this key for the network %s, but the role uses it for the proxy's network"
                % real,
                "networks.%s" % network,
                "Rename the key, also in the services that use it.",
            )


def _check_image(plan: Plan, gateway: _Gateway, is_missing: bool) -> None:
    options = gateway.options
    used = inputs.image_name(gateway.project, options.service)
    if options.image and used and inputs.full_image_name(options.image) != inputs.full_image_name(used):
        plan.problems.append(
            Problem(
                "other-image",
                "openclaw_gateway_image is %s, but %s uses %s" % (options.image, options.service, used),
                gateway.where("image"),
                "Remove openclaw_gateway_image from your inventory, or set it to %s." % used,
            )
        )
    elif is_missing and options.bootstrap == "mount":
        how = "build" if gateway.service.get("build") else "pull"
        plan.problems.append(
            Problem(
                "no-image",
                "Docker has no image %s, so its entrypoint and command are unknown" % (options.image or used),
                gateway.where("image"),
                "Run `docker compose %s %s` in %s." % (how, options.service, options.compose_dir),
            )
        )


def _check_container(plan: Plan, gateway: _Gateway, container: Settings, real: Callable[[str], str]) -> None:
    """Check that the running container was started from the files, project and service of the plan."""
    options = gateway.options
    labels = (container.get("Config") or {}).get("Labels") or {}
    prefix = "com.docker.compose."

    def differs(code: str, found: str, label: str, remedy: str) -> None:
        plan.problems.append(Problem(code, found, "label %s%s" % (prefix, label), remedy))

    files = [real(path) for path in labels.get(prefix + "project.config_files", "").split(",") if path]
    theirs = [path for path in files if path != real(options.compose_file)]
    if options.instance:
        theirs = [path for path in theirs if not _OUR_FILE.search(path)]
    ours = [real(path) for path in options.compose_files]
    if files and theirs != ours:
        differs(
            "other-files",
            "the container was started with %s; site.yml would use %s" % (", ".join(theirs), ", ".join(ours)),
            "project.config_files",
            "To keep the container's files, set COMPOSE_FILE=%s in %s. To use the files of site.yml, run"
            " `docker compose up -d %s` in %s first."
            % (":".join(theirs), options.env_file, options.service, options.compose_dir),
        )
    project, name = labels.get(prefix + "project", ""), str(gateway.project.get("name") or "")
    if project and name and project != name:
        differs(
            "other-project",
            "the container belongs to the project %s; site.yml would use %s" % (project, name),
            "project",
            "Set COMPOSE_PROJECT_NAME=%s in %s." % (project, options.env_file),
        )
    directory = labels.get(prefix + "project.working_dir", "")
    if directory and real(directory) != real(options.compose_dir):
        differs(
            "other-directory",
            "the container was started in %s; site.yml would use %s" % (real(directory), real(options.compose_dir)),
            "project.working_dir",
            "Set openclaw_egress_compose_dir to the directory of the container.",
        )
    service = labels.get(prefix + "service", "")
    if service and service != options.service:
        differs(
            "other-service",
            "the container belongs to the service %s; site.yml would start %s" % (service, options.service),
            "service",
            "Set openclaw_gateway_service to the service of the container.",
        )


def _check_running(plan: Plan, gateway: _Gateway, container: Settings) -> None:
    """Compare the plan with the command and environment of a container that the role did not start."""
    config = container.get("Config") or {}
    if (
        not config
        or OUR_LABEL in (config.get("Labels") or {})
        or "com.docker.compose.project" not in (config.get("Labels") or {})
    ):
        return
    options = gateway.options
    start_it = "run `docker compose up -d %s` in %s" % (options.service, options.compose_dir)
    for setting, of_container in (("entrypoint", config.get("Entrypoint")), ("command", config.get("Cmd"))):
        configured = gateway.words(setting)
        if gateway.is_resolved and configured and of_container is not None and configured != of_container:
            plan.problems.append(
                Problem(
                    "other-%s" % setting,
                    "the container runs %s; your compose files specify %s" % (_shown(of_container), _shown(configured)),
                    gateway.where(setting),
                    "If the files are right, %s first. If the container is right, correct the files, or set the"
                    " variables that they use in %s." % (start_it, options.env_file),
                )
            )
    running = inputs.image_environment(config)
    other = [
        name
        for name in OTHER_PROXIES
        if running.get(name, "") not in ("", options.proxy_url) and not gateway.environment.get(name)
    ]
    if other:
        plan.problems.append(
            Problem(
                "other-proxy",
                "the running container has a proxy (%s) that your compose files do not set" % ", ".join(other),
                "environment of the container",
                "Unset these variables in the shell that starts Compose, or remove `proxies` from Docker's config.json,"
                " and %s." % start_it,
            )
        )


def _shown(words: list[str]) -> str:
    """Format words as JSON, without the values of options that may contain a secret."""
    shown = []
    for index, word in enumerate(words):
        hidden = index > 0 and _SECRET.search(words[index - 1]) and "=" not in words[index - 1]
        shown.append("…" if hidden else re.sub(r"(?i)((?:token|password|secret|key)\S*?[= ]).+", r"\1…", word))
    return json.dumps(shown, ensure_ascii=False)


def _check_requirements_of_level_network(plan: Plan, gateway: _Gateway) -> None:
    name = gateway.options.service

    def lacks(code: str, found: str, setting: str, remedy: str) -> None:
        if gateway.is_network:
            plan.problems.append(Problem(code, "%s %s" % (name, found), gateway.where(setting), remedy, "network"))

    mode = gateway.service.get("network_mode")
    if mode:
        lacks(
            "network-mode",
            "has network_mode %s in your compose files, so firewall rules would affect another network namespace"
            % mode,
            "network_mode",
            "Give the service its own network.",
        )
    if not plan.siblings and "host-docker" in [warning.code for warning in plan.warnings]:
        lacks(
            "docker-socket",
            "can use the host's Docker daemon, but its sandboxes run in another daemon, which the firewall entrypoint"
            " cannot find then",
            "volumes",
            "Remove the socket, or set openclaw_gateway_sandbox_daemon to auto.",
        )
    if plan.siblings.endswith(".DOCKER_HOST") and not gateway.environment.get("DOCKER_HOST", "").startswith("unix:"):
        lacks(
            "docker-host",
            "reaches Docker over the network, and the internal network does not lead there",
            "environment.DOCKER_HOST",
            "Mount a Unix socket instead: the daemon's, or that of a socket proxy.",
        )
    user = str(gateway.service.get("user") or gateway.image.get("User") or "0").partition(":")[0]
    if user not in ("0", "root"):
        lacks(
            "user",
            "starts as a user other than root, which cannot set firewall rules",
            "user",
            'Set `user: "0:0"`, and change to another user in its entrypoint, as a gateway with a nested daemon does.',
        )


def _fingerprint(gateway: _Gateway) -> str:
    source, start = gateway.source, _start(gateway)
    # Hash the uninterpolated text, so that a new value in .env does not change the hash.
    seen = [source.get("entrypoint") or start.entrypoint, start.command if start.by_image else source.get("command")]
    if gateway.is_network:
        seen += [inputs.networks(source), source.get("ports") or []]
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:12]

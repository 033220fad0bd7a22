# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Settings of several gateways on one host, computed from ``openclaw_gateway_instances``, and checks of that option.

Each gateway gets one subnet. Its four quarters are networks for the gateway at enforcement level ``application``, for
the gateway at level ``network``, for its sandboxes and for its browsers. The listeners of a gateway's classes open in
its own networks only, so no other gateway can use them.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import Any, Dict, List, Mapping

from ansible_collections.openclaw.egress.plugins.module_utils.class_networks import class_networks

Gateway = Dict[str, Any]

OPTION = "openclaw_gateway_instances"
# Keep this equal to the pattern of `instance` in the policy.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")
KINDS = ("gateway", "browser", "sandbox", "build")
EXAMPLE_SUBNET = "172.31.240.0/24"
# The first port to suggest for a class of the policy. The default policy uses lower ports.
_FIRST_PORT = 8180


def gateway_instances(
    given: List[Mapping[str, Any]], defaults: Mapping[str, Any], policy: Mapping[str, Any]
) -> Dict[str, Any]:
    """Return the gateways with all their options, and the problems of the input: ``{"gateways": …, "problems": …}``.

    Args:
        given: The value of ``openclaw_gateway_instances``, whose keys and types have been checked.
        defaults: The value of each option for gateways that do not set it, without the prefix ``openclaw_gateway_``.
        policy: The classes of the policy by name.
    """
    problems: List[str] = []
    gateways: List[Gateway] = []
    for number, item in enumerate(given):
        name = str(item.get("name", ""))
        where = "%s[%d]" % (OPTION, number)
        if not NAME.match(name):
            problems.append(
                "%s.name: %r is not a valid name. Use at most 32 characters: a-z, 0-9 and -, starting and ending with"
                " a letter or a digit." % (where, name)
            )
            continue
        chosen = {key: value for key, value in item.items() if value is not None}
        classes = chosen.get("classes") or {}
        if not isinstance(classes, Mapping):
            problems.append("%s.classes: write a mapping of kinds (%s) to classes." % (where, ", ".join(KINDS)))
            continue
        gateway = {**defaults, "subnet": "", **chosen, "name": name, "classes": _class_names(name, classes)}
        gateway["compose_dir"] = posixpath.normpath(str(gateway["compose_dir"]))
        gateways.append(gateway)
        _check_subnet(gateway, problems)
        _check_classes(gateway, policy, problems)
    problems += _conflicts(gateways, policy)
    if not problems:
        for gateway in gateways:
            _complete(gateway, policy, defaults, gateways)
    return {"gateways": [] if problems else gateways, "problems": problems}


def _class_names(name: str, classes: Mapping[str, Any]) -> Dict[str, str]:
    own = {kind: str(class_name) for kind, class_name in classes.items() if class_name is not None}
    return {kind: own.get(kind, "%s-%s" % (kind, name)) for kind in KINDS}


def _network_names(name: str) -> Dict[str, str]:
    """Return the name of each Docker network of a gateway: for the gateway at each level, and for each class."""
    names = {"gateway": "openclaw-egress-%s" % name}
    return {**names, **{kind: "%s-%s" % (names["gateway"], kind) for kind in ("inner", "sandbox", "browser")}}


def _listener(policy: Mapping[str, Any], class_name: str) -> object:
    """Return ``listen`` of a class, or None without the class or without a listener."""
    found = policy.get(class_name)
    return found.get("listen") if isinstance(found, Mapping) else None


def _unused_port(policy: Mapping[str, Any]) -> int:
    used = {str(_listener(policy, class_name)) for class_name in policy}
    return next(port for port in range(_FIRST_PORT, 65536) if str(port) not in used)


def _check_subnet(gateway: Gateway, problems: List[str]) -> None:
    where = "%s: %s: subnet" % (OPTION, gateway["name"])
    try:
        subnet = ipaddress.IPv4Network(str(gateway["subnet"]))
    except ValueError as error:
        problems.append("%s: %s. Write a subnet such as %s." % (where, error, EXAMPLE_SUBNET))
        return
    if not 16 <= subnet.prefixlen <= 26:
        problems.append(
            "%s: %s is not a subnet from /16 to /26. Write one such as %s." % (where, subnet, EXAMPLE_SUBNET)
        )


def _check_classes(gateway: Gateway, policy: Mapping[str, Any], problems: List[str]) -> None:
    """Check that the policy has the gateway's classes, each with the gateway's name as ``instance``."""
    name = gateway["name"]
    present = [class_name for class_name in gateway["classes"].values() if class_name in policy]
    for class_name in sorted({one for one in present if present.count(one) > 1}):
        kinds = [kind for kind, one in gateway["classes"].items() if one == class_name]
        problems.append(
            "%s: %s: classes: %s have the same class (%s). Give each kind its own class."
            % (OPTION, name, " and ".join(kinds), class_name)
        )
    for kind, class_name in gateway["classes"].items():
        where = "%s: %s: classes.%s" % (OPTION, name, kind)
        found = policy.get(class_name)
        if found is None:
            # Like a single gateway, a gateway needs no class for browsers, sandboxes and builds.
            if kind == "gateway":
                problems.append(
                    "%s: the policy has no class %s. Write in openclaw_proxy_policy (or the policy file), below"
                    " `classes`: `%s: {listen: %d, action: open, instance: %s}`, with a port that no other class has."
                    % (where, class_name, class_name, _unused_port(policy), name)
                )
            continue
        if not isinstance(found, Mapping):
            problems.append("%s: the class %s of the policy is not a mapping." % (where, class_name))
            continue
        if kind == "gateway" and not str(found.get("listen") or "").isdigit():
            problems.append(
                "%s: the class %s has no port as `listen`. Set `listen: %d` in it."
                % (where, class_name, _unused_port(policy))
            )
        if found.get("instance") != name:
            problems.append(
                "%s: the class %s has `instance: %s` in the policy, so records would not name this gateway. Write"
                " `instance: %s` in that class." % (where, class_name, found.get("instance") or '""', name)
            )


def _conflicts(gateways: List[Gateway], policy: Mapping[str, Any]) -> List[str]:
    """Return a message for each setting that two gateways share but must not."""
    found: List[str] = []
    used: Dict[tuple[str, str], str] = {}

    def claim(gateway: Gateway, what: str, value: object, remedy: str) -> None:
        key = (what, str(value))
        other = used.setdefault(key, gateway["name"])
        if other != gateway["name"]:
            found.append(
                "%s: %s and %s have the same %s (%s). %s" % (OPTION, other, gateway["name"], what, value, remedy)
            )

    names = [gateway["name"] for gateway in gateways]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append("%s: two gateways have the name %s. Give each gateway another name." % (OPTION, name))
    if found:
        return found
    for gateway in gateways:
        claim(
            gateway,
            "service in the same compose_dir",
            "%s in %s" % (gateway["service"], gateway["compose_dir"]),
            "Set `service` or `compose_dir` of each gateway.",
        )
        if gateway["container"]:
            claim(gateway, "container", gateway["container"], "Set `container` of each gateway, or leave it empty.")
        for kind, class_name in gateway["classes"].items():
            claim(
                gateway,
                "class",
                class_name,
                "Give each gateway its own classes: write `classes: {%s: %s-%s}` in its entry, and that class in the"
                " policy." % (kind, kind, gateway["name"]),
            )
            listen = _listener(policy, class_name)
            if listen is not None:
                claim(
                    gateway, "listener port", listen, "Set another `listen` in the class %s of the policy." % class_name
                )
        if gateway["inner_parent"]:
            claim(gateway, "inner_parent", gateway["inner_parent"], "Set another `inner_parent` for each gateway.")
        for network in _network_names(gateway["name"]).values():
            # The preflight creates a network with the suffix `-probe` for a moment.
            for used_name in (network, "%s-probe" % network):
                claim(gateway, "network name", used_name, "Give one of them another `name`.")
    for index, gateway in enumerate(gateways):
        for other in gateways[:index]:
            if _overlap(gateway["subnet"], other["subnet"]):
                found.append(
                    "%s: the subnets of %s and %s overlap (%s, %s). Give each gateway another `subnet`."
                    % (OPTION, other["name"], gateway["name"], other["subnet"], gateway["subnet"])
                )
    return found


def _overlap(one: object, other: object) -> bool:
    try:
        return ipaddress.IPv4Network(str(one)).overlaps(ipaddress.IPv4Network(str(other)))
    except ValueError:
        return False


def _complete(
    gateway: Gateway, policy: Mapping[str, Any], defaults: Mapping[str, Any], gateways: List[Gateway]
) -> None:
    """Add the computed settings to the options: networks, addresses and the proxy's URL."""
    quarters = [str(part) for part in ipaddress.IPv4Network(str(gateway["subnet"])).subnets(prefixlen_diff=2)]
    names = _network_names(gateway["name"])
    gateway["network"] = names["gateway"]
    gateway["inner_network"] = names["inner"]
    gateway["inner_subnet"] = quarters[1]
    gateway["class_networks"] = {
        kind: {"name": names[kind], "subnet": quarters[number]} for kind, number in (("sandbox", 2), ("browser", 3))
    }
    outer = class_networks({"gateway": {"name": gateway["network"], "subnet": quarters[0]}})[0]
    inner = class_networks({"gateway": {"name": gateway["inner_network"], "subnet": quarters[1]}})[0]
    own = inner if gateway["enforcement"] == "network" else outer
    gateway["address"] = own["address"]
    gateway["networks"] = [
        {**own, "driver": "macvlan" if own is inner else "bridge", "parent": gateway["inner_parent"]}
    ]
    gateway["listening"] = [class_name for class_name in gateway["classes"].values() if class_name in policy]
    gateway["proxy_url"] = "http://%s:%d" % (own["address"], int(policy[gateway["classes"]["gateway"]]["listen"]))
    # The proxy's service is in the project of openclaw_egress_compose_dir.
    gateway["beside_proxy"] = gateway["compose_dir"] == posixpath.normpath(str(defaults["compose_dir"]))
    others = [other for other in gateways if other is not gateway]
    gateway["shares_script"] = gateway["build_script"] in [other["build_script"] for other in others]


def proxy_networks(gateways: List[Gateway], siblings: List[str]) -> Dict[str, Any]:
    """Return the networks of all gateways, the interface of each class, and the addresses that may connect.

    Args:
        gateways: The gateways that :func:`gateway_instances` returned.
        siblings: The names of those gateways whose sandboxes run in the host's Docker daemon.
    """
    networks: List[Dict[str, str]] = []
    interfaces: Dict[str, str] = {}
    neighbours: List[str] = []
    for gateway in gateways:
        own = gateway["networks"][0]
        networks.append(own)
        interfaces.update(dict.fromkeys(gateway["listening"], own["interface"]))
        if own["driver"] == "macvlan":
            gateway_address = ipaddress.IPv4Address(own["address"]) + 1
            neighbours.append("%s=%s" % (own["subnet"], gateway_address))
        if gateway["name"] in siblings:
            for network in class_networks(gateway["class_networks"]):
                networks.append({**network, "driver": "macvlan"})
                class_name = gateway["classes"][network["class"]]
                if class_name in gateway["listening"]:
                    interfaces[class_name] = network["interface"]
    return {"networks": networks, "interfaces": interfaces, "neighbours": neighbours}

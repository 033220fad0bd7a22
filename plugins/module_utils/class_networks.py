# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Addresses in the Docker networks of the classes whose containers are siblings of the gateway."""

from __future__ import annotations

import ipaddress
from typing import Any, Dict, List, Mapping

Network = Dict[str, str]


def class_networks(given: Mapping[str, Any]) -> list[Network]:
    """Return each class's network with its addresses: class, name, subnet, parent, gateway, address, interface, range.

    The proxy has the second address of the subnet (``address``; ``interface`` adds the prefix length). Docker assigns
    addresses to containers from the upper half (``range``) only, so that no sandbox can take the proxy's address while
    the proxy is stopped. No interface has the address ``gateway``.

    Raises:
        ValueError: a network is invalid, or two networks overlap. The message contains the class.
    """
    found: List[Network] = []
    used: Dict[str, ipaddress.IPv4Network] = {}
    for class_name, network in given.items():
        if not isinstance(network, Mapping) or not network.get("name") or not network.get("subnet"):
            raise ValueError("%s: write {name: NAME, subnet: SUBNET}" % class_name)
        parent = str(network.get("parent") or "")
        try:
            subnet = ipaddress.IPv4Network(str(network["subnet"]))
        except ValueError as error:
            raise ValueError("%s: %s. Write a subnet such as 172.31.251.0/24" % (class_name, error)) from None
        if not 16 <= subnet.prefixlen <= 28:
            raise ValueError("%s: %s is not a subnet from /16 to /28" % (class_name, subnet))
        for other, known in used.items():
            if known.overlaps(subnet):
                raise ValueError("%s and %s overlap: give each class another subnet" % (other, class_name))
        used[class_name] = subnet
        address = str(subnet.network_address + 2)
        found.append(
            {
                "class": str(class_name),
                "name": str(network["name"]),
                "subnet": str(subnet),
                "parent": parent,
                "gateway": str(subnet.network_address + 1),
                "address": address,
                "interface": "%s/%d" % (address, subnet.prefixlen),
                "range": str(list(subnet.subnets(prefixlen_diff=1))[1]),
            }
        )
    for key, what in (("name", "network"), ("parent", "parent interface")):
        values = [network[key] for network in found if network[key]]
        if len(set(values)) != len(values):
            twice = max(values, key=values.count)
            raise ValueError("two classes have the %s %s: give each class another one" % (what, twice))
    return found

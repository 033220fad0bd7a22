r"""The JSON Schema of ``policy.yml`` (draft 2020-12), for completion and checks in editors.

The schema accepts every policy that `loader.read_policy` accepts, and rejects most errors in a single value. Only
`read_policy` finds errors that involve several values, such as one port in two classes, or methods of a host that is
not inspected. ``policy.schema.json`` in this directory is the output of ``egress policy schema > policy.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from openclaw_egress.policy.host_groups import group_names
from openclaw_egress.policy.loader import (
    CLASS_KEYS,
    CLASS_NAME,
    FRACTIONS,
    INSTANCE_NAME,
    KEYS,
    LIMITS,
    MASK_KEYS,
    METHOD,
    RULE_KEYS,
)
from openclaw_egress.policy.mask_patterns import MAX_PATTERNS, MAX_SOURCE, NAME
from openclaw_egress.policy.model import ACTIONS, Limits
from openclaw_egress.settings import HEALTH_PORT

type Schema = dict[str, object]

_NAME = r"""(?!.*\.\.)[^\s*/:@%?#<>^|`{}"'\\\[\].][^\s*/:@%?#<>^|`{}"'\\\[\]]*"""
_IPV6 = r"\[?[0-9A-Fa-f]*:[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*\]?"
_ADDRESS = r"[0-9A-Fa-f.:]+(%[^/]+)?"
_UNSEEN = "Valid only for inspected hosts, because the proxy cannot see it for other hosts."


_EXAMPLES: dict[str, object] = {
    "version": 1,
    "inspect": ["api.anthropic.com", "*.openai.azure.com", "@google"],
    "classes": {"gateway": {"listen": 8080, "action": "open"}},
    "resolve": {"dns.google": "8.8.8.8"},
    "mask": [{"name": "acme", "pattern": "acme_[0-9a-f]{32}"}],
    "name": "acme",
    "pattern": "acme_[0-9a-f]{32}",
    "listen": 8082,
    "action": "enforce",
    "allow": ["packages.example.com", {"host": "*.example.com", "ports": [443]}],
    "deny": ["uploads.example.com", {"cidr": "140.82.112.0/20"}],
    "addresses": [{"cidr": "10.0.0.2/32", "ports": [3100], "methods": ["POST"], "paths": ["/otlp/v1/logs"]}],
    "limits": {"connections": 64, "tokens_per_day": 5_000_000},
    "log_tunnels": True,
    "instance": "gw-a",
    "host": "packages.example.com",
    "cidr": "140.82.112.0/20",
    "ports": [443, 8443],
    "methods": ["GET", "POST"],
    "paths": ["/v1/messages", "/v1/files/*"],
    "tls": False,
    "connections": 64,
    "requests_per_minute": 600,
    "header_bytes": 32_768,
    "headers": 100,
    "header_seconds": 10,
    "idle_seconds": 60,
    "total_seconds": 86_400,
    "tokens_per_hour": 1_000_000,
    "tokens_per_day": 5_000_000,
    "cost_usd_per_day": 12.5,
}
"""An example value for each key, for editors and for docs/policy.md."""


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _some(item: Schema, description: str) -> Schema:
    return {"type": "array", "minItems": 1, "items": item, "description": description}


def _list(item: Schema, description: str) -> Schema:
    return {"type": "array", "items": item, "description": description}


def _object(keys: Sequence[str], described: Mapping[str, Schema], description: str, **more: object) -> Schema:
    """Return the schema of a mapping that permits only these keys.

    Raises:
        KeyError: a key has no description or no example.
    """
    properties = {key: {**described[key], "examples": [_EXAMPLES[key]]} for key in keys}
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
        **more,
    }


def _named(pattern: str, value: Schema, description: str, **more: object) -> Schema:
    """Return the schema of a mapping whose keys the operator chooses."""
    return {
        "type": "object",
        "description": description,
        "patternProperties": {pattern: value},
        "additionalProperties": False,
        **more,
    }


_TOP: dict[str, Schema] = {
    "version": {"type": "integer", "const": 1, "description": "Version of the policy format."},
    "inspect": _list(
        _ref("inspected"),
        "Hosts to decrypt and record, for every class; default: the hosts in PROXY_LLM_HOSTS.",
    ),
    "classes": _named(
        f"^{CLASS_NAME}$",
        _ref("class"),
        "Rules for each kind of container. The listener to which a client connects decides its class.",
        minProperties=1,
    ),
    "resolve": _named(
        f"^{_NAME}$",
        {"type": "string", "pattern": f"^{_ADDRESS}$", "examples": ["10.1.2.3"]},
        "Fixed addresses of names, as in a hosts file; the address guard also applies to them.",
    ),
    "mask": {
        **_list(_ref("mask"), "Custom patterns of secrets to mask in records, in addition to the known formats."),
        "maxItems": MAX_PATTERNS,
    },
}

_LIMITS = {
    "connections": "Maximum number of concurrent client connections.",
    "requests_per_minute": "Maximum number of requests and tunnels per minute; default: unlimited.",
    "header_bytes": "Maximum size of a request's head in bytes, including the request line.",
    "headers": "Maximum number of header fields in a request.",
    "header_seconds": "Maximum seconds from the first to the last byte of a request's head, and from CONNECT to TLS.",
    "idle_seconds": "Maximum seconds between requests on a connection, and between two chunks of a request's body.",
    "total_seconds": "Maximum lifetime of a connection in seconds, active or idle; default: unlimited.",
    "tokens_per_hour": "Maximum sum of input and output tokens in an hour (UTC); default: unlimited.",
    "tokens_per_day": "Maximum sum of input and output tokens in a day (UTC); default: unlimited.",
    "cost_usd_per_day": "Maximum known cost in US dollars in a day (UTC); default: unlimited.",
}


def _limit(name: str, description: str) -> Schema:
    least, most = LIMITS[name]
    default = getattr(Limits(), name)
    kind = "number" if name in FRACTIONS else "integer"
    schema: Schema = {"type": kind, "minimum": least, "maximum": most, "description": description}
    return schema if default is None else {**schema, "default": default}


_CLASS: dict[str, Schema] = {
    "listen": {
        **_ref("port"),
        "not": {"const": HEALTH_PORT},
        "description": f"Port of the class's listener, unique among the classes; {HEALTH_PORT} is the health port.",
    },
    "action": {
        "enum": list(ACTIONS),
        "description": (
            "open: every name is allowed, on every port. enforce: only the destinations in allow are allowed. "
            "report: like enforce, but a denial is only recorded and the traffic passes."
        ),
    },
    "allow": _list(
        {"anyOf": [_ref("host"), _ref("allowRule")]},
        "Allowed destinations. An entry that is only a host allows ports 80 and 443.",
    ),
    "deny": _list(
        {"anyOf": [_ref("host"), _ref("denyRule")]},
        "Denied destinations; deny takes precedence over allow. An entry that is only a host denies every port.",
    ),
    "addresses": _list(
        _ref("exception"),
        "Exceptions to the address guard for this class. They permit names that resolve to these addresses. An open "
        "class may also request an address itself; in other classes, a rule in allow must name the address too.",
    ),
    "limits": _object(
        list(LIMITS),
        {name: _limit(name, text) for name, text in _LIMITS.items()},
        "Limits on the class's use of the proxy, so that the class cannot starve other classes.",
    ),
    "log_tunnels": {
        "type": "boolean",
        "default": False,
        "description": "Record the metadata of tunnels, not their content.",
    },
    "instance": {
        "type": "string",
        "pattern": f"^{INSTANCE_NAME}$",
        "description": "Name of the only gateway that uses this listener, where several gateways share the proxy. "
        "Records of the class name it in openclaw.egress.instance.",
    },
}

_PLAIN = "The exception then permits only plain HTTP, not CONNECT, and not port 443: a tunnel would hide it."

_RULE: dict[str, Schema] = {
    "host": _ref("host"),
    "cidr": _ref("cidr"),
    "ports": _some(_ref("port"), "Default: 80 and 443 in allow, every port in deny."),
    "methods": _some(_ref("method"), f"HTTP methods that the rule matches; default: all. {_UNSEEN}"),
    "paths": _some(_ref("path"), f"Paths that the rule matches, without query; default: all. {_UNSEEN}"),
    "tls": {
        "type": "boolean",
        "default": True,
        "description": "false: the client may use a protocol other than TLS after CONNECT. Not for inspected hosts.",
    },
}
_EITHER = [{"required": ["host"]}, {"required": ["cidr"]}]

_MASK: dict[str, Schema] = {
    "name": {
        "type": "string",
        "pattern": f"^{NAME}$",
        "description": "Name of the pattern in `[masked:NAME:FINGERPRINT]`.",
    },
    "pattern": {
        "type": "string",
        "maxLength": MAX_SOURCE,
        "description": "Regular expression in Python's syntax, in ASCII, that matches from 8 to 256 bytes. Give each "
        "repetition a limit; lookarounds, back references, ^ and $ are not supported.",
    },
}

_DEFINITIONS: dict[str, Schema] = {
    "class": _object(CLASS_KEYS, _CLASS, "One kind of container.", required=["listen", "action"]),
    "allowRule": _object(RULE_KEYS["allow"], _RULE, "An allowed destination, and how it may be used.", oneOf=_EITHER),
    "denyRule": _object(RULE_KEYS["deny"], _RULE, "A denied destination.", oneOf=_EITHER),
    "exception": _object(
        RULE_KEYS["addresses"],
        {
            **_RULE,
            "ports": _some(_ref("port"), "Ports that the class may reach."),
            "methods": _some(_ref("method"), f"HTTP methods; default: all. {_PLAIN}"),
            "paths": _some(_ref("path"), f"Paths, without query; default: all. {_PLAIN}"),
        },
        "Guarded addresses that the class may reach.",
        required=["cidr", "ports"],
        anyOf=[
            {"not": {"anyOf": [{"required": ["methods"]}, {"required": ["paths"]}]}},
            {"properties": {"ports": {"not": {"contains": {"const": 443}}}}},
        ],
    ),
    "mask": _object(MASK_KEYS, _MASK, "A pattern of secrets to mask.", required=list(MASK_KEYS)),
    "host": {
        "type": "string",
        "pattern": rf"^(\*|(\*\.)?{_NAME}|{_IPV6})$",
        "description": 'A name, an address, "*.example.com" for the names below it (not itself), or "*" for all names.',
        "examples": ["packages.example.com", "*.example.com", "*"],
    },
    "inspected": {
        "type": "string",
        "pattern": rf"^(@({'|'.join(group_names())})|(\*\.)?{_NAME})$",
        "description": 'A name, "*.example.com" for every name below it, or a group of hosts; not an address.',
        "examples": ["api.anthropic.com", "*.openai.azure.com", "@google"],
    },
    "cidr": {
        "type": "string",
        "pattern": f"^{_ADDRESS}(/[0-9.]+)?$",
        "description": "An address range in CIDR notation, without host bits.",
        "examples": ["10.0.0.2/32", "fd00::/64"],
    },
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "method": {
        "type": "string",
        "pattern": rf"^(?![Cc][Oo][Nn][Nn][Ee][Cc][Tt]$){METHOD.replace('A-Z', 'A-Za-z')}$",
        "description": "An HTTP method; not CONNECT.",
        "examples": ["GET", "POST"],
    },
    "path": {
        "type": "string",
        "pattern": r"^(?!.*//)(?!.*/\.{1,2}(/|\*?$))/[^?#%*\\]*\*?$",
        "description": "A path without query, escapes or dot segments; it may end with *.",
        "examples": ["/v1/messages", "/v1/*"],
    },
}


def policy_schema() -> Schema:
    """Return the schema as a dictionary."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy of openclaw.egress",
        **_object(KEYS, _TOP, "Allowed destinations of each class of containers.", required=["version", "classes"]),
        "$defs": _DEFINITIONS,
    }


def schema_text() -> str:
    """Return the schema as JSON text, as in ``policy.schema.json``."""
    return json.dumps(policy_schema(), indent=2) + "\n"

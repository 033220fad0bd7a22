"""Tests of the policy's JSON Schema. `test_policy` checks that it accepts every policy that the proxy accepts."""

import json

import jsonschema
import pytest
import yaml

from openclaw_egress.policy.json_schema import policy_schema, schema_text
from openclaw_egress.policy.loader import read_policy
from tests.unit.schema_check import SHIPPED, schema_errors

HEAD = "version: 1\nclasses:\n  sandbox: {listen: 8082, action: enforce"


def test_shipped_file_is_the_generated_schema():
    assert SHIPPED.read_text() == schema_text(), "run `make docs`"


def test_schema_is_valid_for_its_draft():
    jsonschema.Draft202012Validator.check_schema(policy_schema())


def test_mappings_accept_only_described_and_explained_keys():
    def mappings(schema):
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield schema
            for value in schema.values():
                yield from mappings(value)

    found = list(mappings(policy_schema()))
    assert len(found) == 9
    definitions = policy_schema()["$defs"]
    for schema in found:
        assert schema["additionalProperties"] is False and schema["description"]
        for key, value in schema.get("properties", {}).items():
            target = definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            assert "description" in value or "description" in target, key


@pytest.mark.parametrize(
    ("more", "where"),
    [
        (", alow: [a.example]}", "$.classes.sandbox"),
        (", allow: [{hots: a.example}]}", "$.classes.sandbox.allow[0]"),
        (", allow: [{host: a.example, port: [443]}]}", "$.classes.sandbox.allow[0]"),
        (", allow: [{host: a.example, ports: [443, 70000]}]}", "$.classes.sandbox.allow[0]"),
        (", allow: [{host: a.example, cidr: 8.0.0.0/8}]}", "$.classes.sandbox.allow[0]"),
        (", allow: ['https://a.example/']}", "$.classes.sandbox.allow[0]"),
        (", allow: ['a.example:8443']}", "$.classes.sandbox.allow[0]"),
        (", allow: ['a*.example']}", "$.classes.sandbox.allow[0]"),
        (", limits: {connections: 0}}", "$.classes.sandbox.limits.connections"),
        (", limits: {connection: 9}}", "$.classes.sandbox.limits"),
        (", deny: [{host: a, tls: false}]}", "$.classes.sandbox.deny[0]"),
        (", addresses: [{cidr: 10.0.0.2/32}]}", "$.classes.sandbox.addresses[0]"),
        ("}\n  Build: {listen: 1, action: open}", "$.classes"),
        ("}\n  build: {listen: 1, action: enforced}", "$.classes.build.action"),
        ("}\n  build: {listen: 9464, action: open}", "$.classes.build.listen"),
        ("}\n  build: {action: open}", "$.classes.build"),
        ("}\nresolv: {}", "$"),
        ("}\nresolve: {a.example: b.example}", "$.resolve['a.example']"),
        ("}\ninspect: ['*']", "$.inspect[0]"),
    ],
)
def test_editor_marks_common_mistakes_at_their_place(more, where):
    assert [error.partition(": ")[0] for error in schema_errors(f"{HEAD}{more}\n".encode())] == [where]


def test_valid_policy_is_not_marked():
    assert schema_errors(f"{HEAD}, allow: ['*.example.com', '::1', {{cidr: 8.0.0.0/8}}]}}\n".encode()) == []


def test_completion_has_the_actions_and_the_keys():
    text = json.dumps(policy_schema())
    assert '"enum": ["open", "enforce", "report"]' in text
    for key in ("listen", "action", "allow", "deny", "addresses", "log_tunnels", "host", "cidr", "ports", "tls"):
        assert f'"{key}": {{' in text


def examples():
    """Yield each policy key, its part of the schema, and a function that returns a policy with a value for this key."""
    inspected, schema = "api.anthropic.com", policy_schema()
    definitions = schema["$defs"]
    for key, found in schema["properties"].items():
        yield key, found, lambda value, key=key: {"classes": {"a": {"listen": 8080, "action": "open"}}, key: value}
    for key, found in definitions["class"]["properties"].items():
        yield f"class.{key}", found, lambda value, key=key: one_class({key: value})
    for key, found in definitions["class"]["properties"]["limits"]["properties"].items():
        yield f"limits.{key}", found, lambda value, key=key: one_class({"limits": {key: value}})
    for name in ("allow", "deny"):
        for key, found in definitions[f"{name}Rule"]["properties"].items():
            host = {} if key == "cidr" else {"host": "other.example.com" if key == "tls" else inspected}
            yield f"{name}.{key}", found, lambda value, n=name, key=key, h=host: one_class({n: [{**h, key: value}]})
    plain = {"cidr": "10.0.0.2/32", "ports": [3100]}
    for key, found in definitions["exception"]["properties"].items():
        yield f"addresses.{key}", found, lambda value, key=key: one_class({"addresses": [{**plain, key: value}]})


def one_class(members: dict) -> dict:
    return {"inspect": ["api.anthropic.com"], "classes": {"a": {"listen": 8080, "action": "enforce", **members}}}


@pytest.mark.parametrize(("key", "found", "policy"), [pytest.param(*one, id=one[0]) for one in examples()])
def test_example_of_each_key_is_a_valid_policy(key, found, policy):
    for value in found["examples"]:
        text = yaml.safe_dump({"version": 1, **policy(value)}).encode()
        assert schema_errors(text) == []
        assert not read_policy(text, "policy.yml").warnings, key

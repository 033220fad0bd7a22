"""Tests of the changes to OpenClaw's settings, and of the rollback of each key."""

import json

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils.openclaw_agents import (
    SettingsError,
    applied,
    either,
    in_steps,
    overridden,
    plan,
    shown,
)

DOCKER = "defaults.sandbox.docker"
PROXY, NETWORK = f"{DOCKER}.env.HTTP_PROXY", f"{DOCKER}.network"
OURS = {PROXY: "http://172.30.0.250:8082", NETWORK: "none"}


def having(**docker: object) -> dict:
    return {"defaults": {"maxConcurrent": 8, "sandbox": {"mode": "all", "docker": docker}}}


def put(current: dict, data: dict, wanted: dict, fallbacks: dict | None = None) -> tuple[dict, dict, list]:
    """Apply the wanted settings twice. Check that the second run changes nothing.

    Return the settings, the undo data, and the paths that the plan does not restore because somebody edited them.
    """
    done = plan(current, data, wanted, fallbacks or {})
    after = applied(current, done.changes)
    again = plan(after, done.data, wanted, fallbacks or {})
    assert (again.changes, again.data) == ({}, done.data)
    return after, done.data, done.left


@pytest.mark.parametrize(
    "before",
    [
        {},
        {"defaults": {"maxConcurrent": 8}},
        {"defaults": {"sandbox": {"mode": "all"}}},
        having(),
        having(network="bridge", env={"LANG": "C.UTF-8"}),
        having(network="none", env={"HTTP_PROXY": "http://theirs:3128"}, image="mine"),
        having(env={}),
    ],
)
def test_original_settings_are_restored_and_nothing_else_changes(before):
    after, data, _ = put(before, {}, OURS)
    assert after["defaults"]["sandbox"]["docker"]["network"] == "none"
    assert after["defaults"]["sandbox"]["docker"]["env"]["HTTP_PROXY"].endswith(":8082")
    back, nothing, left = put(after, data, {})
    # If there were no settings before, accept empty parent objects after the rollback: OpenClaw prints unset objects as
    # `{}` anyway.
    assert before in (back, {})
    assert (nothing, left) == ({}, [])


def test_rollback_keeps_equal_settings_of_the_operator():
    before = having(network="none")
    after, data, _ = put(before, {}, OURS)
    assert NETWORK not in data["wrote"]
    assert put(after, data, {})[0] == before


def test_settings_changed_later_are_kept_and_reported():
    after, data, _ = put(having(network="bridge"), {}, OURS)
    edited = applied(after, {NETWORK: "theirs"})
    back, _, left = put(edited, data, {})
    assert back == having(network="theirs")
    assert left == [NETWORK]


def test_settings_already_restored_are_not_named():
    before = having(network="bridge")
    after, data, _ = put(before, {}, OURS)
    back, _, left = put(applied(after, {NETWORK: "bridge"}), data, {})
    assert (back, left) == (before, [])


def test_edit_between_two_runs_is_restored():
    after, data, _ = put(having(network="bridge"), {}, OURS)
    again, data, _ = put(applied(after, {NETWORK: "theirs"}), data, OURS)
    assert again["defaults"]["sandbox"]["docker"]["network"] == "none"
    assert put(again, data, {})[0] == having(network="theirs")


@pytest.mark.parametrize(
    ("own", "becomes"), [({}, "bridge"), ({"network": "none"}, "bridge"), ({"network": "mine"}, "mine")]
)
def test_operators_own_network_is_kept(own, becomes):
    before = having(**own)
    after, data, _ = put(before, {}, {}, {NETWORK: "bridge"})
    assert after["defaults"]["sandbox"]["docker"]["network"] == becomes
    assert put(after, data, {})[0] == before


def test_operators_network_is_restored_if_the_class_may_reach_a_destination():
    closed, data, _ = put(having(network="mine"), {}, OURS)
    opened, data, _ = put(closed, data, {PROXY: OURS[PROXY]}, {NETWORK: "bridge"})
    assert opened["defaults"]["sandbox"]["docker"]["network"] == "mine"
    assert put(opened, data, {})[0] == having(network="mine")


def test_unneeded_variable_is_removed():
    more = OURS | {f"{DOCKER}.env.EXTRA": "1"}
    after, data, _ = put(having(), {}, more)
    assert "EXTRA" not in put(after, data, OURS)[0]["defaults"]["sandbox"]["docker"]["env"]


def test_run_interrupted_before_the_change_needs_no_rollback():
    before = having(network="bridge")
    done = plan(before, {}, OURS, {})
    back = plan(before, either({}, done.data), {}, {})
    assert (back.changes, back.data, back.left) == ({}, {}, [])


def test_next_rollback_completes_an_interrupted_rollback():
    after, data, _ = put(having(network="bridge"), {}, OURS)
    done = plan(after, data, {}, {})
    assert applied(after, plan(after, either(data, done.data), {}, {}).changes) == having(network="bridge")


def test_agents_with_own_settings_are_reported():
    current = having() | {"entries": {"main": {}, "work": {"sandbox": {"docker": {"network": "host"}}}}}
    assert overridden(current, list(OURS)) == ["agents.entries.work.sandbox.docker.network"]


def test_setting_that_is_not_an_object_is_named():
    with pytest.raises(SettingsError, match=r"agents\.defaults\.sandbox is not an object"):
        plan({"defaults": {"sandbox": "all"}}, {}, OURS, {})


def test_no_secret_of_a_sandbox_is_shown():
    assert shown(f"{DOCKER}.env.TOKEN", "hunter2") == "(hidden)"
    assert shown(f"{DOCKER}.env.all_proxy", "http://u:hunter2@host:1") == "http://…@host:1"
    assert shown(NETWORK, "bridge") == "bridge"


@pytest.mark.parametrize("own", [{"network": "bridge"}, {"network": "bridge", "env": {"LANG": "C.UTF-8"}}])
@pytest.mark.parametrize("count", [1, 5, 9, 40])
def test_no_change_removes_more_than_half_of_openclaws_settings(own, count):
    before = {"defaults": {"sandbox": {"docker": own}}}
    wanted = {NETWORK: "none"} | {f"{DOCKER}.env.VARIABLE_{n}": f"http://172.30.0.250:{8000 + n}" for n in range(count)}
    current, data, _ = put(before, {}, wanted)
    undoing = plan(current, data, {}, {}).changes
    size = len(json.dumps({"agents": current}, indent=2))
    for step in in_steps(current, undoing):
        current = applied(current, step)
        was, size = size, len(json.dumps({"agents": current}, indent=2))
        assert was < 512 or size >= was // 2
    assert current == before

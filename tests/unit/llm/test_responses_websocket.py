"""Tests of the assignment of WebSocket events to the responses in progress."""

from __future__ import annotations

import json
import tracemalloc
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.llm.responses_websocket import ENDS, Lanes
from tests.support.websocket_provider import response_events


def routed(lanes, event):
    """Return the response to which an event is assigned, or None. End the response if the event is its last one."""
    turn = lanes.received(event)
    if turn is not None and event.get("type") in ENDS:
        lanes.ended(turn)
    return turn


@pytest.mark.parametrize("order", permutations(range(3)))
def test_events_of_lanes_may_arrive_in_any_order(order):
    lanes = Lanes()
    turns = [lanes.requested({"type": "response.create", "stream_id": f"s{number}"}) for number in range(3)]
    streams = [list(map(json.loads, response_events(f"r{n}", "a b c", {}, stream_id=f"s{n}"))) for n in range(3)]
    for index in range(len(streams[0])):
        for number in order:
            assert routed(lanes, streams[number][index]) is turns[number]
    assert lanes.turns == []


def test_requests_of_one_lane_are_answered_in_order():
    lanes = Lanes()
    turns = [lanes.requested({"type": "response.create"}) for _ in range(3)]
    for number, turn in enumerate(turns):
        for event in response_events(f"r{number}", "a b", {}):
            assert routed(lanes, json.loads(event)) is turn


def test_response_without_a_request_is_a_new_one():
    lanes = Lanes()
    first = lanes.requested({"type": "response.create", "stream_id": "a"})
    for event in response_events("r1", "a", {}, stream_id="a"):
        assert routed(lanes, json.loads(event)) is first
    found = {id(routed(lanes, json.loads(event))) for event in response_events("r2", "b", {}, stream_id="a")}
    assert len(found) == 1 and id(first) not in found


def test_server_that_echoes_no_lane_is_followed_by_the_ids_of_responses():
    lanes = Lanes()
    turns = [lanes.requested({"type": "response.create", "stream_id": name}) for name in "ab"]
    for number, turn in enumerate(turns):
        for event in response_events(f"r{number}", "text", {}):
            assert routed(lanes, json.loads(event)) is turn


def test_error_of_a_request_does_not_end_the_response_in_progress():
    lanes = Lanes()
    active = lanes.requested({"type": "response.create"})
    events = list(map(json.loads, response_events("r1", "a b", {})))
    assert routed(lanes, events[0]) is active
    refused = lanes.requested({"type": "response.create"})
    assert routed(lanes, {"type": "error", "status": 400, "error": {}}) is refused
    assert all(routed(lanes, event) is active for event in events[1:])


def test_error_of_the_stream_ends_the_response_in_progress():
    lanes = Lanes()
    active = lanes.requested({"type": "response.create"})
    routed(lanes, {"type": "response.created", "response": {"id": "r1"}})
    waiting = lanes.requested({"type": "response.create"})
    assert routed(lanes, {"type": "error", "sequence_number": 4}) is active
    assert lanes.turns == [waiting]


def test_event_that_belongs_to_no_response_is_not_assigned():
    lanes = Lanes()
    assert lanes.received({"type": "error", "error": {"code": "websocket_connection_limit_reached"}}) is None
    assert lanes.received({"type": "codex.rate_limits"}) is None


def test_memory_of_the_lanes_of_one_response_is_bounded():
    lanes = Lanes()
    active = lanes.requested({"type": "response.create"})
    names = [f"s{n}" for n in range(10_000)]
    names[-300] = names[-100] = "often"
    events = [{"type": "response.created", "response": {"id": "r1"}, "stream_id": name} for name in names]
    tracemalloc.start()
    try:
        assert all(lanes.received(event) is active for event in events)
        assert tracemalloc.get_traced_memory()[0] < 64 * 1024
    finally:
        tracemalloc.stop()
    # The memory limit drops old stream IDs. The latest ones are still assigned to the active response.
    for name in ("s9999", "often"):
        lanes.requested({"type": "response.create", "stream_id": name})
        assert lanes.received({"type": "response.output_text.delta", "stream_id": name}) is active


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["a", "b", None, 1, {}])
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([*ENDS, "response.created", "response.output_text.delta", "x", 3, None]),
        "stream_id": NAMES,
        "response": st.fixed_dictionaries({}, optional={"id": NAMES}) | JSON,
        "response_id": NAMES,
        "sequence_number": JSON,
    },
)


@given(st.lists(st.tuples(st.booleans(), EVENTS), max_size=30))
def test_any_messages_are_routed_to_a_response_in_progress(messages):
    lanes = Lanes()
    for sent, message in messages:
        if sent:
            assert lanes.requested(message) in lanes.turns
        elif (turn := lanes.received(message)) is not None:
            assert turn in lanes.turns
            if isinstance(message.get("type"), str) and message["type"] in ENDS:
                lanes.ended(turn)

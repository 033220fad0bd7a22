"""Tests of the session page: the exchanges of one session, and the messages that each exchange adds."""

import json
import re
from pathlib import Path

import pytest

from openclaw_egress.recording.records import Body
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.writer import Spool
from openclaw_egress.ui import session
from openclaw_egress.ui.pages import render
from tests.support.hostile_records import hostile_exchange

TRACE = "0af7651916cd43dd8448eb211c80319c"


def said(*texts: str) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"system": "s", "messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]}


def store(path: Path, *bodies: dict[str, object], **changes: object) -> None:
    """Store one exchange for each request body. The N-th response has the id ``resp_N`` and the text ``answer N``."""
    with Spool(path, sync_seconds=None, local=True) as spool:
        for number, body in enumerate(bodies):
            headers = [("Traceparent", f"00-{body.pop('trace')}-00f067aa0ba902b7-01")] if "trace" in body else []
            known: dict[str, object] = {"class_name": "gateway", "client": body.pop("client", "10.0.0.1")}
            answer = {"id": f"resp_{number}", "output": [{"type": "message", "content": f"answer {number}"}]}
            spool.close_exchange(
                hostile_exchange(
                    f"{number:04x}",
                    request_headers=headers,
                    request_body=Body.of(json.dumps(body).encode()),
                    response_body=Body.of(json.dumps(answer).encode()),
                    **known | changes,
                )
            )


def members(path: Path, seq: int) -> list[tuple[int, list[str], list[str]]]:
    """Return (line number, signs, added texts) for each exchange in the session of a record.

    Signs are the fields that connect the exchange to the record, such as `previous_response_id`.
    """
    with SpoolReader(path) as reader:
        row = next(reader.query(Filters().within(seq, seq + 1)))
        view = session.read_session(reader, row, lambda: 0.0)
    return [
        (one.row.seq, list(one.signs), [part.text for turn in one.added for part in turn.parts]) for one in view.members
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_continued_conversation_is_a_session_and_each_exchange_shows_its_new_turns(path):
    store(path, said("a"), said("other"), said("a", "b", "c"), said("a", "b", "c", "d", "e"), said("a", "x", "y"))
    assert members(path, 4) == [
        (1, ["conversation"], ["s", "a"]),
        (3, ["conversation"], ["b", "c"]),
        (4, [], ["d", "e"]),
    ]


def test_trace_connects_different_conversations(path):
    store(
        path, {"trace": TRACE, **said("a")}, said("a2"), {"trace": TRACE, **said("b")}, {"trace": "1" * 32, **said("c")}
    )
    assert [(seq, signs) for seq, signs, _ in members(path, 1)] == [(1, []), (3, ["trace"])]


def test_previous_response_connects_the_whole_chain(path):
    store(
        path,
        {"input": "a"},
        {"input": "b", "previous_response_id": "resp_0"},
        {"input": "z"},
        {"input": "c", "previous_response_id": "resp_1"},
    )
    for seq in (1, 2, 4):
        assert [seq for seq, _, _ in members(path, seq)] == [1, 2, 4]


def test_response_id_in_a_text_does_not_connect_exchanges(path):
    store(path, {"input": "a"}, {"input": '{"previous_response_id": "resp_0"}'})
    assert [seq for seq, _, _ in members(path, 1)] == [1]


def test_other_clients_and_classes_do_not_belong_to_the_session(path):
    store(path, said("a"), {"client": "10.0.0.2", **said("a", "b", "c")})
    store(path, said("a", "b", "c"), class_name="browser")
    assert [seq for seq, _, _ in members(path, 1)] == [1]


def test_search_stops_at_its_time_limit_and_reports_the_lines_read(path):
    store(path, *(said("a", "b", "c") for _ in range(9)))
    times = iter(range(100))
    with SpoolReader(path) as reader:
        row = next(reader.query(Filters().within(5, 6)))
        view = session.read_session(reader, row, lambda: float(next(times)))
    assert (view.first, view.last) == (4, 5) and [one.row.seq for one in view.members] == [4, 5]
    text = render("session.html", view=view)
    assert not view.is_whole and "Other lines were not searched." in text
    # The page can link to the first and the last exchange. The last one is the chosen record, so it has no link.
    assert re.findall(r'href="(/records/\d+/session)"', text) == ["/records/4/session"]


def test_page_reports_lines_that_were_not_searched(path, monkeypatch):
    store(path, *(said("a", "b", "c") for _ in range(9)))
    with SpoolReader(path) as reader:
        row = next(reader.query(Filters().within(5, 6)))
        view = session.read_session(reader, row, lambda: 0.0)
        assert (view.first, view.last, view.is_whole) == (1, 9, True)
        assert "Other lines were not searched" not in render("session.html", view=view)
        monkeypatch.setattr(session, "NEAR", 2)
        view = session.read_session(reader, row, lambda: 0.0)
    assert (view.first, view.last, view.is_whole) == (3, 7, False)
    assert "Search around record 3" in render("session.html", view=view)


def test_page_shows_the_omitted_amount_of_each_exchange(path):
    store(path, said("a" * session.SHOWN), said("b" * (session.SHOWN + 7)))
    with SpoolReader(path) as reader:
        views = []
        for seq in (1, 2):
            row = next(reader.query(Filters().within(seq, seq + 1)))
            views.append(session.read_session(reader, row, lambda: 0.0))
    assert [view.members[0].hidden for view in views] == [(1, 1), (2, 8)]
    assert "Not shown: the oldest 2 parts, 8 characters. The page of the record shows more." in render(
        "session.html", view=views[1]
    )

"""Tests of the HTTP/1 syntax check: fixed cases, and random bytes with h11 as the reference."""

import h11
import pytest
from h11._receivebuffer import ReceiveBuffer
from hypothesis import example, given
from hypothesis import strategies as st

from openclaw_egress.proxy.http1_chunks import StrictChunkedReader, buffered_chunks_problem
from openclaw_egress.wire.http1_syntax import (
    chunk_size,
    connection_options,
    connection_problem,
    content_length,
    is_request_start,
    request_problem,
    response_problem,
)

REQUEST = b"POST http://www.example.com/a?b=c HTTP/1.1\r\nHost: www.example.com\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\n"

FIELDS = {
    b"A: b\rContent-Length: 0\r\n": "a CR that is not part of a line end",
    b"A: b\r\r\n": "a CR that is not part of a line end",
    b"A: \0\r\n": "a NUL byte",
    b"A: \x0b\r\n": "a control character",
    b"A: \x7f\r\n": "a control character",
    b"A: b\r\n c\r\n": "a header field is folded over several lines",
    b"A: b\r\n\tc\r\n": "a header field is folded over several lines",
    b"A : b\r\n": "whitespace before a header's colon",
    b"A\t: b\r\n": "whitespace before a header's colon",
    b": b\r\n": "the name of a header is empty or not a token",
    b"A(: b\r\n": "the name of a header is empty or not a token",
    b"\xc3\xa4: b\r\n": "the name of a header is empty or not a token",
    b"no colon\r\n": "a header line has no colon",
    b"Content-Length: 5\r\nContent-Length: 5\r\n": "more than one Content-Length",
    b"Content-Length: 5\r\ncontent-LENGTH: 6\r\n": "more than one Content-Length",
    b"Content-Length: 5, 5\r\n": "Content-Length is not one decimal number",
    b"Content-Length: +5\r\n": "Content-Length is not one decimal number",
    b"Content-Length: -5\r\n": "Content-Length is not one decimal number",
    b"Content-Length:  0x5\r\n": "Content-Length is not one decimal number",
    b"Content-Length: 05\r\n": "Content-Length is not one decimal number",
    b"Content-Length: 5 5\r\n": "Content-Length is not one decimal number",
    b"Content-Length: \xb2\r\n": "Content-Length is not one decimal number",
    b"Content-Length:\r\n": "Content-Length is not one decimal number",
    b"Content-Length: 9999999999999999999\r\n": "Content-Length is not one decimal number",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n": "both Content-Length and Transfer-Encoding",
    b"Transfer-Encoding: gzip, chunked\r\n": "Transfer-Encoding is not chunked",
    b"Transfer-Encoding: chunked, chunked\r\n": "Transfer-Encoding is not chunked",
    b"Transfer-Encoding: xchunked\r\n": "Transfer-Encoding is not chunked",
    b"Transfer-Encoding: identity\r\n": "Transfer-Encoding is not chunked",
    b"Transfer-Encoding:\r\n": "Transfer-Encoding is not chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n": "more than one Transfer-Encoding",
}


@pytest.mark.parametrize(("fields", "problem"), FIELDS.items())
def test_fields_that_two_parsers_read_differently_are_refused(fields, problem):
    assert request_problem(REQUEST + fields + b"\r\n") == problem
    assert response_problem(RESPONSE + fields + b"\r\n") == problem


@pytest.mark.parametrize(
    "line",
    [
        b"GE\rT / HTTP/1.1", b"G\0T / HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET  / HTTP/1.1", b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ", b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"GET / HTTP/1.2", b"GET / HTTP/1.10",
        b"GET / http/1.1", b"GET /", b"GET", b"", b"GET /\xc3\xa4 HTTP/1.1", b"GET /a b HTTP/1.1",
        b"GET /\x7f HTTP/1.1", b"GET /#/../b HTTP/1.1", b"G(T / HTTP/1.1", b"head / HTTP/1.1", b"Connect a:1 HTTP/1.1",
        b"GET / HTTP/1.1\nX: y",
    ],
)  # fmt: skip
def test_request_lines_that_two_parsers_read_differently_are_refused(line):
    assert request_problem(line + b"\r\nHost: a\r\n\r\n") is not None


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b'GET http://a/?q={"a|b":1}\\^`\'$ HTTP/1.1\r\nHost: a\r\n\r\n',
        b"get / HTTP/1.1\r\nX:\r\nY:\tb \r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked \r\nCookie: a=\xc3\xa4; b\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_heads_of_common_clients_are_accepted(head):
    assert request_problem(head) is None


def test_bare_line_feeds_are_accepted_only_from_servers():
    assert request_problem(b"GET / HTTP/1.1\nHost: a\n\n") == "a line ends with a bare LF"
    assert response_problem(b"HTTP/1.1 200\nA: b\n\n") is None


def test_transfer_encoding_is_refused_in_http_1_0():
    for head in (b"POST / HTTP/1.0", b"HTTP/1.0 200 OK"):
        judge = request_problem if head[:1] == b"P" else response_problem
        assert judge(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n") == "Transfer-Encoding in HTTP/1.0"


@pytest.mark.parametrize("line", [b"HTTP/2 200", b"HTTP/1.1 99", b"HTTP/1.1 +20", b"HTTP/1.1  200 OK", b"ICY 200 OK"])
def test_malformed_status_lines_are_refused(line):
    assert response_problem(line + b"\r\n\r\n") == "the status line is malformed"


@pytest.mark.parametrize("status", [b"100", b"103", b"204"])
def test_framing_header_in_a_response_without_a_body_is_refused(status):
    assert response_problem(b"HTTP/1.1 " + status + b" X\r\nTransfer-Encoding: chunked\r\n\r\n") is not None


@pytest.mark.parametrize(
    "line",
    [
        b"+5\r\n", b"-5\r\n", b"0x5\r\n", b" 5\r\n", b"5 \r\n", b"5\n\r\n", b"5;a\rb\r\n", b"5;\0\r\n", b"\r\n",
        b"5,5\r\n", b"5_0\r\n", b"1" * 16 + b"\r\n", b"5;" + b"x" * 5000 + b"\r\n",
    ],
)  # fmt: skip
def test_chunk_sizes_that_two_parsers_read_differently_are_refused(line):
    assert chunk_size(line) is None
    assert buffered_chunks_problem(line + b"hello\r\n0\r\n\r\n") == "the size of a chunk is malformed"


def test_valid_chunk_sizes_are_accepted():
    assert [chunk_size(line) for line in (b"0\r\n", b"Ff\r\n", b'5 ;a="b"\r\n')] == [0, 255, 5]
    assert chunk_size(b"5  \r\n", padded=True) == 5


BODIES = {
    b"5\r\nhelloX\r\n0\r\n\r\n": "a chunk's data is not as long as its size states",
    b"5\r\nhello\n0\r\n\r\n": "a chunk's data is not as long as its size states",
    b"0\r\nA b\r\n\r\n": "the trailers are malformed or too long",
    b"0\r\nA: b\rc\r\n\r\n": "the trailers are malformed or too long",
    b"0\r\n" + b"A: b\r\n" * 4000: "the trailers are malformed or too long",
    b"5\r\nhello\r\n0\r\nA: b\r\n\r\n": "",
    b"5\r\nhel": "",
}


@pytest.mark.parametrize(("body", "problem"), BODIES.items(), ids=range(len(BODIES)))
def test_chunked_body_is_decoded_or_refused(body, problem):
    assert buffered_chunks_problem(body) == problem


HEADS = st.lists(
    st.one_of(
        st.sampled_from([b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b"Host", b":", b"a", b"\0", b"\t"]),
        st.binary(max_size=3),
    ),
    max_size=30,
).map(b"".join)


@given(HEADS)
@example(b"")
def test_h11_reads_every_accepted_head_the_same_way(tail):
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + tail + b"\r\n\r\n"
    for judge, ours, begin in (
        (request_problem, h11.SERVER, head),
        (response_problem, h11.CLIENT, head.replace(b"GET / HTTP/1.1", b"HTTP/1.1 200 OK", 1)),
    ):
        if (problem := judge(begin)) is not None:
            assert problem.isascii()
            continue
        other = h11.Connection(ours)
        if ours is h11.CLIENT:
            other.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        other.receive_data(begin)
        read = other.next_event()
        assert isinstance(read, h11.Request | h11.Response)
        lines = [line for line in begin.replace(b"\r\n", b"\n").split(b"\n")[1:] if line]
        assert [name.lower() for name, _ in read.headers] == [line.partition(b":")[0].lower() for line in lines]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 7))
def test_chunked_body_gives_the_same_result_for_every_split(pieces, step):
    wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nA: b\r\n\r\nrest"
    reader, buffer, found = StrictChunkedReader(), ReceiveBuffer(), b""
    for at in range(0, len(wire), step):
        buffer += wire[at : at + step]
        while isinstance(event := reader(buffer), h11.Data):
            found += event.data
        if isinstance(event, h11.EndOfMessage):
            buffer += wire[at + step :]
            break
    assert found == b"".join(pieces) and bytes(buffer) == b"rest"


@given(st.binary(max_size=60))
def test_check_of_random_chunks_never_raises(data):
    assert buffered_chunks_problem(data).isascii()


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([(b"Content-Length", b"12")], 12),
        ([(b"A", b"b"), (b"content-length", b"0")], 0),
        ([], None),
        ([(b"Content-Length", b"")], None),
        ([(b"Content-Length", b"-1")], None),
        ([(b"Content-Length", b"\xb2")], None),
        ([(b"Content-Length", b"12"), (b"Transfer-Encoding", b"chunked")], None),
        ([(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"12")], None),
        ([(b"Content-Lengthx", b"12"), (b"Content-Lengtg", b"12")], None),
    ],
)
def test_content_length_gives_the_length_of_a_body(fields, length):
    assert content_length(fields) == length


def test_options_of_all_connection_fields_are_returned():
    values = [b"Close,\tX-Scope-OrgID", b"", b" , keep-alive ,"]
    assert connection_options(values) == {b"close", b"x-scope-orgid", b"keep-alive"}
    assert connection_problem(values) is None
    for name in (b"Host", b"content-length", b"Transfer-Encoding", b"Content-Type"):
        assert connection_problem([*values, name]) == "the Connection header lists an end-to-end header"


REQUEST_STARTS = (
    b"GET / HTTP/1.1", b"M-SEARCH * HTTP/1.1", b"PRI * HTTP/2.0", b"GET http://a/", b"CONNECT a:443 HTTP/1.1",
    b"GET /\r\n", b"POST svn+ssh://a/",
)  # fmt: skip
OTHER_STARTS = (
    b"SSH-2.0-OpenSSH_9.9\r\n", b"EHLO a\r\n", b"PING\r\n", b"\x16\x03\x01", b"\0", b"\r\nGET / ", b" GET /", b"GET  /",
    b"GET\t/", b"SET a b\r\n", b"a" * 33, b"GET a:443 HTTP/1.1",
)  # fmt: skip


@pytest.mark.parametrize("data", REQUEST_STARTS)
def test_start_of_a_request_is_recognised_once_enough_bytes_arrived(data):
    found = [is_request_start(data[:size]) for size in range(len(data) + 1)]
    assert found[-1] is True and False not in found
    assert found.index(True) <= 52 and None not in found[found.index(True) :]


@pytest.mark.parametrize("data", OTHER_STARTS)
def test_start_of_another_protocol_is_recognised(data):
    found = [is_request_start(data[:size]) for size in range(len(data) + 1)]
    assert found[-1] is False and True not in found


def test_at_most_52_bytes_decide_whether_a_request_starts():
    assert max(size for size in range(200) if is_request_start((b"A" * 32 + b" " + b"a" * 200)[:size]) is None) < 52

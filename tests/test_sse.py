"""Server-sent events: every form the standard allows, cut anywhere, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.wire import sse

FORMS = {
    "plain": (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    "no blank after the colon": (b"data:a\n\n", [("", b"a")]),
    "only one blank is taken": (b"data:  a \n\n", [("", b" a ")]),
    "carriage returns and line feeds": (b"event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", [("x", b"a"), ("", b"b")]),
    "carriage returns alone": (b"event: x\rdata: a\r\rdata: b\r\r", [("x", b"a"), ("", b"b")]),
    "mixed line ends": (b"data: a\n\r\ndata: b\r\n\ndata: c\r\r\n", [("", b"a"), ("", b"b"), ("", b"c")]),
    "several data lines": (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
    "comments and bare fields": (b": hi\n\nid: 7\nretry: 5\n\ndata\n\n", [("", None), ("", None), ("", b"")]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
    "no blank line at the end": (b"data: a\n\ndata: b", [("", b"a"), ("", b"b")]),
    "a character of four bytes": ("data: \U0001f600\n\n".encode(), [("", "\U0001f600".encode())]),
}


def decoded(pieces: list[bytes], cap: int = sse.CAP) -> list[tuple[str, bytes | None]]:
    decoder = sse.Decoder(cap)
    frames = [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.close()
    return [(frame.event, frame.data) for frame in frames]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_whole_byte_by_byte_and_cut_once_anywhere(name: str) -> None:
    """Where a stream is cut never changes its frames."""
    stream, expected = FORMS[name]
    assert decoded([stream]) == expected
    assert decoded([stream[n : n + 1] for n in range(len(stream))]) == expected
    for cut in range(len(stream)):
        assert decoded([stream[:cut], stream[cut:]]) == expected


@given(
    st.lists(st.sampled_from([b"data: x", b"\n", b"\r", b"\r\n", b":", b"event: e", b"\xff", b"{}"]), max_size=30),
    st.data(),
)
def test_raw_bytes_add_up_to_the_stream_whatever_it_holds(parts: list[bytes], data: st.DataObject) -> None:
    """Forwarding every frame's raw bytes forwards the stream, but for blanks at its very end."""
    stream = b"".join(parts)
    cut = data.draw(st.integers(0, len(stream)))
    decoder = sse.Decoder()
    frames = decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) + decoder.close()
    raw = b"".join(frame.raw for frame in frames)
    assert stream.startswith(raw)
    assert not stream[len(raw) :].strip()


def test_a_frame_of_ten_megabytes_is_a_frame() -> None:
    """A provider may send a picture in one event."""
    big = b"x" * 10_000_000
    stream = b"data: " + big + b"\n\n"
    assert decoded([stream[n : n + 65536] for n in range(0, len(stream), 65536)]) == [("", big)]


def test_a_frame_without_end_is_refused_in_bounded_memory() -> None:
    """Above the cap the stream ends in a declared error."""
    decoder = sse.Decoder(cap=1000)
    for _ in range(40):
        decoder.feed(b"data: no end in sight ")
    with pytest.raises(UpstreamFailure):
        decoder.feed(b"data: no end in sight, and more of it than may be kept " * 10)


def test_encoded_frames_read_back() -> None:
    """What we write is what we read."""
    assert decoded([sse.encode(b'{"a":1}'), sse.encode(b"{}", "ping"), sse.DONE]) == [
        ("", b'{"a":1}'),
        ("ping", b"{}"),
        ("", b"[DONE]"),
    ]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"[DONE]", None),
        (b'{"a": ', None),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'{"a": "\\ud83d"}', {"a": "\ufffd"}),
        (b'{"a": "\\ude00 b"}', {"a": "\ufffd b"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ],
)
def test_payloads_are_read_leniently(data: bytes, value: object) -> None:
    """Broken text inside good JSON becomes the replacement character, broken JSON becomes None."""
    assert sse.Frame(b"", "", data).tree == value

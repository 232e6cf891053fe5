"""AWS event streams: every cut, every header type, damage anywhere, within bounds."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.wire.eventstream import Decoder, Message, plain
from newapi_proxy.wire.sse import Frame
from tests.fakes.bedrock import event, exception, frame

STREAM = (
    event("messageStart", {"role": "assistant"})
    + event("contentBlockDelta", {"delta": {"text": "Grüß \U0001f600"}})
    + frame({":message-type": "event", ":event-type": "bare"})
    + exception("throttlingException", "slow down")
)
NAMES = ["messageStart", "contentBlockDelta", "bare", "throttlingException"]


def heard(pieces: list[bytes], cap: int = 1 << 20) -> list[Message]:
    """The messages of a stream."""
    found: list[Message] = []

    def told(message: Message) -> Frame:
        found.append(message)
        return plain(message)

    decoder = Decoder(told, cap)
    frames = [one for piece in pieces for one in decoder.feed(piece)] + decoder.close()
    assert [one.event for one in frames] == [message.name for message in found]
    return found


def damaged(data: bytes) -> list[Message]:
    """The messages of a stream, fed whole and byte by byte: both must say the same."""
    whole = heard([data])
    single = heard([data[at : at + 1] for at in range(len(data))])
    assert [(one.kind, one.name, one.payload) for one in whole] == [(one.kind, one.name, one.payload) for one in single]
    return whole


def test_every_cut() -> None:
    """Where a stream is cut never changes its messages, and their bytes add up to the stream."""
    whole = [(one.kind, one.name, one.payload, one.raw) for one in heard([STREAM])]
    assert [name for _, name, _, _ in whole] == NAMES
    assert [kind for kind, _, _, _ in whole] == ["event", "event", "event", "exception"]
    assert b"".join(raw for _, _, _, raw in whole) == STREAM
    for at in range(len(STREAM)):
        cut = heard([STREAM[:at], STREAM[at:]])
        assert [(one.kind, one.name, one.payload, one.raw) for one in cut] == whole
    assert len(damaged(STREAM)) == 4


def test_emptiness() -> None:
    """A decoder says whether a message is on its way; one that is cut says nothing at the end."""
    decoder = Decoder()
    assert decoder.empty
    assert decoder.feed(STREAM[:-1])
    assert not decoder.empty
    assert decoder.close() == []
    assert decoder.empty


def test_frames_that_say_nothing_are_left_out() -> None:
    """A message may be no frame."""
    assert Decoder(lambda message: None).feed(STREAM) == []


@pytest.mark.parametrize("at", range(len(STREAM)))
def test_a_flipped_bit_anywhere(at: int) -> None:
    """Damage is found wherever it is: what stood before it is told, nothing after it is."""
    data = bytearray(STREAM)
    data[at] ^= 0x10
    found = damaged(bytes(data))
    assert [one.kind for one in found].count("broken") <= 1
    assert [one.name for one in found if one.kind != "broken"] == NAMES[: len(found) - (found[-1:] != [])]
    assert found[-1].kind == "broken"
    assert found[-1].note


# Headers of every type of the format, the wanted ones among them.
TYPED = (
    b"\x01a\x00\x01b\x01\x01c\x02\x07\x01d\x03\x00\x07\x01e\x04\x00\x00\x00\x07"
    + (b"\x01f\x05" + bytes(8))
    + (b"\x01g\x06\x00\x03abc" + b"\x01h\x08" + bytes(8) + b"\x01i\x09" + bytes(16))
    + (b"\x0b:event-type\x07\x00\x04name" + b"\x0d:message-type\x07\x00\x05event")
)


def built(block: bytes, payload: bytes = b"{}", length: int | None = None) -> bytes:
    """A message around these header bytes, its sums right."""
    start = struct.pack(">II", 16 + len(block) + len(payload), len(block) if length is None else length)
    message = start + struct.pack(">I", crc32(start)) + block + payload
    return message + struct.pack(">I", crc32(message))


def test_header_types() -> None:
    """Headers of other types are skipped by their size."""
    (one,) = damaged(built(TYPED))
    assert (one.kind, one.name, one.payload) == ("event", "name", b"{}")


@pytest.mark.parametrize("at", range(1, len(TYPED)))
def test_headers_cut_anywhere(at: int) -> None:
    """Headers that break off are damage, or, where one ends, fewer of them."""
    (one,) = damaged(built(TYPED[:at]))
    assert one.kind in ("event", "broken")


HEADLESS = {
    "unknown type": b"\x01a\x0a",
    "text past the end": b"\x01a\x07\x00\x09abc",
    "bytes past the end": b"\x01a\x06\xff\xff",
    "name past the end": b"\xffabc",
    "nothing behind the name": b"\x03abc",
}


@pytest.mark.parametrize("name", HEADLESS)
def test_headers_that_lie(name: str) -> None:
    """Sums that are right do not make headers true."""
    (one,) = damaged(built(HEADLESS[name]))
    assert one.kind == "broken"


def test_no_headers_at_all() -> None:
    """A message without headers is an event without a name."""
    (one,) = damaged(built(b""))
    assert (one.kind, one.name) == ("event", "")


def test_error_messages() -> None:
    """A failure without a type of its own brings a code and a text in its headers."""
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "lost"}
    (one,) = damaged(frame(headers))
    assert (one.kind, one.name, one.note) == ("error", "InternalFailure", "lost")


LENGTHS = {
    "shorter than a message": (12, 0),
    "headers longer than the message": (40, 60),
    "headers above the format's bound": (400_000, 200_000),
    "above the cap": (2 << 20, 0),
    "all ones": (0xFFFFFFFF, 0xFFFFFFFF),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_that_cannot_be(name: str) -> None:
    """They are refused by the prelude: nobody waits for bytes, or keeps them."""
    start = struct.pack(">II", *LENGTHS[name])
    decoder = Decoder(cap=1 << 20)
    (one,) = decoder.feed(start + struct.pack(">I", crc32(start)))
    assert one.data == b""
    assert decoder.empty
    assert decoder.feed(b"x" * 1000) == []
    assert decoder.empty


def test_header_texts_that_are_no_text() -> None:
    """Broken UTF-8 in a header is replaced."""
    (one,) = damaged(built(b"\x0b:event-type\x07\x00\x01\xff"))
    assert one.name == "�"


def test_many_and_long_headers() -> None:
    """Headers beyond what is remembered are read all the same."""
    (one,) = damaged(frame({"x": "y" * 5000, ":event-type": "e", ":message-type": "event"}, b"1"))
    assert (one.name, one.payload) == ("e", b"1")


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, len(STREAM) - 1), st.integers(0, 255)), max_size=4), st.data())
def test_mutations(edits: list[tuple[int, int]], data: st.DataObject) -> None:
    """Whatever comes, in whatever cuts: frames, at most one sign of damage, and it is the last."""
    stream = bytearray(STREAM)
    for at, value in edits:
        stream[at] = value
    cut = data.draw(st.integers(0, len(stream)))
    found = heard([bytes(stream[:cut]), bytes(stream[cut:])])
    assert all(one.kind != "broken" for one in found[:-1])


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    """Bytes that are no stream end in damage, or are too few to tell."""
    found = damaged(data)
    assert len(data) < 12 or found[0].kind == "broken"

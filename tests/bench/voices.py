"""The benchmark's streams in other formats than chat: their first frames, one piece of text, their last frames."""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.bench import traffic


class Voice(NamedTuple):
    """How a provider speaks: frames of a chunked body."""

    first: bytes
    piece: bytes
    last: bytes


def _framed(*events: bytes, end: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + end


def _claude(kind: bytes, rest: bytes) -> bytes:
    return b'event: %s\ndata: {"type":"%s"%s}\n\n' % (kind, kind, rest)


def _gemini(part: bytes, more: bytes = b"") -> bytes:
    return (
        b'data: {"candidates":[{"content":{"parts":[%s],"role":"model"}%s,"index":0}],"usageMetadata":'
        b'{"promptTokenCount":48,"totalTokenCount":112,"candidatesTokenCount":64},'
        b'"modelVersion":"gemini-2.5-flash","responseId":"r1"}\r\n\r\n' % (part, more)
    )


_OVER: Final = b"0\r\n\r\n"
CHAT: Final = Voice(traffic.FIRST, traffic.PIECE, traffic.LAST)
CLAUDE: Final = Voice(
    _framed(
        _claude(
            b"message_start",
            b',"message":{"id":"msg_01","type":"message","role":"assistant","model":"claude","content":[],'
            b'"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":48,"output_tokens":1}}',
        ),
        _claude(b"content_block_start", b',"index":0,"content_block":{"type":"text","text":""}'),
    ),
    _framed(_claude(b"content_block_delta", b',"index":0,"delta":{"type":"text_delta","text":" tides"}')),
    _framed(
        _claude(b"content_block_stop", b',"index":0'),
        _claude(
            b"message_delta",
            b',"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":64}',
        ),
        _claude(b"message_stop", b""),
        end=_OVER,
    ),
)
GEMINI: Final = Voice(
    _framed(_gemini(b'{"text":"The"}')),
    _framed(_gemini(b'{"text":" tides"}')),
    _framed(_gemini(b'{"text":""}', b',"finishReason":"STOP"'), end=_OVER),
)
VOICES: Final = {b"-claude": CLAUDE, b"-gemini": GEMINI}
"""By a mark in the model's name; a model without one is told in chat."""


def of(request: bytes) -> Voice:
    """The voice that the request's model asks for."""
    return next((voice for mark, voice in VOICES.items() if mark in request), CHAT)

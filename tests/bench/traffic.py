"""What goes over the wire in the benchmark: requests, answers and stream chunks, all prepared once.

The model's name says how the upstream behaves; it is the one thing that every proxy hands on.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = "bench-whole"  # one answer of 660 bytes
SHORT: Final = "bench-short"  # a stream of SHORT_CHUNKS chunks, as fast as they come
BURST: Final = "bench-burst"  # a stream of BURST_CHUNKS chunks, as fast as they come
PACED: Final = "bench-paced"  # a stream with a chunk each PACE seconds, PACED_CHUNKS of them
IDLE: Final = "bench-idle"  # a stream that goes silent after its first word
MODELS: Final = (WHOLE, SHORT, BURST, PACED, IDLE)

SHORT_CHUNKS: Final = 20
BURST_CHUNKS: Final = 1_000
PACED_CHUNKS: Final = 200
PACE: Final = 0.010
ANSWER_BYTES: Final = 660

KEY: Final = "sk-bench-client"
UPSTREAM_KEY: Final = "sk-bench-upstream"

_PROMPT: Final = "Please write a short text about the sea, its tides, its colours and the ships that cross it. " * 2


def request(host: str, model: str) -> bytes:
    """A chat request as clients send it: about 330 bytes of body on a connection that stays open."""
    stream = b"false" if model == WHOLE else b"true"
    body = (
        b'{"model":"%s","messages":[{"role":"user","content":"%s"}],"temperature":0.7,"max_tokens":256,"stream":%s}'
        % (
            model.encode(),
            _PROMPT.encode(),
            stream,
        )
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nAccept: */*\r\nUser-Agent: bench/1\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _answer() -> bytes:
    head = b'{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,'
    tail = (
        b'"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":48,"completion_tokens":64,"total_tokens":112,'
        b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,'
        b'"audio_tokens":0}},"service_tier":"default","system_fingerprint":"fp_44709d6fcb"}'
    )
    middle = b'"model":"bench-whole","choices":[{"index":0,"message":{"role":"assistant","content":"'
    fill = ANSWER_BYTES - len(head) - len(middle) - len(tail)
    return head + middle + (b"The sea is wide. " * 40)[:fill] + tail


def _piece(delta: bytes, finish: bytes = b"null") -> bytes:
    return (
        b'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,'
        b'"model":"bench","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}\n\n' % (delta, finish)
    )


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"x-request-id: req_5f0d\r\nopenai-processing-ms: 5\r\n\r\n" % ANSWER_BYTES
) + _answer()
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_5f0d\r\nopenai-processing-ms: 5\r\n\r\n"
)
FIRST: Final = _framed(_piece(b'{"role":"assistant","content":""}'))
PIECE: Final = _framed(_piece(b'{"content":" tides"}'))
LAST: Final = (
    _framed(_piece(b"{}", b'"stop"'))
    + _framed(
        b'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,'
        b'"model":"bench","choices":[],"usage":{"prompt_tokens":48,"completion_tokens":64,"total_tokens":112}}\n\n'
    )
    + _framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
assert len(_answer()) == ANSWER_BYTES

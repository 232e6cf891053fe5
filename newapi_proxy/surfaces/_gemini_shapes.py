"""Pieces of a Gemini answer: usage, finish words, calls, signatures, grounding, errors, and how a stream is framed.

Shared by the whole answer, the stream writer and the passer, so that the three cannot differ. Source:
provider-translation A.0.3, A.0.5, A.7.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.errors import Kind, ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Finish
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces._gemini_fields import bracketed
from newapi_proxy.wire import tree

Node = dict[str, Any]

FAMILY: Final = "google"
SIGNED: Final = "google-gemini-v1"  # the label of this format's own signatures
ALT: Final = "alt"  # where an ask keeps how its stream is framed, among its headers
RAW: Final = "__raw_arguments__"
MOST_TEXT: Final = 1024 * 1024  # characters of an answer's text kept to turn citations' places into bytes
MOST_SOURCES: Final = 500  # citations of one answer
MOST_REFUSED: Final = 64 * 1024  # characters of a refusal's words
FINISH: Final[dict[Finish, str]] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "pause": "STOP",
    "length": "MAX_TOKENS",
    "context_overflow": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "PROHIBITED_CONTENT",
    "error": "OTHER",
}
_STATUS: Final[dict[Kind, str]] = {
    "bad_request": "INVALID_ARGUMENT",
    "too_large": "INVALID_ARGUMENT",
    "content_policy": "INVALID_ARGUMENT",
    "unauthorized": "UNAUTHENTICATED",
    "permission": "PERMISSION_DENIED",
    "quota": "RESOURCE_EXHAUSTED",
    "rate_limit": "RESOURCE_EXHAUSTED",
    "not_found": "NOT_FOUND",
    "timeout": "DEADLINE_EXCEEDED",
    "overloaded": "UNAVAILABLE",
    "upstream_auth": "INTERNAL",
    "upstream": "INTERNAL",
    "internal": "INTERNAL",
}
_BY_STATUS: Final = {405: "UNIMPLEMENTED", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE"}
_LABEL: Final = re.compile(r"([a-z0-9-]+-v\d+|unknown|call)\.(.*)", re.S)
_STANDARD: Final = str.maketrans("-_", "+/")
_DEEP: Final = 200  # more brackets than this may be nested deeper than can be written


class Framing:
    """A stream's elements as the client wants them: events, or one JSON array written element by element."""

    __slots__ = ("_begun", "events")

    def __init__(self, ask: Ask) -> None:
        self.events = ask.headers.get(ALT) == "sse"
        self._begun = False

    def element(self, value: Node) -> bytes:
        """One chunk; b"" for one that no writer could nest so deep."""
        try:
            return self.encoded(tree.encode(value))
        except TypeError:
            return b""

    def encoded(self, value: bytes) -> bytes:
        """One chunk that is JSON already, on one line."""
        if self.events:
            return b"data: " + value + b"\r\n\r\n"
        before, self._begun = b",\r\n" if self._begun else b"[", True
        return before + value

    def end(self) -> bytes:
        """The stream's last bytes: nothing after events, the array's end after elements."""
        if self.events:
            return b""
        return b"]\n" if self._begun else b"[]\n"


def standard(data: str) -> str:
    """Base64 in the standard alphabet, padded; it comes in either (A.7)."""
    text = data.translate(_STANDARD) if "-" in data or "_" in data else data
    return text if len(text) % 4 == 0 else text + "=" * (-len(text) % 4)


def sealed(format: str, value: str) -> str:
    """A signature as a client of this format keeps it: base64; another provider's with its label inside."""
    if format == SIGNED and _decoded(value) is not None:
        return value
    return base64.b64encode(f"{format}.{value}".encode("utf-8", "replace")).decode()


def unsealed(value: str) -> tuple[str, str]:
    """The opposite of `sealed`: label and signature. Google's own are binary, so that none is mistaken."""
    plain = _decoded(value)
    if plain is not None and plain.isascii():
        found = _LABEL.fullmatch(plain.decode())
        if found:
            return found[1], found[2]
    return SIGNED, value


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(standard(value), validate=True)
    except (binascii.Error, ValueError):
        return None


def usage_tree(usage: Usage) -> Node:
    """The usage object; sub-inferences are summed into it, since the format has one model per answer."""
    every = (usage, *(other for _, other in usage.others))
    prompt, completion = sum(one.prompt for one in every), sum(one.completion for one in every)
    thoughts = min(sum(one.reasoning for one in every), completion)
    node: Node = {"promptTokenCount": prompt, "candidatesTokenCount": completion - thoughts}
    if thoughts:
        node["thoughtsTokenCount"] = thoughts
    cached = sum(one.cache_shown for one in every)
    if cached:
        node["cachedContentTokenCount"] = cached
    node["totalTokenCount"] = prompt + completion
    _details(node, "promptTokensDetails", prompt, usage.audio_in, usage.image_in)
    _details(node, "candidatesTokensDetails", completion - thoughts, usage.audio_out, usage.image_out)
    return node


def _details(node: Node, name: str, total: int, audio: int, image: int) -> None:
    if audio or image:
        counts = {"TEXT": max(0, total - audio - image), "AUDIO": audio, "IMAGE": image}
        node[name] = [{"modality": kind, "tokenCount": count} for kind, count in counts.items() if count]


def counted(value: Any) -> bool:
    """Whether a usage object counts anything; some only name the kind of traffic."""
    return type(value) is dict and type(value.get("promptTokenCount", value.get("totalTokenCount"))) is int


def call_part(id_: str, name: str, arguments: str, kind: str, signature: str | None) -> Node:
    """A call as a part: whole, its arguments an object."""
    args: Node = {"input": arguments} if kind == "custom" else _arguments(arguments)
    part: Node = {"functionCall": {"id": id_, "name": name, "args": args}}
    if signature:
        part["thoughtSignature"] = sealed(SIGNED, signature)
    return part


def _arguments(text: str) -> Node:
    """The arguments as an object; what is none travels as text in one (B.0)."""
    if not text.strip():
        return {}
    deep = text.count("{") + text.count("[") > _DEEP
    value = tree.lenient(text.encode("utf-8", "replace"))
    return value if type(value) is dict and not (deep and _unwritable(value)) else {RAW: text}


def _unwritable(value: Any) -> bool:
    for _ in range(16):  # it is to stand inside an answer
        value = [value]
    try:
        tree.encode(value)
    except TypeError:
        return True
    return False


def grounding(sources: Sequence[Node], text: str | None) -> Node:
    """Citations of the web as this format tells them; places count bytes. `text` None: too long to say where."""
    chunks = [{"web": {"uri": one.get("url"), "title": one.get("title") or one.get("url")}} for one in sources]
    supports = []
    for number, one in enumerate(sources):
        start, end = one.get("start"), one.get("end")
        if text is None or type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(text):
            continue
        first = len(text[:start].encode("utf-8", "replace"))
        part = text[start:end]
        segment = {"startIndex": first, "endIndex": first + len(part.encode("utf-8", "replace")), "text": part}
        supports.append({"segment": segment, "groundingChunkIndices": [number]})
    return {"groundingChunks": chunks, "groundingSupports": supports} if supports else {"groundingChunks": chunks}


def error_tree(error: ProxyError, status: int, request_id: str) -> Node:
    """The error object: Google's code, message and status; the place, our code and the wait among its details."""
    details: list[Node] = []
    if error.code is not None:
        details.append({"@type": f"{_RPC}ErrorInfo", "reason": str(error.code), "domain": error.type})
    if error.param:
        place = {"field": bracketed(error.param), "description": error.message}
        details.append({"@type": f"{_RPC}BadRequest", "fieldViolations": [place]})
    if error.retry_after is not None:
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{max(1, round(error.retry_after))}s"})
    node: Node = {
        "code": status,
        "message": f"{error.message} (request id: {request_id})" if request_id else error.message,
        "status": _BY_STATUS.get(status, _STATUS[error.kind]),
    }
    return {"error": {**node, "details": details} if details else node}


_RPC: Final = "type.googleapis.com/google.rpc."

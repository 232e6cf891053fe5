"""Sessions of OpenAI's realtime protocol: the handshake, and what its events cost.

Knows both generations of event names. A response's price is told in its `response.done`; what the others carry is
counted only for a response that never gets there. Source: relay-and-billing 5.7.5, 10.1; tasks-and-accounts 10.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters.base import Endpoint, Headers, Outgoing, Target
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.session import Moment
from newapi_proxy.ir.usage import Usage, counted
from newapi_proxy.wire import tree

DIALECT: Final = "openai.realtime"
_OFFERED: Final = "sec-websocket-protocol"
_BETA: Final = "openai-beta"
_KEY: Final = "openai-insecure-api-key."
_VERSION: Final = "openai-beta."
_WORD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # what may stand in a list of subprotocols
_PCM: Final = 48  # bytes a millisecond: 24 kHz, two bytes each
_LAW: Final = 8  # 8 kHz, one byte each
_MINUTE: Final = 1000  # tokens that a minute of sound counts as where only its length is told (relay-and-billing 5.10)
_LONGEST: Final = 86_400  # seconds: what says more is no length

_SPOKEN: Final = frozenset({"response.audio.delta", "response.output_audio.delta"})
_WRITTEN: Final = frozenset(
    {
        "response.text.delta",
        "response.output_text.delta",
        "response.audio_transcript.delta",
        "response.output_audio_transcript.delta",
        "response.function_call_arguments.delta",
    }
)
_RESPONSE: Final[Mapping[str, Literal["begun", "done"]]] = {"response.created": "begun", "response.done": "done"}
_SESSION: Final = frozenset({"session.created", "session.updated"})
_HEARD: Final = "conversation.item.input_audio_transcription.completed"
_EMPTY: Final = msgspec.Raw(b'""')
Node = dict[str, Any]


class _Event(msgspec.Struct):
    """What is read of an event; of large ones nothing is copied."""

    type: str = ""
    audio: msgspec.Raw = _EMPTY
    delta: msgspec.Raw = _EMPTY
    item: Any = None
    response: Any = None
    response_id: Any = None
    session: Any = None
    usage: Any = None
    error: Any = None


_DECODER: Final = msgspec.json.Decoder(_Event)
_READ_UP: Final = frozenset(
    {"input_audio_buffer.append", "conversation.item.create", "response.create", "session.update"}
)


def realtime(
    url: Callable[[Target], str],
    auth: Callable[[Target], dict[str, str]],
    *,
    keyed: bool = True,
    failed: Callable[[int, Headers, bytes], UpstreamFailure] | None = None,
) -> Endpoint:
    """Sessions there. `keyed`: the server takes its key among the subprotocols, where the client gave its own so."""

    def request(ask: Ask, to: Target) -> Outgoing:
        headers = auth(to)
        offered = ask.headers.get(_OFFERED)
        if offered is not None:
            headers[_OFFERED] = ", ".join(_offers(offered.split(","), to.key.reveal() if keyed else ""))
        beta = ask.headers.get(_BETA)
        if beta is None and offered is None and "-preview" in to.model:
            beta = "realtime=v1"  # those models know that generation alone; the others would take it for a wish
        if beta is not None:
            headers[_BETA] = beta
        return Outgoing(url=url(to), body=b"", headers=headers, method="GET")

    def failure(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        if failed is not None:
            return failed(status, headers, body)
        return _failures.normalise(status, _failures.said(body), headers, body)

    return Endpoint(
        dialect=DIALECT, request=request, answer=lambda ask, body: (), failure=failure, session=SessionMeter
    )


def _offers(items: list[str], key: str) -> list[str]:
    """The client's list with the channel's key in place of its own; what names its own account is left out."""
    found = []
    for item in (one.strip() for one in items):
        if item.startswith(_KEY):
            if _WORD.fullmatch(key):
                found.append(_KEY + key)
        elif item == "realtime" or item.startswith(_VERSION):
            found.append(item)
    return found


class SessionMeter:
    """See adapters.base.Meter."""

    def __init__(self, ask: Ask, to: Target) -> None:
        """`ask` has the name that the client knows, `to` the provider's."""
        self._asked = ask.model
        self._model = to.model
        self._in = self._out = _PCM
        self._listener = ""  # the model that writes down what the client says

    def up(self, data: bytes) -> Moment | None:
        """A message of the client: what it adds to the prompt. The session's model is not the client's to change."""
        event = _read(data)
        if event is None or event.type not in _READ_UP:
            return None
        if event.type == "input_audio_buffer.append":
            return Moment(kind="said", sound=_length(event.audio) // self._in)
        if event.type == "session.update":
            session = event.session
            if type(session) is not dict:
                return None
            other = self._renamed(data, self._model)
            return Moment(kind="said", text=_text(session.get("instructions")), data=other)
        if event.type == "response.create":
            node = event.response
            return Moment(kind="said", text=_text(node.get("instructions"))) if type(node) is dict else None
        text, sound = _item(event.item)
        return Moment(kind="said", text=text, sound=sound // self._in)

    def down(self, data: bytes) -> Moment | None:
        """A message of the provider."""
        event = _read(data)
        if event is None:
            return None
        kind = event.type
        if kind in _SPOKEN:
            return Moment(kind="part", response=_text(event.response_id), sound=_length(event.delta) // self._out)
        if kind in _WRITTEN:
            return Moment(kind="part", response=_text(event.response_id), text=_text(tree.lenient(bytes(event.delta))))
        if kind in _RESPONSE:
            node = event.response if type(event.response) is dict else {}
            return Moment(kind=_RESPONSE[kind], response=_text(node.get("id")), usage=_usage(node.get("usage")))
        if kind in _SESSION:
            self._learn(event.session)
            return Moment(data=None if self._asked == self._model else self._renamed(data, self._asked))
        if kind == _HEARD:
            usage = _usage(event.usage)
            return None if usage is None else Moment(kind="side", usage=usage, model=self._listener)
        if kind == "error":
            return _fault(data, event.error)
        return None

    def _learn(self, session: Any) -> None:
        """Formats and the listener's model, in the words of either generation."""
        if type(session) is not dict:
            return
        audio = _node(session, "audio")
        entry, out = _node(audio, "input"), _node(audio, "output")
        self._in = _rate(session.get("input_audio_format") or _node(entry, "format").get("type"))
        self._out = _rate(session.get("output_audio_format") or _node(out, "format").get("type"))
        listener = _node(session, "input_audio_transcription") or _node(entry, "transcription")
        self._listener = _text(listener.get("model"))

    def _renamed(self, data: bytes, name: str) -> bytes | None:
        """The message with that name for the session's model; None where it names none or that one."""
        whole = tree.lenient(data)
        session = _node(whole, "session") if type(whole) is dict else {}
        model = session.get("model")
        if model is None or model == name:
            return None
        try:
            return tree.encode({**whole, "session": {**session, "model": name}})
        except tree.TooDeep:  # then the rest is left out: no other model's name gets through
            return tree.encode({"type": whole.get("type"), "session": {"model": name}})


def _read(data: bytes) -> _Event | None:
    try:
        return tree.typed(data, _DECODER)
    except RecursionError:  # nested without end
        return None


def _fault(data: bytes, error: Any) -> Moment:
    """The provider's error: what it means, and its words without what they must not name."""
    told = _failures.told({"error": error})
    if told is None or type(error) is not dict:
        return Moment()
    scrubbed = _failures.scrubbed(told.message)
    whole = tree.lenient(data)
    other = None
    if scrubbed != error.get("message") and type(whole) is dict:
        try:
            other = tree.encode({**whole, "error": {**error, "message": scrubbed}})
        except tree.TooDeep:
            other = tree.encode({"type": "error", "error": {"message": scrubbed}})
    return Moment(kind="fault", failure=_failures.inband(told), data=other)


def _usage(node: Any) -> Usage | None:
    """A response's usage: cached parts are taken out of the kinds they are reported in, so that none counts twice."""
    if type(node) is not dict:
        return None
    if node.get("type") == "duration":
        return _lasted(node.get("seconds"))
    details = _node(node, "input_token_details")
    cached = _node(details, "cached_tokens_details")
    inner = {**details}
    for name in ("audio_tokens", "image_tokens"):
        inner[name] = max(0, (counted(details.get(name)) or 0) - (counted(cached.get(name)) or 0))
    shaped: Node = {"input_tokens_details": inner, "output_tokens_details": _node(node, "output_token_details")}
    return read_usage({**node, **shaped})


def _lasted(seconds: Any) -> Usage | None:
    """What sound of that length is charged as, where no tokens are told."""
    if type(seconds) not in (int, float) or not 0 < seconds < _LONGEST:
        return None
    tokens = math.ceil(seconds * _MINUTE / 60)
    return Usage(prompt=tokens, audio_in=tokens)


def _item(item: Any) -> tuple[str, int]:
    """Text and bytes of sound that a new item of the conversation holds."""
    if type(item) is not dict:
        return "", 0
    texts, sound = [_text(item.get("output")), _text(item.get("arguments"))], 0
    content = item.get("content")
    for part in content if type(content) is list else ():
        if type(part) is dict:
            texts += [_text(part.get("text")), _text(part.get("transcript"))]
            audio = part.get("audio")
            sound += len(audio) * 3 // 4 if type(audio) is str else 0
    return "\n".join(text for text in texts if text), sound


def _length(packed: msgspec.Raw) -> int:
    """Bytes in a text of base64, its quotes included."""
    return max(0, len(bytes(packed)) - 2) * 3 // 4


def _rate(name: Any) -> int:
    """Bytes a millisecond of a format, by either generation's name of it."""
    return _LAW if type(name) is str and name.startswith(("g711", "audio/pcmu", "audio/pcma")) else _PCM


def _node(node: Mapping[str, Any], name: str) -> Node:
    value = node.get(name)
    return value if type(value) is dict else {}


def _text(value: Any) -> str:
    return value if type(value) is str else ""

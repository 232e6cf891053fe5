"""OpenAI chat completions as clients speak it: the surface, and its whole answers.

Knows the format alone (provider-translation A.1); which provider answered is not its business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Alternative, Event, Finished, fold
from newapi_proxy.ir.thinking import Inlined
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_read, _openai_same
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces._openai_pass import Passer
from newapi_proxy.surfaces._openai_write import Writer
from newapi_proxy.surfaces.base import EVENT_STREAM, PATH, Face
from newapi_proxy.wire import sse, tree

Node = dict[str, Any]


class OpenAIChat:
    """The surface of `POST /v1/chat/completions`; see surfaces.base.Surface."""

    __slots__ = ()

    @property
    def dialect(self) -> str:
        """The format's name."""
        return _openai_read.DIALECT

    def keepalive(self, ask: Ask) -> bytes:
        """A comment: the format has no event for it."""
        return sse.PING

    def stream_type(self, ask: Ask) -> str:
        """Server-sent events."""
        return EVENT_STREAM

    def read(self, body: bytes, headers: Mapping[str, str]) -> Ask:
        """The request; an engine's path names its model. Raises ClientError with the path of the fault."""
        return _openai_read.read(body, headers.get(PATH, ""))

    def answer(self, ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
        """A whole answer (A.1.2), with the extensions for reasoning and citations where there are any."""
        if face.thinking_to_content:
            inlined = Inlined()
            events = [one for event in events for one in inlined.feed(event)]
        folded = fold(events)
        choices = folded.choices or {0: Alternative()}
        node: Node = {
            "id": folded.started.id or face.id,
            "object": "chat.completion",
            "created": folded.started.created or face.created,
            "model": face.model,
            "choices": [_choice(index, choices[index], ask.legacy_functions) for index in sorted(choices)],
            "usage": shapes.usage_tree(usage),
        }
        return tree.encode(node)

    def same(self, ask: Ask, face: Face, body: tree.Document, usage: Usage) -> bytes:
        """A whole answer of this format: its own bytes where nothing must be changed."""
        return _openai_same.filled(face, body, usage)

    def writer(self, ask: Ask, face: Face) -> Writer:
        """A fresh writer."""
        return Writer(ask, face)

    def passer(self, ask: Ask, face: Face) -> Passer:
        """A fresh passer."""
        return Passer(ask, face)

    def failure(self, error: ProxyError, request_id: str) -> bytes:
        """The error envelope with the request id in its message."""
        return tree.encode(shapes.error_tree(error, request_id))

    def status(self, error: ProxyError) -> int:
        """The error's own status."""
        return error.status

    def count(self, tokens: int) -> bytes:
        """The format has no counting endpoint; the bare number under the name its usage has."""
        return tree.encode({"prompt_tokens": tokens})


def _choice(index: int, said: Alternative, legacy: bool) -> Node:
    finished = said.finished or Finished("stop")
    choice: Node = {
        "index": index,
        "message": _message(said, finished, legacy),
        "logprobs": {"content": said.logprobs, "refusal": None} if said.logprobs else None,
        "finish_reason": shapes.finish_word(finished.reason, bool(said.calls), legacy),
    }
    if finished.reason == "pause" and finished.native:
        choice["native_finish_reason"] = finished.native  # no word of the format's own says that the turn goes on
    return choice


def _message(said: Alternative, finished: Finished, legacy: bool) -> Node:
    refusal = said.refusal or None
    if finished.reason == "refusal" and refusal is None:
        refusal = finished.detail or said.text or shapes.DECLINED
    message: Node = {
        "role": "assistant",
        "content": said.text or (None if said.calls or refusal else ""),
        "refusal": refusal,
    }
    thought = ""
    for one in said.thoughts:
        thought += (shapes.gap(thought) if thought and one.text else "") + one.text
    if thought:
        message["reasoning_content"] = thought
    sealed = [one for one in said.thoughts if one.signature or one.data]
    if sealed:
        message["reasoning_details"] = [shapes.detail_tree(one, number) for number, one in enumerate(sealed)]
    if said.calls and legacy:
        message["function_call"] = {"name": said.calls[0].name, "arguments": said.calls[0].arguments}
    elif said.calls:
        message["tool_calls"] = [
            shapes.call_tree(call.id, call.name, call.arguments, call.kind, call.signature) for call in said.calls
        ]
    if said.pictures:
        message["images"] = [shapes.picture_tree(one) for one in said.pictures]
    notes = [note for cited in said.citations if (note := shapes.annotation_tree(cited, len(said.text))) is not None]
    if notes:
        message["annotations"] = notes
    pages = [cited.value for cited in said.citations if not cited.value.get("url")]
    if pages:
        message["citations"] = pages  # places in documents, which the format's annotations cannot say
    return message


CHAT = OpenAIChat()

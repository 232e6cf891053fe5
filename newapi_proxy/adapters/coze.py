"""Coze: bots and chat flows behind version 3 of its chat, which tells an answer only as a stream.

A whole answer there is a chat to be asked for again and again, so every request is streamed up. Nothing is kept: each
request is a conversation of its own that holds all messages, so that any channel can serve any turn. Errors are codes,
mostly inside a 200. Source: the provider's pages chat_v3, upload_files and coze_error_codes; provider-translation A.0.4
and A.0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _apps as apps
from newapi_proxy.adapters._failures import Said, normalise, said, told
from newapi_proxy.adapters._fence import Fence, unfenced
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters.base import Adapter, Headers, Options, Outgoing, Target, join
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media, Tree
from newapi_proxy.ir.events import (
    Ended,
    Event,
    Failed,
    Finished,
    Metered,
    ReasoningDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage, counted
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.tree import Document

DIALECT: Final = "coze"
WHOSE: Final = "Coze"
MOST_MESSAGES: Final = 100  # the provider's limit
MOST_ANSWERS: Final = 256  # messages of one chat whose ids are remembered
GAP: Final = "\n\n"  # between the answers of one chat
_KINDS: Final = {"image": "image", "file": "file", "audio": "audio", "video": "file"}
_TEXT: Final = ("text", "", None)  # types of content that are words; a card is for the provider's own display

_MEANT: Final[Mapping[str | int | None, int]] = {  # the provider's code → the status that it means
    **dict.fromkeys((4000, 4001, 4002, 4003, 4004, 4005, 4010, 4014, 4300, 4301, 4303, 4304), 400),
    **dict.fromkeys((4100, 4101, 700012006), 401),
    **dict.fromkeys((4011, 4019, 4022, 4012, 4015, 4021), 402),
    **dict.fromkeys((4006, 4200), 404),
    **dict.fromkeys((4008, 4009, 4020), 429),
    **dict.fromkeys((4013, 5000), 500),
    4102: 403,
    4302: 413,
}
_BOT: Final = (4012, 4015, 4021)  # the bot is not fit to be called: there is no other key that would help


class CozeOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`bot`: the id of the bot that all models of the channel are; without it a model's upstream name is the id."""

    bot: str | None = None


class CozeChat(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect."""

    @property
    def dialect(self) -> str:
        """The format's name; no client speaks it."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every name may be a bot's."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Dialect."""
        apps.refuse(ask, WHOSE)
        body: Tree = {
            "bot_id": to.options.bot or to.model.removeprefix("bot-"),  # as One API names models
            "user_id": apps.user(ask, to),
            "stream": True,
            "auto_save_history": False,
            "additional_messages": _messages(ask),
        }
        headers = {**_bearer(to), "content-type": "application/json", "accept": "text/event-stream"}
        return Outgoing(url=join(to.base_url, "/v3/chat"), body=body, headers=headers, dropped=apps.dropped(ask))

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """See adapters.base.Dialect: a stream that came whole, or an error in its place."""
        if isinstance(body.tree, dict):
            return (_failed(body.tree),)
        return apps.unstreamed(body, self.reader(ask))

    def frames(self) -> sse.Decoder:
        """Server-sent events."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> Reader:
        """A fresh reader."""
        return Reader(ask.controls.format is not None)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """See adapters.base.Dialect."""
        failure = _failure(said(body), status, headers, body)
        failure.upstream_status = status
        return failure


class CozeUploads:
    """POST /v1/files/upload; see adapters.base.Uploads."""

    def wanted(self, medium: Media) -> bool:
        """What is there as bytes only; addresses the provider fetches itself."""
        return apps.uploadable(medium)

    def request(self, medium: Media, ask: Ask, to: Target) -> Outgoing:
        """The upload; it belongs to the key's account."""
        kind, body = apps.multipart(medium, {})
        headers = {**_bearer(to), "content-type": kind, "accept": "application/json"}
        return Outgoing(url=join(to.base_url, "/v1/files/upload"), body=body, headers=headers)

    def file_id(self, body: Document) -> str | None:
        """The id under which the file is known from now on; see adapters.base.Uploads."""
        answer = _dict(body.tree)
        if answer.get("code"):
            raise _failed(answer).failure
        return _word(_dict(answer.get("data")).get("id")) or None


def _bearer(to: Target) -> dict[str, str]:
    return {"authorization": f"Bearer {to.key.reveal()}"}


# There are users and bots only: what a system says stands in front of the user's next words.
def _messages(ask: Ask) -> list[Tree]:
    """The conversation, the user's question last. Raises Unsupported for what has no form there."""
    said: list[tuple[str, list[str], list[Tree]]] = []
    waiting: list[str] = []
    for turn in ask.turns:
        words = [text for text in apps.texts(turn.parts, WHOSE) if text.strip()]
        media = [part for part in turn.parts if isinstance(part, Media) and part.text is None]
        if turn.role in ("system", "developer"):
            waiting += words
        elif turn.role != "assistant":
            said.append(("user", waiting + words, [_object(part) for part in media]))
            waiting = []
        elif media:
            raise Unsupported("Coze takes files from users only.", media[0].path, "unsupported_content")
        elif words:
            said.append(("assistant", words, []))
    if waiting or not said:
        said.append(("user", waiting, []))
    if said[-1][0] != "user":
        raise Unsupported("Coze wants a user's message last.", ask.turns[-1].path or "messages", "unsupported_content")
    if len(said) > MOST_MESSAGES:
        raise Unsupported(f"Coze takes at most {MOST_MESSAGES} messages.", "messages", "unsupported_content")
    if wish := apps.wish(ask.controls.format):
        said[-1][1].append(wish)
    return [_message(*one) for one in said]


def _message(role: str, words: list[str], media: list[Tree]) -> Tree:
    """One message; files need words beside them, and words without files are told plainly."""
    text = GAP.join(words) or apps.FILLER
    kind = {"role": role, "type": "question" if role == "user" else "answer"}
    if not media:
        return {**kind, "content": text, "content_type": "text"}
    return {**kind, "content": tree.dumps([{"type": "text", "text": text}, *media]), "content_type": "object_string"}


def _object(part: Media) -> Tree:
    """A file by its id or address. One that is not uploaded yet has an empty id."""
    if apps.uploadable(part) or part.file_id is not None:
        return {"type": _KINDS[part.kind], "file_id": part.file_id or ""}
    url = part.url or ""
    if not url.lower().startswith(("http://", "https://")):
        raise Unsupported("Coze fetches from http and https addresses only.", part.path, "unsupported_content")
    return {"type": _KINDS[part.kind], "file_url": url}


def _failure(said: Said | None, status: int, headers: Headers, body: bytes = b"") -> UpstreamFailure:
    """An error in our terms: its code says more than its status, which is 200 for almost everything."""
    code = said.code if said is not None else None
    if isinstance(code, str) and code.isdecimal():
        code = int(code[:18])
    named = status if status >= 400 else said.status if said is not None else 0
    failure = normalise(_MEANT.get(code, named or 500), said, headers, body)
    if code in _BOT:
        failure.blames = "channel"
    return failure


def _failed(value: Tree) -> Failed:
    """The event for an error inside a 200: a failed chat's `last_error`, or a code by itself."""
    error = value.get("last_error")
    found = told(error if isinstance(error, dict) and error.get("code") else value)
    return Failed(_failure(found or Said(message="The upstream reported an error."), 0, {}))


class Reader:
    """One stream's state; see adapters.base.Reader. Keeps which messages were told, never what they said."""

    __slots__ = ("_fence", "_finished", "_heard", "_last", "_started")

    def __init__(self, emulated: bool = False) -> None:
        self._fence = Fence() if emulated else None
        self._started = False
        self._finished = False
        self._heard: set[str] = set()  # messages that came in pieces: their ends repeat them
        self._last: str | None = None  # the message of the latest text

    def read(self, frame: sse.Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        if frame.data is None or self._finished:
            return ()
        value = frame.tree
        if isinstance(value, dict):
            return self._told_out(self._take(frame.event, value))
        if frame.event == "done" or frame.done:
            return self._told_out(self._finish())
        return (Skipped("no JSON object"),) if frame.data.strip() else ()

    def close(self) -> Iterable[Event]:
        """See adapters.base.Reader. A stream may end without its last word: what it said is the answer."""
        return () if self._finished else self._told_out(self._finish())

    def _told_out(self, events: Iterator[Event]) -> list[Event]:
        return list(events if self._fence is None else unfenced(self._fence, events))

    def _take(self, name: str, value: Tree) -> Iterator[Event]:
        if not self._started and name.startswith("conversation.") and not name.endswith(".failed"):
            self._started = True
            yield Started(None, None, _time(value.get("created_at")))
        match name:
            case "conversation.message.delta":
                yield from self._message(value, whole=False)
            case "conversation.message.completed":
                yield from self._message(value, whole=True)
            case "conversation.chat.completed":
                yield from _metered(_dict(value.get("usage")))
                yield from self._finish()
            case "conversation.chat.requires_action":
                yield from self._paused(_dict(value.get("required_action")))
            case "done":
                yield from self._finish()
            case _ if name in ("conversation.chat.failed", "error") or value.get("code"):
                self._finished = True
                yield _failed(value)

    def _message(self, value: Tree, whole: bool) -> Iterator[Event]:
        """A piece of an answer, or an answer that did not come in pieces; tools, notes and suggestions are nothing."""
        id = _word(value.get("id"))[:64]
        if value.get("type") != "answer" or (whole and id in self._heard):
            return
        if len(self._heard) < MOST_ANSWERS:
            self._heard.add(id)
        if thought := _word(value.get("reasoning_content")):
            yield ReasoningDelta(thought)
        text = _word(value.get("content")) if value.get("content_type") in _TEXT else ""
        if text:
            gap = GAP if self._last not in (None, id) else ""
            self._last = id
            yield TextDelta(gap + text)

    def _paused(self, action: Tree) -> Iterator[Event]:
        """A question to the user was asked as an answer; a tool on the client's side is nobody's here."""
        calls = _dict(action.get("submit_tool_outputs")).get("tool_calls")
        if isinstance(calls, list) and any(_dict(call).get("type") == "function" for call in calls):
            self._finished = True
            failure = UpstreamFailure("The bot waits for a tool that its own application has to run.", blames="channel")
            yield Failed(failure)
        else:
            yield from self._finish("requires_action")

    def _finish(self, native: str | None = None) -> Iterator[Event]:
        self._finished = True
        yield Finished("stop", native=native)
        yield Ended()


def _metered(usage: Tree) -> Iterator[Event]:
    """Zeros say nothing, so that they are counted here."""
    prompt, completion = counted(usage.get("input_count")), counted(usage.get("output_count"))
    if prompt or completion:
        yield Metered(Usage(prompt=prompt or 0, completion=completion or 0))


def _dict(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _time(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**40 else None


def _inherited(row: Inherited) -> Meant:
    """New API keeps the bot's id in `other`, One API in the models' names (relay-and-billing 4.12)."""
    return Meant(options={**row.options, **({"bot": row.other} if row.other else {})})


ADAPTER: Final = Adapter(
    name="coze",
    numbers=(49,),
    base_url="https://api.coze.cn",
    options=CozeOptions,
    chat=(CozeChat(),),
    uploads=CozeUploads(),
    inherited=_inherited,
)

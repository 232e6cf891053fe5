"""Turns of any client as Gemini's contents: roles, calls with their signatures, results in the order of the calls.

Pure; the request around it stands in `_gemini_request`. Source: provider-translation B.2, B.0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, assert_never

import msgspec

from newapi_proxy.adapters._gemini_draft import Draft
from newapi_proxy.adapters._gemini_media import RESULT_KINDS, refused, told
from newapi_proxy.adapters._tools import as_object, opened_id
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import (
    Ask,
    Media,
    Part,
    Reasoning,
    Refusal,
    ServerBlock,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from newapi_proxy.wire import tree

Tree = dict[str, Any]

SIGNED: Final = "google-gemini-v1"
PLACEHOLDER: Final = "skip_thought_signature_validator"  # the documented word for a history without signatures
FILLER: Final = "."  # a turn that must be there and has nothing to say
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_SEAL: Final = "thoughtSignature"


class Spoken(msgspec.Struct, frozen=True):
    """What the conversation became: the system instruction's parts, the contents, and every medium told in them."""

    system: list[Tree]
    contents: list[Tree]
    media: list[Media]


class _Entry:
    """One content in the making: its parts, the results among them, the calls that want results."""

    __slots__ = ("calls", "parts", "results", "role")

    def __init__(self, role: str) -> None:
        self.role = role
        self.parts: list[Tree] = []
        self.calls: list[ToolCall] = []
        self.results: list[ToolResult] = []


def conversation(ask: Ask, draft: Draft) -> Spoken:
    """The contents. Raises Unsupported with the path of a part that cannot be told."""
    return _Conversation(draft).of(ask)


class _Conversation:
    """One request's contents in the making."""

    __slots__ = ("_draft", "_entries", "_inline", "_media")

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._entries: list[_Entry] = []
        self._media: list[Media] = []
        self._inline = 0  # characters of base64 so far

    def of(self, ask: Ask) -> Spoken:
        """All of it: the instruction, then turn by turn, then the results put in their places."""
        leading = ask.leading()
        system = [part for turn in ask.turns[:leading] for part in self._parts(turn)]
        if leading == len(ask.turns) or not self._draft.traits.system:
            self._entry("user").parts += system
            system = []
        for turn in ask.turns[leading:]:
            self._add(turn)
        entries = [one for one in self._entries if one.parts or one.results]
        contents = list(self._told(_joined(entries)))
        if entries and entries[0].role == "model" and entries[0].calls:
            contents.insert(0, _content("user", [{"text": FILLER}]))  # calls may not open a conversation
        return Spoken(system, contents or [_content("user", [{"text": FILLER}])], self._media)

    def _entry(self, role: str) -> _Entry:
        """The last entry where it is of this role, else a new one."""
        if not self._entries or self._entries[-1].role != role:
            self._entries.append(_Entry(role))
        return self._entries[-1]

    def _add(self, turn: Turn) -> None:
        """One turn behind the leading ones; a system's becomes tagged text of the user's, at its place."""
        if turn.role == "assistant":
            self._model(turn)
            return
        entry = self._entry("user")
        if turn.role in ("system", "developer"):
            entry.parts += [{"text": f"<system>{part['text']}</system>"} for part in self._parts(turn)]
            return
        entry.results += [part for part in turn.parts if isinstance(part, ToolResult)]
        entry.parts += self._parts(turn)

    def _parts(self, turn: Turn) -> list[Tree]:
        """The parts of a turn that is not the model's; results apart."""
        return [one for part in turn.parts if (one := self._part(part)) is not None]

    def _part(self, part: Part) -> Tree | None:
        match part:
            case Text(text=text) | Refusal(text=text) | Reasoning(text=text):
                return {"text": text} if text else None
            case Media():
                return self._medium(part)
            case ToolCall():
                raise Unsupported("A tool call has no place in a message of the user's.", part.path)
            case ToolResult() | ServerBlock():
                return None
            case _:
                assert_never(part)

    def _medium(self, part: Media) -> Tree:
        """A medium, counted against what fits into one request. Raises Unsupported (413) above that."""
        told_ = told(part, self._draft)
        self._media.append(part)
        if "inlineData" in told_:
            self._inline += len(told_["inlineData"]["data"])
            if self._inline > self._draft.quirks.inline:
                error = refused(part, self._draft, "takes no more than 20 MB of files in one request")
                error.status, error.kind, error.code = 413, "too_large", "request_too_large"
                raise error
        return told_

    # Thoughts are not replayed, their signatures are, on the part that they came from. A client that keeps signatures
    # apart says them before the text or behind it: they go to the part before, else to the next one without its own.
    def _model(self, turn: Turn) -> None:
        entry = self._entry("model")
        first = len(entry.parts)
        sealed = [part for part in turn.parts if isinstance(part, Reasoning) and part.format == SIGNED]
        by_call = {part.id: part.data or part.signature for part in sealed}
        ids = {part.id for part in turn.parts if isinstance(part, ToolCall)}
        waiting: list[str] = []
        for part in turn.parts:
            if isinstance(part, Reasoning):
                signature = _signature(part.data or part.signature) if part.format == SIGNED else None
                if signature is None or part.id in ids:
                    continue
                if part.text and part.signature:
                    entry.parts.append({"text": part.text, "thought": True, _SEAL: signature})
                elif len(entry.parts) > first and _SEAL not in entry.parts[-1] and "text" in entry.parts[-1]:
                    entry.parts[-1][_SEAL] = signature
                else:
                    waiting.append(signature)
                continue
            told_ = self._call(part, entry, by_call.get(part.id)) if isinstance(part, ToolCall) else self._said(part)
            if told_ is None:
                continue
            if waiting and told_.get(_SEAL, PLACEHOLDER) == PLACEHOLDER:
                told_[_SEAL] = waiting.pop(0)
            entry.parts.append(told_)
        entry.parts += [{"text": "", _SEAL: signature} for signature in waiting]

    def _said(self, part: Part) -> Tree | None:
        """A part of the model's turn that is no call."""
        if isinstance(part, Media) and part.data is None:
            self._draft.dropped.append(part.path or "messages")  # an earlier answer's sound, kept by its own provider
            return None
        value = self._part(part)
        if value is not None and isinstance(part, Text) and part.opaque is not None:
            signature = _signature(tree.find(part.opaque, "google.thought_signature"))
            if signature is not None:
                value[_SEAL] = signature
        return value

    def _call(self, part: ToolCall, entry: _Entry, detail: str | None) -> Tree:
        """A call of the history with its signature: the client's, the id's, or the placeholder where one must be."""
        id, sealed = opened_id(part.id)
        call: Tree = {"name": part.name, "args": as_object(part.arguments)}
        if self._draft.quirks.call_ids:
            call = {"id": id, **call}
        value: Tree = {"functionCall": call}
        signature = _signature(part.signature) or _signature(sealed) or _signature(detail)
        if signature is None and self._draft.traits.seals and not entry.calls:
            signature = PLACEHOLDER
        if signature is not None:
            value[_SEAL] = signature
        entry.calls.append(part)
        return value

    # Upstream wants each call answered, in the next content. Results come first; what they cannot hold, and what the
    # user says, follows them: in a content of its own on models that mix the two badly.
    def _told(self, entries: Sequence[_Entry]) -> Iterable[Tree]:
        calls: list[ToolCall] = []
        for entry in entries:
            if entry.role == "model":
                calls = entry.calls
                yield _content("model", entry.parts)
                continue
            answered, rest = self._answers(entry, calls)
            calls = []
            rest += entry.parts
            if answered and rest and not self._draft.traits.media_results:
                yield _content("user", answered)
                yield _content("user", rest)
            else:
                yield _content("user", [*answered, *rest])

    def _answers(self, entry: _Entry, calls: Sequence[ToolCall]) -> tuple[list[Tree], list[Tree]]:
        """The function responses in the order of the calls, and the parts that follow them."""
        answered: list[Tree] = []
        rest: list[Tree] = []
        left = list(entry.results)
        for call in calls:
            found = next((one for one in left if one.id == call.id), None)
            if found is None:
                answered.append(self._response(call.id, call.name, {"error": "no result"}))
                continue
            left.remove(found)
            value, media = self._result(found)
            response = self._response(call.id, call.name, value)
            rest += self._attached(response["functionResponse"], media)
            answered.append(response)
        for lost in left:  # what a result without its call says is worth keeping, its form is not
            rest += [one for part in lost.parts if (one := self._part(part)) is not None]
        return answered, rest

    def _response(self, call_id: str, name: str, value: Tree) -> Tree:
        """A function response; its id is the one that upstream knows."""
        response: Tree = {"name": name, "response": value}
        if self._draft.quirks.call_ids:
            response = {"id": opened_id(call_id)[0], **response}
        return {"functionResponse": response}

    def _result(self, result: ToolResult) -> tuple[Tree, list[Media]]:
        """What stands in the response, and the media beside it. An object goes up as it is, text under `output`."""
        text = "\n".join(part.text for part in result.parts if isinstance(part, Text))
        media = [part for part in result.parts if isinstance(part, Media)]
        if result.is_error:
            return {"error": text}, media
        value = tree.lenient(text.encode("utf-8", "replace")) if text.lstrip().startswith("{") else None
        if isinstance(value, dict):
            return value, media
        return ({} if media and not text else {"output": text}), media

    def _attached(self, response: Tree, media: Sequence[Media]) -> list[Tree]:
        """Puts media into the function response where the model takes them there; the others are named in it."""
        rest: list[Tree] = []
        for medium in media:
            part = self._medium(medium)
            kind = next(iter(part.values())).get("mimeType")
            if self._draft.traits.media_results and kind in RESULT_KINDS:
                response.setdefault("parts", []).append({name: part[name] for name in part if name.endswith("Data")})
                continue
            label = _label(part)
            files = response["response"].get("files")
            named = [*(files if isinstance(files, list) else ()), f"See file {label}."]
            response["response"] = {**response["response"], "files": named}
            rest += [{"text": f"This is file {label}:"}, part]
        if not response["response"]:
            response["response"] = {"output": ""}
        return rest


def _joined(entries: Iterable[_Entry]) -> list[_Entry]:
    """Neighbours of one role as one: empty entries between them are gone. Parts are never joined into one string."""
    out: list[_Entry] = []
    for entry in entries:
        if out and out[-1].role == entry.role:
            out[-1].parts += entry.parts
            out[-1].calls += entry.calls
            out[-1].results += entry.results
        else:
            out.append(entry)
    return out


def _content(role: str, parts: list[Tree]) -> Tree:
    return {"role": role, "parts": parts}


def _label(part: Tree) -> str:
    """A file's short name, the same each time the history is told."""
    body = part["inlineData"]["data"] if "inlineData" in part else part["fileData"]["fileUri"]
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _signature(value: Any) -> str | None:
    """A signature as upstream takes it: base64 of either alphabet; what else a client sends would be a 400."""
    return value if isinstance(value, str) and len(value) % 4 != 1 and _SIGNATURE.fullmatch(value) else None

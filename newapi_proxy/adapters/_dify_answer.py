"""What an app answers, as events: streams of chat, agent and workflow apps, and whole answers of the three.

Foreign shapes are never trusted: what has the wrong type is not there. Of the text only its length and a digest are
kept. Source: provider-translation B.9, tasks 4.2 to 4.6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

from newapi_proxy.adapters._apps import unstreamed
from newapi_proxy.adapters._failures import Said, normalise, told
from newapi_proxy.adapters._fence import Fence, unfenced
from newapi_proxy.adapters.base import Options
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.events import (
    Cited,
    Ended,
    Event,
    Failed,
    Finish,
    Finished,
    Metered,
    ReasoningDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage, counted
from newapi_proxy.wire import sse, tree

Tree = dict[str, Any]

FAMILY: Final = "dify"
PAUSED: Final = "[The workflow is paused: it waits for a person.]"
_OUTPUTS: Final = ("text", "answer", "result", "output")
_THOUGHTS: Final = ("thought", "tool", "tool_input", "observation")
_LEAST_CHUNKS: Final = 2  # before a message that repeats everything can be told from one that repeats a word
_LEAST_REPEAT: Final = 8  # characters, likewise

# The app or its model account is at fault, not the request: another channel may serve it.
_ACCOUNT: Final = ("provider_not_initialize", "provider_quota_exceeded")
_APP: Final = ("app_unavailable", "not_chat_app", "not_completion_app", "not_workflow_app")
_MODEL: Final = ("model_currently_not_support", "completion_request_error", "workflow_request_error")


class DifyOptions(Options, frozen=True, kw_only=True):
    """What this type takes besides.

    `app`: what stands behind the key; a chatflow is a chat. `debug`: progress of workflows and an agent's thoughts as
    reasoning, or as part of the text. `input_field`, `output_field`: where completion apps and workflows take the query
    and give the answer; without the latter the likeliest output is taken.
    """

    app: Literal["chat", "agent", "workflow", "completion"] = "chat"
    debug: bool | Literal["content", "reasoning"] = True
    input_field: str = "query"
    output_field: str | None = None


def failure_of(said: Said | None, status: int, headers: Any, body: bytes = b"") -> UpstreamFailure:
    """An error in our terms: its code says more than its status, which is 400 for almost everything."""
    code = said.code if said is not None else None
    meant = status
    if code in _ACCOUNT or code in _APP:
        meant = 402
    elif code in _MODEL:
        meant = 500
    failure = normalise(meant, said, headers, body)
    failure.upstream_status = status
    if meant == 402:
        failure.blames = "channel"  # its app, or the account of its model: there is no other key that would help
    return failure


# An agent is asked for a stream whatever the client wants, so a document here may be one.
def whole(body: tree.Document, options: DifyOptions, emulated: bool = False) -> list[Event]:
    """A whole answer's events; an agent's is a stream all the same. What is neither yields `Failed`."""
    value = body.tree
    if isinstance(value, dict):
        found = _whole(value, options)
        return list(unfenced(Fence(), found) if emulated else found)
    return unstreamed(body, Reader(options, emulated))


def _whole(value: Tree, options: DifyOptions) -> Iterator[Event]:
    data = _dict(value.get("data"))
    if options.app == "workflow" and data:
        yield Started(_word(value.get("workflow_run_id")) or None, None, _time(data.get("created_at")))
        yield from _workflow(data, options, _Told())
        return
    answer = value.get("answer")
    if not isinstance(answer, str):
        said = told(value)
        broken = UpstreamFailure("The upstream's answer cannot be read.")
        yield Failed(broken if said is None else failure_of(said, said.status or 500, {}))
        return
    id = _word(value.get("conversation_id")) or _word(value.get("message_id"))
    yield Started(id or None, None, _time(value.get("created_at")))
    if answer:
        yield TextDelta(answer)
    yield from _told_at_end(value)
    yield Finished("stop")


def _told_at_end(value: Tree) -> Iterator[Event]:
    """Sources and usage; zeros say nothing, so that they are counted here."""
    metadata = _dict(value.get("metadata"))
    sources = metadata.get("retriever_resources")
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, dict):
            yield Cited(source, FAMILY)
    usage = _dict(metadata.get("usage"))
    prompt, completion = counted(usage.get("prompt_tokens")), counted(usage.get("completion_tokens"))
    if prompt or completion:
        yield Metered(Usage(prompt=prompt or 0, completion=completion or 0))


class _Told:
    """What has been told of the text so far: how much, never the text itself."""

    __slots__ = ("_digest", "_latin", "chunks", "length")

    def __init__(self) -> None:
        self.chunks = 0
        self.length = 0
        self._latin = 0
        self._digest = hashlib.sha256()

    def add(self, text: str) -> TextDelta:
        """The event for one more piece."""
        self.chunks += 1
        self.length += len(text)
        self._latin += sum(character < "\u0250" for character in text)
        self._digest.update(text.encode("utf-8", "surrogatepass"))
        return TextDelta(text)

    def equals(self, text: str) -> bool:
        """Whether it was exactly this."""
        same = len(text) == self.length
        return same and hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() == self._digest.digest()

    def tokens(self) -> int:
        """About how many tokens it was."""
        return (self._latin + 3) // 4 + self.length - self._latin


def _workflow(data: Tree, options: DifyOptions, told: _Told) -> Iterator[Event]:
    """The end of a workflow's run: its text where none has come, what it cost, how it ended."""
    status = _word(data.get("status"))
    if status == "failed":
        yield Failed(_run_failed(data))
        return
    text = "" if told.length else output(data.get("outputs"), options.output_field)
    if text:
        yield told.add(text)
    usage = _total_only(data, told)
    if usage is not None:
        yield Metered(usage)
    if status == "paused":
        yield told.add(PAUSED)
    yield Finished("stop", native=status or None)


def _run_failed(data: Tree) -> UpstreamFailure:
    words = data.get("error")
    message = words if isinstance(words, str) and words else "The workflow failed."
    return normalise(500, Said(message=message), {})


def output(outputs: Any, field: str | None) -> str:
    """A workflow's answer among its outputs: the configured one, a usual one, the only text, or all of them."""
    if not isinstance(outputs, dict) or not outputs:
        return ""
    names = [field] if field is not None else list(_OUTPUTS)
    found = next((outputs[name] for name in names if outputs.get(name) is not None), None)
    if found is None and field is None:
        texts = [value for value in outputs.values() if isinstance(value, str)]
        found = texts[0] if len(texts) == 1 else outputs
    if found is None:
        return ""
    return found if isinstance(found, str) else tree.dumps(found)


# A workflow tells one sum: the output is reckoned from its text, the rest is input (tasks 4.6).
def _total_only(data: Tree, told: _Told) -> Usage | None:
    total = counted(data.get("total_tokens"))
    if not total:
        return None
    completion = min(total, told.tokens())
    return Usage(prompt=total - completion, completion=completion, source="mixed")


class Reader:
    """One stream's state; see adapters.base.Reader."""

    def __init__(self, options: DifyOptions, emulated: bool = False) -> None:
        self._options = options
        self._fence = Fence() if emulated else None
        self._started = False
        self._finished = False
        self._pending = False  # the message has ended, the workflow around it has not
        self._running = False  # a workflow
        self._agent = options.app == "agent"
        self._told = _Told()
        self._thought: tuple[str, Tree] = ("", {})

    def read(self, frame: sse.Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        if frame.data is None or self._finished:
            return ()
        value = frame.tree
        if not isinstance(value, dict):
            return (Skipped("no JSON object"),) if frame.data.strip() else ()
        return self._told_out(self._take(_word(value.get("event")) or frame.event, value))

    def close(self) -> Iterable[Event]:
        """See adapters.base.Reader. A stream may end without its last word: what it said is the answer."""
        return () if self._finished else self._told_out(self._finish("stop"))

    def _told_out(self, events: Iterator[Event]) -> list[Event]:
        return list(events if self._fence is None else unfenced(self._fence, events))

    def _take(self, name: str, value: Tree) -> Iterator[Event]:
        if not self._started and name not in ("error", "ping", ""):
            self._started = True
            yield Started(None, None, _time(value.get("created_at")))
        match name:
            case "message" | "agent_message":
                yield from self._message(name, _word(value.get("answer")))
            case "text_chunk" if self._options.app == "workflow":
                yield from self._text(_word(_dict(value.get("data")).get("text")))
            case "message_replace":
                yield from self._replace(_word(value.get("answer")))
            case "message_file":
                yield from self._file(value)
            case "message_end":
                yield from self._message_end(value)
            case "error":
                said = told(value)
                self._finished = True
                broken = UpstreamFailure("The upstream reported an error.")
                yield Failed(broken if said is None else failure_of(said, said.status or 500, {}))
            case "workflow_paused" | "human_input_required":
                yield from self._text(PAUSED)
                yield from self._finish("stop", name)
            case _:
                yield from self._aside(name, value)

    def _aside(self, name: str, value: Tree) -> Iterator[Event]:
        """What happens beside the answer: progress, thoughts, the end of a workflow."""
        data = _dict(value.get("data"))
        if name == "reasoning_chunk":
            text = _word(data.get("reasoning")) or _word(data.get("text")) or _word(value.get("reasoning"))
            if text:
                yield ReasoningDelta(text)
        elif name == "agent_thought":
            yield from self._thoughts(value)
        elif name.startswith(("workflow_", "node_")):
            yield from self._progress(name, data)
        if name == "workflow_started":
            self._running = True
        elif name == "workflow_finished":
            yield from self._workflow_finished(data)

    def _message(self, name: str, text: str) -> Iterator[Event]:
        if not text or self._repeated(name, text):
            return
        self._agent = self._agent or name == "agent_message"
        yield from self._text(text)

    # Some agents close with a message that holds the whole answer once more.
    def _repeated(self, name: str, text: str) -> bool:
        told = self._told
        if name != "message" or not (self._agent or (told.chunks >= _LEAST_CHUNKS and told.length >= _LEAST_REPEAT)):
            return False
        return told.equals(text)

    def _text(self, text: str) -> Iterator[Event]:
        if text:
            yield self._told.add(text)

    # What has been sent cannot be taken back: then the answer ends as a filtered one.
    def _replace(self, text: str) -> Iterator[Event]:
        if self._told.length:
            yield from self._finish("content_filter", "message_replace")
        else:
            yield from self._text(text)

    # A link is all that can be told in text; the user's own files come back as events too.
    def _file(self, value: Tree) -> Iterator[Event]:
        url = _word(value.get("url"))
        if not url or value.get("belongs_to") == "user":
            return
        mark = "!" if value.get("type") == "image" else ""
        gap = "\n\n" if self._told.length else ""
        yield from self._text(f"{gap}{mark}[{_word(value.get('type')) or 'file'}]({url})\n\n")

    # In a chatflow the message ends before the workflow that made it.
    def _message_end(self, value: Tree) -> Iterator[Event]:
        yield from _told_at_end(value)
        if self._running:
            self._pending = True  # the workflow around it may still fail
        else:
            yield from self._finish("stop")

    def _workflow_finished(self, data: Tree) -> Iterator[Event]:
        self._running = False
        if data.get("status") == "failed":
            self._finished = True
            yield Failed(_run_failed(data))
        elif self._options.app == "workflow":
            self._finished = True
            yield from _workflow(data, self._options, self._told)
            yield Ended()
        elif self._pending:
            yield from self._finish("stop")

    def _finish(self, reason: Finish, native: str | None = None) -> Iterator[Event]:
        self._finished = True
        yield Finished(reason, native=native)
        yield Ended()

    # The two ways that New API had: a line for each start in the text, a line for each step as reasoning.
    def _progress(self, name: str, data: Tree) -> Iterator[Event]:
        if not self._options.debug:
            return
        plain = self._options.debug == "content"
        status = _word(data.get("status")) if name in ("workflow_finished", "node_finished") else ""
        if plain and not name.endswith("_started"):
            return
        if name.startswith("workflow_"):
            line = f"Workflow: {_word(data.get('workflow_id'))}"
        else:
            line = f"Node: {_word(data.get('node_id' if plain else 'node_type'))}"
        yield from self._beside(f"{line} {status}".rstrip() + "\n")

    # The same thought comes again and again, each time with more of it: only what is new is told.
    def _thoughts(self, value: Tree) -> Iterator[Event]:
        if not self._options.debug:
            return
        id, known = self._thought
        if _word(value.get("id")) != id:
            known = {}
        fresh = {name: _word(value.get(name)) for name in _THOUGHTS}
        lines = [text for name, text in fresh.items() if text and text != known.get(name)]
        self._thought = (_word(value.get("id")), {**known, **{name: text for name, text in fresh.items() if text}})
        if lines:
            yield from self._beside("\n".join(lines) + "\n")

    def _beside(self, line: str) -> Iterator[Event]:
        if self._options.debug == "content":
            yield TextDelta(line)
        else:
            yield ReasoningDelta(line)


def _dict(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _time(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**40 else None

"""Legacy completions on servers of the OpenAI format: the client's own request, and its answers as events.

Serves asks of this format alone; another format is told as chat. Source: provider-translation A.2, B.8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters.base import Headers, Outgoing, Target
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Ended, Event, Failed, Finished, Metered, Skipped, Started, TextDelta
from newapi_proxy.ir.finish import understood
from newapi_proxy.wire import sse
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]

DIALECT: Final = "openai.completions"
MOST_CHOICES: Final = 128 * 2048
PATHS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("openai", "openrouter", "xai", "siliconflow", "together", "fireworks", "cerebras", "nvidia"), "/v1/completions"
    ),
    **dict.fromkeys(("novita", "xinference"), "/v1/completions"),
    "deepseek": "/beta/completions",
    "openai-compatible": "/completions",
}
"""The types whose servers have the endpoint, with its path; the others are told such a prompt as chat."""
CHAT_ONLY: Final = re.compile(r"(ft:)?(gpt-(?!.*instruct)|chatgpt-|o\d|codex-)", re.I)
"""OpenAI's own models that refuse the endpoint."""


class Completions(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect. `chat_only`: the models that do not have the endpoint."""

    url: Callable[[Target], str]
    auth: Callable[[Target], dict[str, str]]
    headers: Mapping[str, str] = {}
    stream_usage: bool = True
    chat_only: re.Pattern[str] | None = None
    failed: Callable[[int, Headers, bytes], UpstreamFailure] | None = None

    @property
    def dialect(self) -> str:
        """The format's name."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Whether the model has the endpoint."""
        return self.chat_only is None or self.chat_only.match(model) is None

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The client's own body with the upstream's model; usage is asked for where the server takes the wish."""
        if ask.dialect != DIALECT:
            raise Unsupported("This model takes no chat, only prompts.", "model")
        body = {**ask.tree, "model": to.model}
        if to.options.no_stream_options or not self.stream_usage:
            body.pop("stream_options", None)
        elif ask.stream and to.usage_in_stream:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        accept = "text/event-stream" if ask.stream else "application/json"
        return Outgoing(
            url=self.url(to),
            body=body,
            headers={"content-type": "application/json", "accept": accept, **self.headers, **self.auth(to)},
        )

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """A whole answer's events; a 200 that carries an error yields `Failed`."""
        node = body.tree
        if type(node) is not dict:
            said = f"{len(body.raw)} bytes that are no JSON object"  # not the bytes: they may be an answer's text
            return [Failed(UpstreamFailure("The provider's answer cannot be read.", upstream_status=502, detail=said))]
        if node.get("error") or type(node.get("choices")) is not list or not node["choices"]:
            told = _failures.told(node) or _failures.Said(message="The provider's answer holds no choices.")
            return [Failed(_failures.inband(told))]
        reader = Reader()
        return [*reader.told(node), *reader.close()]

    def frames(self) -> sse.Decoder:
        """Server-sent events."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> Reader:
        """A fresh reader."""
        return Reader()

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms."""
        if self.failed is not None:
            return self.failed(status, headers, body)
        return _failures.normalise(status, _failures.said(body), headers, body)


class Reader:
    """One answer's state; see adapters.base.Reader."""

    __slots__ = ("_begun", "_open")

    def __init__(self) -> None:
        self._begun = False
        self._open: dict[int, bool] = {}  # choice → whether its finish has not come

    def read(self, frame: Frame) -> Sequence[Event]:
        """The events of one frame."""
        if frame.data is None:
            return ()
        node = frame.tree
        if type(node) is dict:
            return self.told(node, frame.event)
        if frame.done:
            return (Ended(),)
        return (Skipped("not a JSON object"),) if frame.data.strip() else ()

    def repeats(self, event: Event) -> bool:
        """See adapters.base.Repeating."""
        return True

    def more(self, event: Event, text: str) -> None:
        """See adapters.base.Repeating: nothing is kept of the text."""

    def told(self, node: Node, name: str = "") -> list[Event]:
        """The events of one chunk, or of a whole answer; `name` is the frame's event name."""
        out: list[Event] = []
        if not self._begun:
            self._begin(node, out)
        usage = read_usage(node.get("usage"))
        if usage is not None:
            out.append(Metered(usage))
        choices = node.get("choices")
        if node.get("error") or name == "error" or choices is None:
            said = _failures.told(node)
            if said is not None or name == "error":
                out.append(Failed(_failures.inband(said or _failures.Said(message="The provider reports an error."))))
                return out
        for place, choice in enumerate(choices if type(choices) is list else ()):
            if type(choice) is dict:
                self._choice(choice, place, out)
        return out

    def _begin(self, node: Node, out: list[Event]) -> None:
        id_, model, created = node.get("id"), node.get("model"), node.get("created")
        if type(id_) is str and id_:
            self._begun = True
            out.append(Started(id_, model if type(model) is str else None, created if type(created) is int else None))

    def _choice(self, choice: Node, place: int, out: list[Event]) -> None:
        index = choice.get("index")
        if type(index) is not int or not 0 <= index < MOST_CHOICES:
            index = place
        if not self._open.get(index, True):
            return
        text, finish = choice.get("text"), choice.get("finish_reason")
        if type(text) is str and text:
            out.append(TextDelta(text, index))
        self._open[index] = not (finish and type(finish) is str)
        if not self._open[index]:
            out.append(Finished(understood(str(finish)), index, native=str(finish)))

    def close(self) -> list[Event]:
        """Finishes that are missing."""
        out: list[Event] = [Finished("stop", index) for index, one in self._open.items() if one]
        self._open = dict.fromkeys(self._open, False)
        return out

"""Zhipu's older interface, v3: text alone, answers in quotes, a stream whose usage stands on a line of its own.

Source: provider-translation B.8 (Zhipu legacy v3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters import _zhipu_failures as failures
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters.base import Headers, Outgoing, Target, join
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Part, Reasoning, Refusal, Text
from newapi_proxy.ir.events import Ended, Event, Failed, Finished, Metered, Skipped, Started, TextDelta
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.sse import Frame

DIALECT: Final = "zhipu-v3"
ANSWERED: Final = "Okay"  # what the user says to a system message, which must be answered
_VERSION: Final = re.compile(r"/paas/v\d$")
_LINE: Final = re.compile(r"\r\n|\n|\r")
_REFUSED: Final = ("logprobs", "top_logprobs", "audio", "modalities")


class V3Chat(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect. `auth`: the headers of the credential."""

    auth: Callable[[Target], dict[str, str]]

    @property
    def dialect(self) -> str:
        """The format's name."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every model."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The prompt, and the two settings that there are. Raises Unsupported for all but text."""
        _refuse(ask)
        body: dict[str, Any] = {"prompt": _prompt(ask)}
        dropped = [*ask.unknown, *(name for name, value in ask.controls.steering.items() if value is not None)]
        _sampling(ask, body, dropped)
        if ask.stream:
            body["incremental"] = True
        form = "sse-invoke" if ask.stream else "invoke"
        path = f"/api/paas/v3/model-api/{quote(to.model, safe='')}/{form}"
        return Outgoing(
            url=join(_VERSION.sub("", to.base_url).removesuffix("/api"), path),
            body=body,
            headers={"content-type": "application/json", **self.auth(to)},
            dropped=tuple(sorted(set(dropped))),
        )

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """A whole answer's events; `success: false` is a failure."""
        node = body.tree
        data = node.get("data") if isinstance(node, dict) else None
        choices = data.get("choices") if isinstance(data, dict) else None
        if not isinstance(node, dict) or node.get("success") is False or not isinstance(choices, list) or not choices:
            return [Failed(failures.inband(node))]
        assert isinstance(data, dict)
        id_ = data.get("task_id")
        events: list[Event] = [Started(id_)] if isinstance(id_, str) and id_ else []
        for number, choice in enumerate(choices[:1]):
            content = choice.get("content") if isinstance(choice, dict) else None
            if isinstance(content, str) and content:
                events.append(TextDelta(_unquoted(content), number))
        usage = read_usage(data.get("usage"))
        return [*events, Finished("stop"), *([Metered(usage)] if usage is not None else [])]

    def frames(self) -> sse.Decoder:
        """Server-sent events, with one more field than the standard has."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> V3Reader:
        """A fresh reader."""
        return V3Reader()

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms."""
        return failures.failed(status, headers, body)


class V3Reader:
    """See adapters.base.Reader."""

    __slots__ = ("_finished",)

    def __init__(self) -> None:
        self._finished = False

    def read(self, frame: Frame) -> Iterable[Event]:
        """The events of one frame: `add` and `finish` with text, an error, and usage on the line `meta`."""
        texts: list[str] = []
        events: list[Event] = []
        for line in _LINE.split(frame.raw.decode("utf-8", "replace")):
            name, _, value = line.partition(":")
            if name == "data":
                texts.append(value)  # a blank in front belongs to the text
            elif name == "meta":
                events += _meta(value)
        text = "\n".join(texts)
        if frame.event in ("error", "interrupted"):
            said = tree.lenient(text.encode("utf-8", "replace"))
            return [Failed(failures.inband(said if isinstance(said, dict) else {"msg": text.strip()}))]
        if text and not self._finished:
            events.insert(0, TextDelta(text))
        if frame.event == "finish" and not self._finished:
            self._finished = True
            events += [Finished("stop"), Ended()]
        return events

    def close(self) -> Iterable[Event]:
        """A finish where none came."""
        if self._finished:
            return ()
        self._finished = True
        return (Finished("stop"),)


def _meta(value: str) -> list[Event]:
    node = tree.lenient(value.encode("utf-8", "replace"))
    if not isinstance(node, dict):
        return [Skipped("meta is not a JSON object")]
    usage = read_usage(node.get("usage"))
    return [] if usage is None else [Metered(usage)]


def _prompt(ask: Ask) -> list[dict[str, str]]:
    prompt: list[dict[str, str]] = []
    for turn in ask.turns:
        text = "\n".join(_said(part, turn.path) for part in turn.parts if not isinstance(part, Reasoning))
        if turn.role in ("system", "developer"):
            prompt += [{"role": "system", "content": text}, {"role": "user", "content": ANSWERED}]
        else:
            prompt.append({"role": turn.role, "content": text})
    return prompt


def _said(part: Part, path: str) -> str:
    if isinstance(part, (Text, Refusal)):
        return part.text
    raise Unsupported("This interface takes text only.", getattr(part, "path", "") or path, "unsupported_content")


def _refuse(ask: Ask) -> None:
    if ask.tools:
        raise Unsupported("This interface has no tools.", "tools")
    if ask.controls.n != 1:
        raise Unsupported("This interface gives one answer per request.", "n")
    if ask.controls.format is not None:
        raise Unsupported("This interface has no JSON mode.", "response_format")
    for name in _REFUSED:
        if ask.controls.steering.get(name):
            raise Unsupported(f"This interface does not support {name}.", name)


def _sampling(ask: Ask, body: dict[str, Any], dropped: list[str]) -> None:
    """Both are open intervals here."""
    controls = ask.controls
    for name, value in (("temperature", controls.temperature), ("top_p", controls.top_p)):
        if value is not None:
            body[name] = min(max(value, 0.01), 0.99)
            if not 0 <= value <= 1:
                dropped.append(f"{name}~")
    unsent = {
        "max_tokens": controls.max_tokens,
        "top_k": controls.top_k,
        "stop": controls.stop or None,
        "user": controls.user,
        "reasoning_effort": controls.thinking,
        "service_tier": controls.service_tier,
    }
    dropped += [name for name, value in unsent.items() if value is not None]


def _unquoted(content: str) -> str:
    """An answer's text out of the JSON string that it is sent as."""
    text = content.strip()
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return content
    value = tree.lenient(text.encode("utf-8", "replace"))
    return value if isinstance(value, str) else text[1:-1]

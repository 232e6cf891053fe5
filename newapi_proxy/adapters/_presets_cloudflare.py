"""Cloudflare's own interface, `/ai/run/MODEL`, for models that its OpenAI-compatible one does not serve.

Requests are those of the OpenAI format without a model; answers wrap a text and its usage. Source: provider-translation
B.8 (Cloudflare Workers AI).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters._openai_stream import Reader, read_answer
from newapi_proxy.adapters.base import Endpoint, Headers, Options, Outgoing, Target, join
from newapi_proxy.adapters.openai import OpenAIChat, bearer
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Metered, TextDelta
from newapi_proxy.ir.matter import Transcribe
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.sse import Frame

DIALECT: Final = "cloudflare-run"


class CloudflareOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`account`: the account id that stands in the path; without it the base URL must hold it. `api`: which of two."""

    account: str = ""
    api: Literal["v1", "run"] = "v1"


def compatible_url(path: str) -> Callable[[Target], str]:
    """Where the OpenAI-compatible interface has this path, which begins with its version."""
    return lambda to: join(
        to.base_url, f"/client/v4/accounts/{to.options.account}/ai{path}" if to.options.account else path
    )


def run_url(to: Target) -> str:
    """Where a model is called by its name, which begins with an @ and holds slashes. Raises Unsupported."""
    if ".." in to.model:
        raise Unsupported("This is not a model's name.", "model")
    model = quote(to.model, safe="@/")
    if not to.options.account:
        return f"{to.base_url}/run/{model}"
    return join(to.base_url, f"/client/v4/accounts/{to.options.account}/ai/run/{model}")


class RunChat(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect. `inner` makes the request."""

    inner: OpenAIChat

    @property
    def dialect(self) -> str:
        """The format's name."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every model."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The OpenAI format's request without what the path says."""
        out = self.inner.request(ask, to)
        assert isinstance(out.body, dict)
        body = {name: value for name, value in out.body.items() if name not in ("model", "stream_options")}
        return msgspec.structs.replace(out, url=run_url(to), body=body)

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """A whole answer's events; `success: false` is a failure."""
        node = body.tree
        result = node.get("result") if isinstance(node, dict) else None
        if not isinstance(result, dict) or "choices" in result or not _speaks(result):
            inner = result if isinstance(result, dict) and "choices" in result else None
            return Reader().whole(inner) if inner is not None else read_answer(body)
        return Reader().whole(_answer(result, "message"))

    def frames(self) -> sse.Decoder:
        """Server-sent events."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> RunReader:
        """A fresh reader."""
        return RunReader()

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms."""
        return self.inner.failure(status, headers, body)


class RunReader:
    """See adapters.base.Reader."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        self._inner = Reader()

    def read(self, frame: Frame) -> Sequence[Event]:
        """The frame's events."""
        node = frame.tree
        if isinstance(node, dict) and _speaks(node):
            return self._inner.told(_answer(node, "delta"))
        return self._inner.read(frame)

    def close(self) -> Sequence[Event]:
        """What is still missing."""
        return self._inner.close()


def _speaks(node: dict[str, Any]) -> bool:
    return "response" in node or "tool_calls" in node


def _answer(result: dict[str, Any], field: str) -> dict[str, Any]:
    """The result as an answer or a chunk of the OpenAI format."""
    said: dict[str, Any] = {"content": _text(result.get("response"))}
    calls = result.get("tool_calls")
    if isinstance(calls, list) and calls:
        said["tool_calls"] = [_call(call, number) for number, call in enumerate(calls) if isinstance(call, dict)]
    return {"choices": [{"index": 0, field: said}], "usage": result.get("usage")}


def _text(response: Any) -> str | None:
    """The text; JSON mode answers with the object itself."""
    if isinstance(response, (dict, list)):
        return tree.dumps(response)
    return response if isinstance(response, str) else None


def _call(call: dict[str, Any], number: int) -> dict[str, Any]:
    if "function" in call:
        return call
    return {"index": number, "function": {"name": call.get("name"), "arguments": call.get("arguments")}}


def _sound(ask: Ask, to: Target) -> Outgoing:
    """The file's bytes alone. Raises Unsupported for what the model's address has no place for."""
    assert isinstance(ask.matter, Transcribe)
    assert ask.form is not None
    if ask.matter.action != "transcriptions" or ask.answer_type or ask.stream:
        raise Unsupported("This provider gives the plain words of a sound alone, as JSON.", "response_format")
    file = ask.form.file("file")
    assert file is not None, "a form without a file was refused"
    dropped = tuple(name for name in ask.tree if name not in ("model", "response_format"))
    headers = {"content-type": "application/octet-stream", **bearer(to)}
    return Outgoing(url=run_url(to), body=file.read(), headers=headers, dropped=dropped)


def _words(ask: Ask, body: tree.Document) -> Sequence[Event]:
    """The words of `result`; without them it is a failure."""
    node = body.tree
    result = node.get("result") if isinstance(node, dict) else None
    if not isinstance(result, dict) or not isinstance(result.get("text"), str):
        return read_answer(body)
    return (TextDelta(result["text"]), Metered(Usage(pieces=ask.pieces)))


TRANSCRIPTION: Final = Endpoint(
    dialect="cloudflare-transcription", request=_sound, answer=_words, failure=OpenAIChat().failure
)

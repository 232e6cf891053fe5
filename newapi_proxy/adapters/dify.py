"""Dify: chat, agent, completion and workflow apps behind one format of its own.

What goes up stands in `_dify_request`, what comes down in `_dify_answer`; here are addresses, headers and the record.
Source: provider-translation B.9, tasks 4, interfaces 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _apps as apps
from newapi_proxy.adapters import _dify_answer as answers
from newapi_proxy.adapters import _dify_request as requests
from newapi_proxy.adapters._dify_answer import DifyOptions
from newapi_proxy.adapters._failures import said
from newapi_proxy.adapters.base import Adapter, Dialect, Headers, Outgoing, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media
from newapi_proxy.ir.events import Event
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

DIALECT: Final = "dify"
_PATHS: Final = {
    "chat": "/v1/chat-messages",
    "agent": "/v1/chat-messages",
    "completion": "/v1/completion-messages",
    "workflow": "/v1/workflows/run",
}


class DifyApp(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect. `options`: the channel's, which say how to read its app's answers."""

    options: DifyOptions = DifyOptions()

    @property
    def dialect(self) -> str:
        """The format's name; no client speaks it."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """The app behind the key decides the model."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Dialect."""
        apps.refuse(ask, requests.WHOSE)
        app = to.options.app
        streamed = ask.stream or app == "agent"  # agents answer in no other way
        text, files = requests.query(ask), requests.files(ask)
        body: dict[str, Any] = {"inputs": {}}
        if app in ("chat", "agent"):
            body |= {"query": text, "conversation_id": "", "auto_generate_name": False}
        else:
            body["inputs"] = {to.options.input_field: text}
        body["response_mode"] = "streaming" if streamed else "blocking"
        body["user"] = apps.user(ask, to)
        if files:
            body["files"] = files
        headers = {
            "authorization": f"Bearer {to.key.reveal()}",
            "content-type": "application/json",
            "accept": "text/event-stream" if streamed else "application/json",
        }
        return Outgoing(url=join(to.base_url, _PATHS[app]), body=body, headers=headers, dropped=apps.dropped(ask))

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """See adapters.base.Dialect."""
        return answers.whole(body, self.options, ask.controls.format is not None)

    def frames(self) -> sse.Decoder:
        """Server-sent events."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> answers.Reader:
        """A fresh reader."""
        return answers.Reader(self.options, ask.controls.format is not None)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """See adapters.base.Dialect."""
        return answers.failure_of(said(body), status, headers, body)


class DifyUploads:
    """POST /v1/files/upload; see adapters.base.Uploads."""

    def wanted(self, medium: Media) -> bool:
        """What is there as bytes only; addresses Dify fetches itself."""
        return apps.uploadable(medium)

    def request(self, medium: Media, ask: Ask, to: Target) -> Outgoing:
        """The upload, by the same user as the message that names it."""
        kind, body = apps.multipart(medium, {"user": apps.user(ask, to)})
        headers = {"authorization": f"Bearer {to.key.reveal()}", "content-type": kind, "accept": "application/json"}
        return Outgoing(url=join(to.base_url, "/v1/files/upload"), body=body, headers=headers)

    def file_id(self, body: Document) -> str | None:
        """The id under which the file is known from now on."""
        id = body.tree.get("id") if isinstance(body.tree, dict) else None
        return id if isinstance(id, str) and id else None


def _tuned(options: Any) -> tuple[Dialect, ...]:
    return (DifyApp(options=options),)


ADAPTER: Final = Adapter(
    name="dify",
    numbers=(37,),
    base_url="https://api.dify.ai",
    options=DifyOptions,
    chat=(DifyApp(),),
    uploads=DifyUploads(),
    tuned=_tuned,
)

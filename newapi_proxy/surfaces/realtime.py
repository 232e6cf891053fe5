"""The realtime surface: a handshake in, then messages that nobody translates; only errors are our own words.

Knows the forms in which a browser gives its key, and the error event. Source: relay-and-billing 1.6, 2.2;
tasks-and-accounts 10.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces._openai_fields import bad, model_in
from newapi_proxy.surfaces.base import QUERY, Face
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document

DIALECT: Final = "openai.realtime"
SPOKEN: Final = "realtime"  # the only subprotocol that is offered back
OFFERED: Final = "sec-websocket-protocol"
BETA: Final = "openai-beta"
_KEY: Final = "openai-insecure-api-key."
_HELD: Final = 1497  # bytes of an ask that is held for like 500 tokens of input (relay-and-billing 5.12)
_FIELDS: Final = 100


def offers(headers: Mapping[str, str]) -> list[str]:
    """The subprotocols that the client names, in their order."""
    return [item for item in (part.strip() for part in (headers.get(OFFERED) or "").split(",")) if item]


def key(headers: Mapping[str, str]) -> str | None:
    """The key among them, where there is one: it goes before every other place."""
    return next((item[len(_KEY) :] for item in offers(headers) if item.startswith(_KEY)), None)


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """The handshake, whose query stands under QUERY. Raises ClientError with the field at fault."""
    try:
        query = dict(parse_qsl(headers.get(QUERY, ""), max_num_fields=_FIELDS))
    except ValueError:
        raise bad("The query has too many fields.", "model") from None
    if query.get("intent") not in (None, "conversation"):
        raise bad("Only sessions of a model that answers are served here.", "intent")  # others tell no usage
    kept = {name: ",".join(found) for name, found in ((OFFERED, offers(headers)), (BETA, _beta(headers))) if found}
    return Ask(
        dialect=DIALECT,
        model=model_in(query),
        tree={},
        size=_HELD,
        stream=True,
        controls=Controls(max_tokens=0),
        headers=kept,
        kind="realtime",
        texts="",
    )


def _beta(headers: Mapping[str, str]) -> list[str]:
    value = headers.get(BETA)
    return [value.strip()] if value and value.strip() else []


def error_event(error: ProxyError, request_id: str) -> bytes:
    """The message that tells of an error inside a session."""
    node: dict[str, Any] = shapes.error_tree(error, request_id)["error"]
    return tree.encode({"type": "error", "event_id": f"evt_{request_id}", "error": node})


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """There are no whole answers."""
    return b""


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """There are no whole answers."""
    return b""


REALTIME: Final = EndpointSurface(dialect=DIALECT, read=read, answer=answer, same=same)

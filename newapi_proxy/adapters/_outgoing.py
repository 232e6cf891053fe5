"""Where an attempt goes and what is sent there: the two records that every provider's functions take and give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from newapi_proxy.secret import Secret
from newapi_proxy.wire.multipart import Upload


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where an attempt goes. `model` is the upstream's name; `base_url` has no trailing slash; `now` unix seconds."""

    channel: str
    base_url: str
    key: Secret
    model: str
    options: Any  # the adapter's own option struct
    organization: str | None = None
    now: int = 0
    usage_in_stream: bool = True  # relay.force_stream_option
    granted: str = ""  # what the adapter's `credential` has got for the key
    caller: str = ""  # a stable name for the client's key, which says nothing of it


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request to be opened by others. `body` as a tree, or a form's fields, still take the channel's overrides.

    `dropped`: dotted paths the provider could not be given, clamped ones end in "~" (header X-Dropped-Params).
    `sign`: headers that depend on the final bytes, made from URL, headers and body after all overrides.
    """

    url: str
    body: dict[str, Any] | bytes | Upload
    headers: Mapping[str, str]
    method: str = "POST"
    dropped: tuple[str, ...] = ()
    sign: Callable[[str, Mapping[str, str], bytes], Mapping[str, str]] | None = None

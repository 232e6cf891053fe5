"""What of a database configures the daemon, beside its keys: channels, options, and who made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from newapi_proxy.store import channels, options, origin, resting
from newapi_proxy.store.channels import ChannelRow
from newapi_proxy.store.origin import Origin


class Held(msgspec.Struct, frozen=True):
    """Rows as they stand; `options` by key; `resting`: channels that are disabled by us, until they work again."""

    channels: Sequence[ChannelRow] = ()
    options: Mapping[str, str] = {}
    origin: Origin = "own"
    resting: frozenset[int] = frozenset()


def held(conn: Connection) -> Held:
    """Reads them, of any age of file."""
    return Held(channels.load(conn), options.load(conn), origin.look(conn), resting.ours(conn))

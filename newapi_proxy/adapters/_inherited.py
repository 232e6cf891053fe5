"""What passes between a database row of another program and the provider that its number means. Knows no provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Inherited(msgspec.Struct, frozen=True, kw_only=True):
    """What a row of New API's or One API's `channels` says that only its provider understands.

    `number` is the row's type number there; `other` and `settings` are the columns, `config` One API's; `options` what
    holds for every channel of the type (the environment, saved options).
    """

    number: int
    one_api: bool = False
    other: str = ""
    settings: Mapping[str, Any] = {}
    config: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}


class Meant(msgspec.Struct, frozen=True, kw_only=True):
    """What an `Inherited` means in our terms. `keys` None: as they stand; `unserved`: what this version cannot do."""

    options: Mapping[str, Any]
    headers: Mapping[str, str] = {}
    keys: tuple[str, ...] | None = None
    unserved: tuple[str, ...] = ()

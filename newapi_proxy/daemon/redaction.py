"""Every secret of a configuration, told to the log so that none is ever written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from newapi_proxy import log
from newapi_proxy.config.model import Config
from newapi_proxy.secret import Secret


def hide(config: Config) -> None:
    """Registers every secret of the configuration for redaction."""
    log.secrets.register(_secrets(config))


def _secrets(value: Any) -> list[str]:
    found: list[str] = []
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, Secret):
            found.append(one.reveal())
        elif isinstance(one, msgspec.Struct):
            stack.extend(getattr(one, name) for name in one.__struct_fields__)
        elif isinstance(one, Mapping):
            stack.extend(one.values())
        elif isinstance(one, (tuple, list)):
            stack.extend(one)
    return found

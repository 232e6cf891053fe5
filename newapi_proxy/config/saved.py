"""New API's saved options in our terms: prices, groups, retries, what a type takes.

Source: relay-and-billing 6.2, table `options`. What cannot be read is told and left out, never taken for nothing: a
broken price table must not make models free. Knows rows as text, no database.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from newapi_proxy.config import addresses
from newapi_proxy.config.units import QUOTA_PER_USD
from newapi_proxy.wire import tree

Ratios = dict[str, dict[str, float]]

_MOST: Final = 99  # RetryTimes; relay.max_attempts goes to 100
_STATUSES: Final = range(100, 600)
_UNCHANGED: Final = "http://localhost:3000"  # the address that New API begins with
_NEVER: Final = (504, 524)  # New API's own exceptions (relay-and-billing 4.5)
_TABLES: Final[Mapping[str, str]] = {
    "ModelRatio": "model_ratio",
    "CompletionRatio": "completion_ratio",
    "ModelPrice": "model_price",
    "CacheRatio": "cache_ratio",
    "CreateCacheRatio": "create_cache_ratio",
    "ImageRatio": "image_ratio",
    "AudioRatio": "audio_ratio",
    "AudioCompletionRatio": "audio_completion_ratio",
}
_USABLE: Final = frozenset({"default", "vip"})  # New API's defaults where nobody saved others
_RATIOS: Final[Mapping[str, float]] = {"default": 1.0, "vip": 1.0, "svip": 1.0}


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows mean. `max_attempts`, `no_retry` and `public_url` None: not saved. `faults`: what was left out, in
    sentences.

    `usable`: groups that any user's keys may name; `autos`: those that the group `auto` stands for, in order;
    `between`: user's group → group of the key → ratio in place of that group's own. `options`: type → option defaults.
    """

    ratios: Ratios = {}
    groups: Mapping[str, float] = {}
    usable: frozenset[str] = _USABLE
    autos: tuple[str, ...] = ()
    between: Mapping[str, Mapping[str, float]] = {}
    max_attempts: int | None = None
    no_retry: tuple[int, ...] | None = None
    public_url: str | None = None
    options: Mapping[str, Mapping[str, Any]] = {}
    faults: tuple[str, ...] = ()


def saved(rows: Mapping[str, str]) -> Saved:
    """The options by key. Never raises for what a row may hold."""
    reading = _Reading(rows)
    options: dict[str, dict[str, Any]] = {}
    for key, (kind, name, read) in _OPTIONS.items():
        if (found := reading.object(key)) and (value := read(found)) is not None:
            options.setdefault(kind, {}).update({name: value} if name else value)
    for key, (kinds, name) in _SWITCHES.items():
        if (flag := reading.flag(key)) is not None:
            for kind in kinds:
                options.setdefault(kind, {})[name] = flag
    groups = reading.numbers("GroupRatio")
    usable = reading.object("UserUsableGroups")
    return Saved(
        ratios=_ratios(reading),
        groups=groups or _RATIOS,
        usable=frozenset(usable) if usable is not None else _USABLE,
        autos=reading.names("AutoGroups"),
        between=reading.tables("GroupGroupRatio"),
        max_attempts=reading.attempts(),
        no_retry=reading.statuses("AutomaticRetryStatusCodes"),
        public_url=reading.address("ServerAddress"),
        options=options,
        faults=(*reading.faults, *_unserved(rows)),
    )


def _ratios(reading: _Reading) -> Ratios:
    tables = {table: numbers for key, table in _TABLES.items() if (numbers := reading.numbers(key))}
    unit = reading.number("QuotaPerUnit")
    if unit and unit != QUOTA_PER_USD and "model_price" in tables:  # prices per call are in that many units a dollar
        tables["model_price"] = {name: price * unit / QUOTA_PER_USD for name, price in tables["model_price"].items()}
    return tables


class _Reading:
    """Reads single rows; what is wrong with one is remembered."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = rows
        self.faults: list[str] = []

    def _wrong(self, key: str, message: str) -> None:
        self.faults.append(f"the saved option {key} {message}")

    def _json(self, key: str) -> Any:
        text = self._rows.get(key, "")
        if not text:
            return None
        value = tree.lenient(text.encode("utf-8", "replace"))
        if value is None and text.strip() != "null":
            self._wrong(key, "is no JSON and is left out")
        return value

    def object(self, key: str) -> dict[str, Any] | None:
        """A JSON object, None where there is none."""
        value = self._json(key)
        if value is not None and not isinstance(value, dict):
            self._wrong(key, "is no JSON object and is left out")
            return None
        return value

    def numbers(self, key: str) -> dict[str, float]:
        """Name → number; entries that are none, or below zero, are left out."""
        return self._numbers(key, self.object(key) or {})

    def _numbers(self, key: str, values: Mapping[str, Any]) -> dict[str, float]:
        found = {name: number for name, value in values.items() if (number := _number(value)) is not None}
        if lost := sorted(set(values) - set(found)):
            self._wrong(key, f"gives no number at or above 0 for {', '.join(lost[:5])}; left out")
        return found

    def tables(self, key: str) -> dict[str, dict[str, float]]:
        """Name → name → number."""
        values = self.object(key) or {}
        return {name: self._numbers(key, value) for name, value in values.items() if isinstance(value, dict)}

    def names(self, key: str) -> tuple[str, ...]:
        """A JSON list of names."""
        value = self._json(key)
        return tuple(str(one) for one in value) if isinstance(value, list) else ()

    def number(self, key: str) -> float | None:
        """One number, None where it is not saved or is none above zero."""
        text = self._rows.get(key, "").strip()
        found = _number(text) if text else None
        if text and not found:
            self._wrong(key, "is no number above 0 and is left out")
        return found or None

    def flag(self, key: str) -> bool | None:
        """A switch, None where it is not saved."""
        text = self._rows.get(key, "").strip().lower()
        if text in ("", "true", "false"):
            return text == "true" if text else None
        self._wrong(key, "is neither true nor false and is left out")
        return None

    def address(self, key: str) -> str | None:
        """An address that can be called, None where it is not saved, or still the one that nobody has changed."""
        text = self._rows.get(key, "").strip()
        if not text or text == _UNCHANGED:
            return None
        if wrong := addresses.url(text):
            self._wrong(key, f"{wrong} and is left out")
            return None
        return text

    def attempts(self) -> int | None:
        """RetryTimes counts what comes after the first attempt."""
        text = self._rows.get("RetryTimes", "").strip()
        if not text:
            return None
        if not text.isdecimal():
            self._wrong("RetryTimes", "is no number and is left out")
            return None
        return min(int(text), _MOST) + 1

    def statuses(self, key: str) -> tuple[int, ...] | None:
        """What `100-199,401` does not name, as our list names what ends a request; 2xx never retry anyway."""
        text = self._rows.get(key, "")
        if not text.strip():
            return None
        named: set[int] = set()
        for piece in text.replace("\uff0c", ",").split(","):
            first, _, last = piece.strip().partition("-")
            if first.isdecimal() and (not last or last.isdecimal()):
                named.update(range(int(first), min(int(last or first), _STATUSES.stop) + 1))
            elif piece.strip():
                self._wrong(key, f"holds {piece.strip()!r}, which is no status; left out")
        wanted = named.difference(_NEVER)
        return tuple(one for one in _STATUSES if one not in wanted and not 200 <= one <= 299)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _versions(found: dict[str, Any]) -> dict[str, Any]:
    """`default` is every other model's version."""
    models = {name: str(version) for name, version in found.items() if name != "default"}
    return {"version_map": models} | ({"version": str(found["default"])} if found.get("default") else {})


def _strings(found: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in found.items()}


def _most_tokens(found: dict[str, Any]) -> int | None:
    """The default for every model; those of single models would need a channel each."""
    number = _number(found.get("default"))
    return int(number) if number else None


Read = Callable[[dict[str, Any]], Any]
_OPTIONS: Final[Mapping[str, tuple[str, str, Read]]] = {  # our type, its option ("" for several), how it is read
    "gemini.safety_settings": ("gemini", "safety_settings", _strings),
    "gemini.version_settings": ("gemini", "", _versions),
    "claude.default_max_tokens": ("anthropic", "default_max_tokens", _most_tokens),
}

_DRAWING: Final = ("midjourney", "midjourney-plus")
_SWITCHES: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {  # our types and their option
    "MjNotifyEnabled": (_DRAWING, "notify_hook"),
    "MjAccountFilterEnabled": (_DRAWING, "account_filter"),
    "MjModeClearEnabled": (_DRAWING, "clear_modes"),
    "MjForwardUrlEnabled": (_DRAWING, "forward_images"),
    "MjActionCheckSuccessEnabled": (_DRAWING, "check_success"),
}

_UNSERVED: Final[Mapping[str, tuple[str, str]]] = {  # switches whose meaning is not done here, where they are set so
    "LogConsumeEnabled": ("false", "has no effect: every charge has its log row"),
    "SelfUseModeEnabled": ("true", "has no effect: a model without a price is refused"),
    "ModelRequestRateLimitEnabled": ("true", "has no effect: limits stand in the file"),
    "CheckSensitiveEnabled": ("true", "has no effect: prompts are not searched for words"),
    "claude.model_headers_settings": ("", "has no effect: give the channel its headers"),
}


def _unserved(rows: Mapping[str, str]) -> Iterator[str]:
    for key, (value, message) in _UNSERVED.items():
        text = rows.get(key, "").strip()
        if (value and text.lower() == value) or (not value and text not in ("", "{}", "null")):
            yield f"the saved option {key} {message}"

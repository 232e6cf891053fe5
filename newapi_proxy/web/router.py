"""Paths to routes: a table, a few prefixes, and mercy for base URLs with /v1 once too often or not at all (demand K3).

Pure. `pattern` is what logs and metrics call the route; it never holds what a client wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Generic, TypeVar
from urllib.parse import unquote

import msgspec

T = TypeVar("T")
UNKNOWN: Final = "unknown"
LONGEST: Final = 2048  # a longer path is nobody's

_VERSIONS: Final = re.compile(r"^(?:/v1(?:beta)?)*(/v1(?:beta)?)(?=/|$)")
_OPENAI_BETA: Final = "/v1beta/openai/"


class Route(msgspec.Struct, Generic[T], frozen=True):
    """A pattern such as `/v1/models/{id}`, or with a segment before that, with what serves each method."""

    pattern: str
    actions: Mapping[str, T]


class Match(msgspec.Struct, Generic[T], frozen=True):
    """A route and what stood for the last braces in its pattern, decoded; slashes may be part of it."""

    route: Route[T]
    tail: str = ""


class Router(Generic[T]):
    """Finds routes; answers for paths seen before come from memory, bounded."""

    def __init__(self, routes: Iterable[Route[T]]) -> None:
        self._exact: dict[str, Route[T]] = {}
        self._open: list[tuple[str, str, str, Route[T]]] = []
        merged: dict[str, Route[T]] = {}
        for route in routes:
            known = merged.get(route.pattern)
            merged[route.pattern] = Route(route.pattern, {**known.actions, **route.actions}) if known else route
        for route in merged.values():
            before, brace, after = route.pattern.partition("{")
            if brace:
                between, _, rest = after.partition("}")[2].rpartition("{")
                after = rest.partition("}")[2] if between else rest
                self._open.append((before, between, after, route))
            else:
                self._exact[route.pattern] = route
        self._open.sort(key=lambda row: (len(row[0]), len(row[1]) + len(row[2])), reverse=True)
        self.find = lru_cache(maxsize=1024)(self._find)

    def _find(self, path: str) -> Match[T] | None:
        """The match of a path as it was sent, without its query, or None."""
        if len(path) > LONGEST:
            return None
        for form in _forms(path):
            route = self._exact.get(form)
            if route is not None:
                return Match(route)
            for before, between, after, route in self._open:
                tail = form[len(before) : len(form) - len(after)]
                if form.startswith(before) and form.endswith(after) and tail and (rest := _behind(tail, between)):
                    return Match(route, rest)
        return None


def _behind(tail: str, between: str) -> str:
    """What comes after one segment and `between`; "" where it does not look so, all of it where nothing is between."""
    segment, _, rest = tail.partition(between) if between else ("", "", tail)
    return "" if "/" in segment else rest


def _forms(path: str) -> Iterable[str]:
    """The path as sent, then tidied, then with the version it lacks."""
    if "%" not in path:
        yield path
    plain = re.sub(r"/{2,}", "/", unquote(path, errors="replace"))
    plain = _VERSIONS.sub(r"\1", plain.rstrip("/") or "/")
    yield plain
    if plain.startswith(_OPENAI_BETA):
        yield "/v1/" + plain[len(_OPENAI_BETA) :]
    elif not plain.startswith(("/v1/", "/v1beta/")):
        yield "/v1" + plain
        if plain.startswith("/models/"):
            yield "/v1beta" + plain


@lru_cache(maxsize=256)
def split(target: str) -> tuple[str, str]:
    """Path and query of a request target in origin or absolute form; the path is safe to print."""
    if not target.startswith("/"):
        _, scheme, rest = target.partition("://")
        if scheme:
            target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    path = path.partition("#")[0]
    if not path.isascii():
        path = path.encode("utf-8", "replace").decode()
    return path, query

"""HTTP by hand: bytes out, one answer in. For requests that no client library would send."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from tests.daemon.running import Stage


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def tree(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def id(self) -> str:
        """The request's id."""
        return self.headers["x-request-id"]


def opened(url: str) -> socket.socket:
    """A connection to the address."""
    parts = urlsplit(url)
    assert parts.port is not None
    return socket.create_connection((parts.hostname or "", parts.port), 20)


def head(method: str, path: str, **headers: str) -> bytes:
    """A request's head; `_` in a name stands for `-`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "test", **headers}.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def sent(url: str, data: bytes) -> Answer:
    """Sends the bytes on a fresh connection and reads one answer."""
    with opened(url) as link:
        try:
            link.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was read
        return received(link)


def received(link: socket.socket) -> Answer:
    """Reads one answer."""
    answer = http.client.HTTPResponse(link)
    answer.begin()
    try:
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        answer.close()


def bugs(stage: Stage) -> float:
    """The daemon's own count of exceptions that nobody expected."""
    text = sent(stage.metrics, head("GET", "/metrics", Connection="close")).body.decode()
    return float(next(line for line in text.splitlines() if line.startswith("newapi_bugs_total ")).split()[1])

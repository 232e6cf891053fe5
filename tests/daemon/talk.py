"""Talking to a daemon from a test, in plain blocking calls."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from tests.fakes.process import ROOT

ECHO = """\
database: sqlite:///newapi.db
prices: {echo: {input: 1, output: 2}, m: {input: 1, output: 1}}
channels:
  - {name: echo, type: echo, models: [echo]}
tokens:
  - {name: demo, key: sk-demo}
"""
KEY = {"Authorization": "Bearer sk-demo"}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        """Connects to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


def connection(url: str) -> http.client.HTTPConnection:
    """A connection to a daemon's address."""
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)


def ask(
    link: http.client.HTTPConnection | str, *, model: str = "echo", headers: dict[str, str] | None = None, **fields: Any
) -> tuple[int, dict[str, str], bytes]:
    """One chat request; status, headers in lower case, body."""
    one = connection(link) if isinstance(link, str) else link
    try:
        body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "hello there"}]} | fields)
        one.request("POST", "/v1/chat/completions", body, KEY | (headers or {}))
        answer = one.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        if one is not link:
            one.close()


def get(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """One GET; status and body."""
    one = connection(url)
    try:
        one.request("GET", path, headers=headers or {})
        answer = one.getresponse()
        return answer.status, answer.read()
    finally:
        one.close()


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    """Runs `serve` where it must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "newapi_proxy", "serve", "-c", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

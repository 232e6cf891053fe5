"""The daemon with a pipe that hands bytes on as they are: what its own reading and mending of a stream adds to that.

python -m tests.bench.untouched serve -c FILE
"""

from __future__ import annotations

import sys

from newapi_proxy import cli
from newapi_proxy.adapters.base import Dialect
from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.usage import Usage
from newapi_proxy.relay import pipe
from newapi_proxy.surfaces.base import Face, Surface


class Untouched:
    """See relay.pipe.Pipe. Content is whatever comes; the answer's end is the connection's."""

    def __init__(self, surface: Surface, dialect: Dialect, ask: Ask, face: Face) -> None:
        self.heard = pipe.Heard()
        self.heard.usage = Usage(prompt=48, completion=64)

    def feed(self, data: bytes) -> bytes:
        """The same bytes."""
        self.heard.committed = True
        return data

    def drain(self) -> bytes:
        """Nothing is kept."""
        return b""

    def close(self, usage: Usage) -> bytes:
        """Upstream's own end has passed."""
        return b""

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """No words for it."""
        return b""


if __name__ == "__main__":
    pipe.Verbatim = Untouched  # type: ignore[misc, assignment]
    sys.exit(cli.main())

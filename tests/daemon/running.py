"""A daemon and a provider that serve all tests of a module: a start costs more than most tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.process import Daemon, free_port
from tests.fakes.scripted import Scripted


@dataclass(frozen=True, slots=True)
class Stage:
    """The daemon, the provider that its channels call, and the address of its metrics."""

    daemon: Daemon
    upstream: Scripted
    metrics: str

    @property
    def url(self) -> str:
        """The daemon's address."""
        return self.daemon.url

    def line(self, request_id: str) -> dict[str, Any]:
        """The request line of that id, now or soon."""
        return self.daemon.wait(lambda line: line["event"] == "request" and line.get("request_id") == request_id)


@contextmanager
def staged(folder: Path, text: str) -> Iterator[Stage]:
    """Runs both. `@UPSTREAM@` in the configuration's text is the provider's address."""
    port, private = free_port(), free_port()
    with Scripted() as upstream:
        config = folder / "config.yaml"
        text = f"listen: 127.0.0.1:{port}\nmetrics: {{listen: 127.0.0.1:{private}}}\n{text}"
        config.write_text(text.replace("@UPSTREAM@", upstream.url))
        config.chmod(0o600)
        daemon = Daemon(config, f"http://127.0.0.1:{port}").start()
        try:
            yield Stage(daemon, upstream, f"http://127.0.0.1:{private}")
        finally:
            daemon.stop()

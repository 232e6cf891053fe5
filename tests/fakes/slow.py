"""An upstream that speaks OpenAI's streaming format and stops in the middle until it is told to go on."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

_CHUNK = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,'
    b'"total_tokens":7}}\n\ndata: [DONE]\n\n'
)


class SlowUpstream:
    """Serves on the loopback. `reached` is set when a request has its first content, `go` lets all of them end."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()
        self.left = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> SlowUpstream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                try:
                    self.wfile.write(_CHUNK % b"first")
                    outer.reached.set()
                    self.connection.settimeout(0.02)
                    while not outer.go.is_set():
                        try:
                            if not self.connection.recv(1):
                                outer.left.set()
                                return
                        except TimeoutError:
                            continue
                    self.connection.settimeout(5)
                    self.wfile.write(_CHUNK % b"second" + _LAST)
                except ConnectionError:
                    outer.left.set()

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler

"""The matrix's providers behind a socket: every wire format on one server, known by the request's path."""

from __future__ import annotations

import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal

from tests.fakes import matrix_wires
from tests.fakes.scripted import Say

Coding = Literal["", "gzip", "deflate"]
_WINDOWS: Final = {"gzip": 31, "deflate": 15}


class Server:
    """The running server.

    `say` is what every call gets, `coding` how its body travels; `calls` are path and body, `heads` their headers.
    """

    def __init__(self) -> None:
        self.say = Say()
        self.coding: Coding = ""
        self.calls: list[tuple[str, bytes]] = []
        self.heads: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def says(self, say: Say, coding: Coding = "") -> None:
        """What calls get from now on; forgets earlier ones."""
        self.say, self.coding = say, coding
        self.calls.clear()
        self.heads.clear()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer.calls.append((self.path, b""))
                self._give(404, "text/html", b"<html>no</html>")

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                outer.calls.append((self.path, raw))
                outer.heads.append({name.lower(): value for name, value in self.headers.items()})
                last = self.path.rpartition("/")[2]
                if "count" in last and "/messages" not in self.path:  # nobody here counts: the daemon does
                    return self._give(404, "application/json", b'{"error":{"message":"no counting here"}}')
                told = matrix_wires.answer(f"http://up.example{self.path}", raw, outer.say)
                self._give(told.status, told.kind, told.data)

            def _give(self, status: int, kind: str, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if outer.coding:
                    packer = zlib.compressobj(wbits=_WINDOWS[outer.coding])
                    data = packer.compress(data) + packer.flush()
                    self.send_header("Content-Encoding", outer.coding)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler

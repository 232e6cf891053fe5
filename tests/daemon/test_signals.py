"""Signals: reload, drain, stop now, state."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import orjson
import pytest

from tests.daemon.talk import ECHO, KEY, ask, connection, get
from tests.fakes.process import Daemon
from tests.fakes.slow import SlowUpstream

Start = Callable[..., Daemon]
SECOND = "  - {name: second, key: sk-second}\n"


def loaded(tokens: int) -> Callable[[dict[str, object]], bool]:
    """The line of a reload that gave so many tokens."""
    return lambda line: line.get("event") == "config_loaded" and line.get("tokens") == tokens


def rewrite(one: Daemon, change: Callable[[str], str]) -> None:
    """Changes the daemon's file and asks for a reload."""
    one.config.write_text(change(one.config.read_text()))
    one.signal(signal.SIGHUP)


def open_stream(url: str) -> tuple[HTTPConnection, HTTPResponse]:
    """A stream of the slow channel, read up to its first content."""
    link = connection(url)
    body = orjson.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]})
    link.request("POST", "/v1/chat/completions", body, KEY)
    answer = link.getresponse()
    assert answer.status == 200
    seen = b""
    while b"first" not in seen:
        seen += answer.read1()
    return link, answer


def with_slow(upstream: SlowUpstream, relay: str = "") -> str:
    """The echo configuration with a channel to the slow upstream."""
    channel = f"  - {{name: slow, type: openai, base_url: {upstream.url}, key: sk-upstream-1, models: [m]}}\n"
    return relay + ECHO.replace("tokens:\n", channel + "tokens:\n")


def test_reload_takes_new_keys(daemon: Start, free_port: int) -> None:
    """After SIGHUP a new key serves; the connection stays, and the metrics say that it went well."""
    one = daemon(f"metrics: {{listen: 127.0.0.1:{free_port}}}\n{ECHO}")
    link = connection(one.url)
    assert ask(link, headers={"Authorization": "Bearer sk-second"})[0] == 401
    rewrite(one, lambda text: text + SECOND)
    one.wait(loaded(2))
    assert ask(link, headers={"Authorization": "Bearer sk-second"})[0] == 200
    link.close()
    assert b"newapi_config_reload_ok 1.0" in get(f"http://127.0.0.1:{free_port}", "/metrics")[1]


def test_reload_takes_keys_away(daemon: Start) -> None:
    """A key that the file names no more is refused from the reload on."""
    one = daemon(ECHO + SECOND)
    assert ask(one.url)[0] == 200
    rewrite(one, lambda text: text.replace("  - {name: demo, key: sk-demo}\n", ""))
    one.wait(loaded(1))
    assert ask(one.url)[0] == 401


@pytest.mark.parametrize("bad", ["nonsense: 1\n", "tokens: [", "\0"])
def test_a_bad_file_changes_nothing(daemon: Start, free_port: int, bad: str) -> None:
    """A file with faults: a line for each with its place, the metric 0, and service as before."""
    one = daemon(f"metrics: {{listen: 127.0.0.1:{free_port}}}\n{ECHO}")
    rewrite(one, lambda text: text + bad)
    assert "config.yaml:" in str(one.wait("config_fault")["fault"])
    one.wait("config_kept")
    assert ask(one.url)[0] == 200
    assert b"newapi_config_reload_ok 0.0" in get(f"http://127.0.0.1:{free_port}", "/metrics")[1]


def test_a_missing_file_changes_nothing(daemon: Start) -> None:
    """The file taken away, or a folder in its place: the old configuration goes on (D16)."""
    one = daemon(ECHO)
    one.config.unlink()
    one.config.mkdir()
    one.signal(signal.SIGHUP)
    one.wait("config_kept")
    assert ask(one.url)[0] == 200


@pytest.mark.parametrize(
    ("key", "line"), [("listen", "listen: 127.0.0.1:1"), ("database", "database: sqlite:///other.db")]
)
def test_what_needs_a_restart_is_refused(daemon: Start, key: str, line: str) -> None:
    """A changed listen or database is refused in those words, and nothing else of the file is taken."""
    one = daemon(ECHO)

    def change(text: str) -> str:
        lines = [line if old.startswith(f"{key}:") else old for old in text.splitlines()]
        return "\n".join([*lines, SECOND])

    rewrite(one, change)
    told = one.wait("reload_refused")
    assert (told["key"], told["reason"]) == (key, f"`{key}` needs a restart")
    assert ask(one.url)[0] == 200
    assert ask(one.url, headers={"Authorization": "Bearer sk-second"})[0] == 401


def test_signals_coalesce(daemon: Start) -> None:
    """Many SIGHUPs in a row end in the newest file, and every request meanwhile is served."""
    one = daemon(ECHO)
    for number in range(20):
        rewrite(one, lambda text, number=number: text + f"  - {{name: t{number}, key: sk-t{number}-key}}\n")  # type: ignore[misc]
        assert ask(one.url)[0] == 200
    one.wait(loaded(21))
    assert ask(one.url, headers={"Authorization": "Bearer sk-t19-key"})[0] == 200
    assert one.stop() == 0


def test_a_request_keeps_its_snapshot(daemon: Start) -> None:
    """A stream that runs through a reload which takes its channel away ends whole."""
    with SlowUpstream() as upstream:
        one = daemon(with_slow(upstream))
        link, answer = open_stream(one.url)
        rewrite(one, lambda text: "".join(line for line in text.splitlines(True) if "name: slow" not in line))
        one.wait(lambda line: line.get("event") == "config_loaded" and line.get("channels") == 1)
        upstream.go.set()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        link.close()
        assert ask(one.url, model="m")[0] == 503


def test_drain_lets_streams_end(daemon: Start) -> None:
    """SIGTERM: no new clients, not ready, the running stream to its end, charged; exit 0."""
    with SlowUpstream() as upstream:
        one = daemon(with_slow(upstream))
        link, answer = open_stream(one.url)
        idle = connection(one.url)
        ask(idle)
        one.signal(signal.SIGTERM)
        one.wait("draining")
        with pytest.raises(ConnectionError):  # refused, or reset where the kernel had it in its queue already
            ask(one.url)
        upstream.go.set()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        link.close()
        idle.close()
        assert one.process is not None
        assert one.process.wait(10) == 0
    line = one.wait(lambda line: line.get("event") == "request" and line.get("channel") == "slow")
    assert (line["end"], line["usage"]["output"]) == ("ok", 2)
    assert one.wait("drained")["whole"] is True


def test_a_drain_ends(daemon: Start) -> None:
    """A stream that outlasts the drain is told so in its own format, and the process still ends with 0."""
    with SlowUpstream() as upstream:
        one = daemon(with_slow(upstream, "relay: {drain_timeout: 500ms}\n"))
        link, answer = open_stream(one.url)
        one.signal(signal.SIGTERM)
        rest = answer.read()
        assert b'"error"' in rest
        assert b"shutting_down" in rest
        link.close()
        assert one.process is not None
        assert one.process.wait(10) == 0


def test_a_second_signal_stops_now(daemon: Start) -> None:
    """A second SIGTERM does not wait for streams, and says so by its exit status."""
    with SlowUpstream() as upstream:
        one = daemon(with_slow(upstream))
        link, _ = open_stream(one.url)
        one.signal(signal.SIGTERM)
        one.wait("draining")
        one.signal(signal.SIGTERM)
        assert one.process is not None
        assert one.process.wait(10) == 4
        link.close()
        file = sqlite3.connect(one.config.parent / "newapi.db")
        assert file.execute("SELECT state FROM ledger").fetchall() == [("settled",)]  # charged for what was delivered
        file.close()


def test_a_client_that_leaves_closes_the_upstream(daemon: Start) -> None:
    """The upstream of a departed client is closed within a second, and the line says who left."""
    with SlowUpstream() as upstream:
        one = daemon(with_slow(upstream))
        link, answer = open_stream(one.url)
        answer.close()
        link.close()
        assert upstream.left.wait(1.0)
        assert one.wait(lambda line: line.get("channel") == "slow")["end"] == "client_gone"


def test_state_line(daemon: Start) -> None:
    """SIGUSR1 writes one line about the present."""
    with SlowUpstream() as upstream:
        one = daemon(with_slow(upstream))
        link, _ = open_stream(one.url)
        one.signal(signal.SIGUSR1)
        line = one.wait("state")
        assert (line["inflight"], line["exchanges"]) == (1, 1)
        assert set(line["channels"]) == {"echo", "slow"}
        assert "sk-upstream-1" not in str(line)
        upstream.go.set()
        link.close()


def test_reloads_under_load(daemon: Start) -> None:
    """Requests and reloads at the same time: none is dropped, none sees half a configuration."""
    one = daemon(ECHO)
    failures: list[object] = []
    stop = threading.Event()

    def load() -> None:
        link = connection(one.url)
        while not stop.is_set():
            status, _, body = ask(link, stream=bool(len(failures) % 2))
            if status != 200:
                failures.append((status, body))
        link.close()

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    original = Path(one.config).read_text()
    for number in range(10):
        one.config.write_text(["bad: [", original + SECOND, original][number % 3])
        one.signal(signal.SIGHUP)
        assert ask(one.url)[0] == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert one.stop() == 0

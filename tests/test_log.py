"""The log: what a line holds, what it must never hold, and what it costs."""

from __future__ import annotations

import ast
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from newapi_proxy import log
from tests import laws

FIELDS = [
    *("ts", "level", "event", "request_id", "method", "path", "status", "duration_ms", "ttft_ms", "client_ip", "token"),
    *("group", "model", "upstream_model", "channel", "stream", "attempts", "usage", "quota", "usd", "price_version"),
    *("end", "error"),
]
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """The lines written since the last look."""
    log.setup()
    yield lambda: [orjson.loads(line) for line in capfd.readouterr().out.splitlines()]
    log.setup()
    logging.getLogger().handlers.clear()


def finished(**changes: Any) -> log.Finished:
    fields: dict[str, Any] = {
        "request_id": "r1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "duration_ms": 12.5,
        "client_ip": "127.0.0.1",
        "token": "alice",
        "attempts": (log.Attempt("main", 0, 200, None, 11.0),),
        "usage": {"input": 3, "output": 4, "source": "upstream"},
        "quota": 7,
        "usd": "0.000014",
        "end": "ok",
    }
    return log.Finished(**(fields | changes))


def test_request_line_has_every_field(lines: Lines) -> None:
    """The request line has exactly the fields of interfaces §5, whatever is known."""
    log.request(finished())
    (line,) = lines()
    assert list(line) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    assert (line["level"], line["event"]) == ("info", "request")
    assert line["attempts"] == [{"channel": "main", "key": 0, "status": 200, "error": None, "ms": 11.0}]
    assert line["ttft_ms"] is None


def test_a_told_again_answer_is_named(lines: Lines) -> None:
    """One more field, last and only there."""
    log.request(finished(replay_of="r0"))
    (line,) = lines()
    assert (list(line), line["replay_of"]) == ([*FIELDS, "replay_of"], "r0")


def test_error_is_type_and_code(lines: Lines) -> None:
    """A refused request's line names the error's type and code."""
    log.request(finished(end="rejected", status=401, error=log.Fault("new_api_error", "invalid_api_key")))
    assert lines()[0]["error"] == {"type": "new_api_error", "code": "invalid_api_key"}


def test_secrets_are_blanked(lines: Lines) -> None:
    """A known secret value is blanked wherever free text carries it, JSON-escaped too, and in a refused request."""
    log.secrets.register(["sk-canary-1", 'pass"word\\1', "abc"])
    log.logger().warning("library", message='said sk-canary-1 and pass"word\\1', abc="abc")
    log.request(finished(path="/v1/sk-canary-1", error=log.Fault("x", None), end="rejected"))
    first, second = lines()
    assert first["message"] == "said *** and ***"
    assert first["abc"] == "abc", "a short value would blank ordinary text"
    assert second["path"] == "/v1/***"


def test_lines_of_a_long_secret_are_blanked(lines: Lines) -> None:
    """A service account's key is hidden line by line too, as an error message may quote a part of it."""
    key = "-----BEGIN PRIVATE KEY-----\\n" + "\\n".join(letter * 64 for letter in "abcd")
    log.secrets.register([f'{{"private_key": "{key}"}}'])
    log.logger().warning("library", message=f"cannot parse {'b' * 64}")
    assert lines()[0]["message"] == "cannot parse ***"


def test_bug_says_where_but_not_what(lines: Lines) -> None:
    """An unexpected exception gives its type and its place; its text may quote a prompt and stays out."""
    try:
        os.environ["THE CLIENT_S PROMPT"]
    except KeyError as error:
        log.bug(error, request_id="r1")
    (line,) = lines()
    assert (line["event"], line["exception"], line["request_id"]) == ("bug", "KeyError", "r1")
    assert "test_log.py" in line["trace"][0]
    assert "prompt" not in str(line).lower()


def test_library_records_join(lines: Lines) -> None:
    """Records of libraries are lines like the others; their exceptions without text."""
    try:
        raise ValueError("the client's prompt")
    except ValueError:
        logging.getLogger("library.of.others").exception("failed with %s", "x")
    (line,) = lines()
    assert (line["event"], line["source"], line["message"]) == ("library", "library.of.others", "failed with x")
    assert line["exception"] == "ValueError"
    assert "prompt" not in str(line).lower()


@pytest.mark.parametrize("value", ["\ud800", object(), {1: 2}, b"x", float("nan")])
def test_any_field_makes_a_line(lines: Lines, value: object) -> None:
    """Whatever a field holds, a line of JSON comes out."""
    log.logger().error("library", value=value)
    assert lines()[0]["event"] == "library"


def test_level_and_console(lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines below the level are not written; the console format is for people."""
    log.setup("warning")
    log.logger().info("library")
    log.request(finished())
    assert lines() == []
    log.setup("info", "console")
    log.request(finished())
    out = capfd.readouterr().out
    assert "request" in out
    assert "path=/v1/chat/completions" in out
    assert not out.startswith("{")


def test_a_lost_reader_costs_only_lines(lines: Lines) -> None:
    """When stdout cannot be written, lines are counted as lost and nothing is raised."""
    before, kept = log.lost(), os.dup(1)
    try:
        os.close(1)
        log.request(finished())
        log.logger().error("library")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert log.lost() == before + 2


def test_events_are_listed() -> None:
    """Every event that the package logs stands in the list."""
    unknown = []
    for module in laws.modules():
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            owner = ast.unparse(node.func.value)
            if owner.endswith("logger()") and node.func.attr in ("debug", "info", "warning", "error"):
                name = node.args[0]
                if not (isinstance(name, ast.Constant) and name.value in log.EVENTS):
                    unknown.append(f"{module.where}:{node.lineno}: {ast.unparse(name)}")
    assert not unknown

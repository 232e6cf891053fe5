"""Clients that go away or stop reading: the provider is let go at once, the charge follows the policy table."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from newapi_proxy.billing import count
from tests.daemon.bare import bugs, head, opened, received, sent
from tests.daemon.running import Stage
from tests.fakes.scripted import Say, reset

CONFIG = """\
database: sqlite:///newapi.db
relay: {max_attempts: 3}
prices: {gpt-4o: {input: 2, output: 4}, claude-x: {input: 2, output: 4}}
channels:
  - {name: o, type: openai, base_url: "@UPSTREAM@", key: k, models: [gpt-4o], auto_disable: false}
  - {name: a, type: anthropic, base_url: "@UPSTREAM@", key: k, models: [claude-x], auto_disable: false}
tokens:
  - {name: demo, key: sk-demo}
"""
CHAT, MESSAGES, COUNT = "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"
PROMPT = "What do you have to say today?"
LONG = "One two three four five six seven eight nine ten."
MANY_BYTES = 24 * 1024 * 1024  # every buffer of the kernel between the two ends, at its largest


@dataclass(frozen=True, slots=True)
class Case:
    """A way to ask, how the provider behaves until the client leaves, and what is charged."""

    path: str
    model: str
    stream: bool
    say: Say
    source: str


CASES = {
    "openai stream": Case(CHAT, "gpt-4o", True, Say(text=LONG, end="hold"), "counted"),
    "openai stream, unlike provider": Case(CHAT, "claude-x", True, Say(text=LONG, end="hold", prompt=40), "mixed"),
    "anthropic stream": Case(MESSAGES, "claude-x", True, Say(text=LONG, end="hold", prompt=40), "mixed"),
    "anthropic stream, unlike provider": Case(MESSAGES, "gpt-4o", True, Say(text=LONG, end="hold"), "counted"),
    "stream before its head": Case(CHAT, "gpt-4o", True, Say(held=True), "none"),
    "stream before content": Case(CHAT, "gpt-4o", True, Say(text="", end="hold"), "none"),
    "whole": Case(CHAT, "gpt-4o", False, Say(held=True), "none"),
    "whole, unlike provider": Case(MESSAGES, "gpt-4o", False, Say(held=True), "none"),
    "counting": Case(COUNT, "claude-x", False, Say(held=True), "none"),
}


def asked(stage: Stage, case: Case, id: str) -> socket.socket:
    """Sends the request, and waits until the provider has it and the client whatever comes before the departure."""
    stage.upstream.says(case.say)
    fields: dict[str, Any] = {"model": case.model, "messages": [{"role": "user", "content": PROMPT}]}
    if case.path == MESSAGES:
        fields["max_tokens"] = 64
    body = orjson.dumps({**fields, "stream": case.stream} if case.stream else fields)
    link = opened(stage.url)
    named = {"Authorization": "Bearer sk-demo", "Content_Length": str(len(body)), "X_Request_Id": id}
    link.sendall(head("POST", case.path, **named) + body)
    stage.upstream.wait()
    if case.source != "none":
        seen = b""
        while b"ten." not in seen:
            seen += link.recv(65536)
    return link


def fin(link: socket.socket) -> None:
    """Closes in order: nothing unread is left that would make it a reset."""
    link.setblocking(False)
    try:
        while link.recv(65536):
            continue
    except BlockingIOError:
        pass
    link.close()


@pytest.mark.parametrize("leave", [fin, reset])
@pytest.mark.parametrize("name", CASES)
def test_departure(stage: Stage, name: str, leave: Callable[[socket.socket], None]) -> None:
    """The provider's connection is closed within a second, no other is tried, the policy table says what it costs."""
    case, id = CASES[name], f"{name.replace(' ', '-').replace(',', '')}-{leave.__name__}"
    link = asked(stage, case, id)
    began = time.monotonic()
    leave(link)
    call = stage.upstream.last
    assert call.left.wait(5.0)
    assert call.left_at - began < 1.0
    line = stage.line(id)
    assert (line["end"], line["status"]) == ("client_gone", 200 if case.source != "none" else 499)
    assert len(stage.upstream.calls) == 1
    assert len(line["attempts"]) == 1 or case.path == COUNT
    usage = line["usage"]
    assert usage["source"] == case.source
    if case.source == "none":
        assert (line["quota"], usage["input"], usage["output"]) == (0, 0, 0)
        return
    assert usage["output"] == count.text(LONG, case.model)
    assert usage["input"] == 40 if case.source == "mixed" else 5 < usage["input"] < 20
    assert line["quota"] == usage["input"] + 2 * usage["output"]
    assert bugs(stage) == 0


def test_a_departure_costs_the_channel_nothing(stage: Stage) -> None:
    """Many departures in a row are no failure of the channel: the next request is served by it."""
    case = CASES["stream before content"]
    for number in range(12):
        fin(asked(stage, case, f"row-{number}"))
        assert stage.upstream.last.left.wait(5.0)
    stage.upstream.says(Say(text="still here"))
    body = orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]})
    answer = sent(stage.url, head("POST", CHAT, Authorization="Bearer sk-demo", Content_Length=str(len(body))) + body)
    assert (answer.status, b"still here" in answer.body) == (200, True)


def test_an_answer_in_time_is_charged(stage: Stage) -> None:
    """A client that closes after the last byte was charged before it got it: it is no departure."""
    stage.upstream.says(Say(prompt=12, completion=4))
    body = orjson.dumps({"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "x"}]})
    named = {"Authorization": "Bearer sk-demo", "Content_Length": str(len(body)), "X_Request_Id": "in-time"}
    with opened(stage.url) as link:
        link.sendall(head("POST", CHAT, **named) + body)
        assert received(link).body.endswith(b"data: [DONE]\n\n")
    line = stage.line("in-time")
    assert (line["end"], line["usage"]["source"], line["quota"]) == ("ok", "upstream", 20)


def memory(pid: int) -> int:
    """Bytes that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.parametrize("model", ["gpt-4o"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_slow_reader_slows_the_provider(stage: Stage, path: str, model: str) -> None:
    """A client that reads nothing makes the daemon read nothing; when it reads again all goes on; memory stays."""
    before = memory(stage.daemon.pid)
    case = Case(path, model, True, Say(text=LONG, end="flood"), "counted")
    link = asked(stage, case, f"slow-{path[4:8]}")
    call = stage.upstream.last
    assert call.stuck.wait(20.0)
    taken = call.taken
    assert taken < MANY_BYTES
    assert memory(stage.daemon.pid) - before < 16 * 1024 * 1024
    read = 0
    while read < taken:
        read += len(link.recv(1 << 20))
    while call.taken <= taken:
        assert link.recv(1 << 20)
    reset(link)
    began = time.monotonic()
    assert call.left.wait(5.0)
    assert call.left_at - began < 1.0
    line = stage.line(f"slow-{path[4:8]}")
    assert (line["end"], line["usage"]["source"]) == ("client_gone", "counted")
    assert bugs(stage) == 0

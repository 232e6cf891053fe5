"""Whatever is sent, the answer is the documented refusal in the caller's dialect, with one log line and no charge."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.daemon.bare import Answer, bugs, head, opened, received, sent
from tests.daemon.running import Stage

LIMIT = 3 * 1024 * 1024
CONFIG = f"""\
database: sqlite:///newapi.db
relay: {{max_attempts: 1, max_body: {LIMIT}}}
prices: {{echo: {{input: 1, output: 2}}}}
channels:
  - {{name: echo, type: echo, models: [echo, hidden, unpriced]}}
tokens:
  - {{name: demo, key: sk-demo, models: [echo, nobody, unpriced, M*]}}
  - {{name: old, key: sk-old, expires: 2020-01-01}}
  - {{name: off, key: sk-off, enabled: false}}
  - {{name: far, key: sk-far, allow_ips: [10.0.0.0/8]}}
  - {{name: poor, key: sk-poor, quota: 0}}
"""
HELLO = [{"role": "user", "content": "hello"}]
BOMB = gzip.compress(b" " * 60_000_000)
INTERNALS = (b"Traceback", b"newapi_proxy", b".py", b"orjson", b"aiohttp", b"0x", b"sqlite")


@dataclass(frozen=True, slots=True)
class Surface:
    """A dialect: its path, a good body, and the type that an error of a status has there."""

    name: str
    path: str
    base: dict[str, Any]
    types: dict[int, str] = field(default_factory=dict)

    def bytes(self, **fields: Any) -> bytes:
        """A body with these fields changed; `...` takes one away."""
        body = {name: value for name, value in {**self.base, **fields}.items() if value is not ...}
        return orjson.dumps(body)

    def request(self, body: bytes, **headers: str) -> bytes:
        """A request with this body; headers as given, on top of what every client sends."""
        key = {} if {"Authorization", "x_api_key"} & headers.keys() else {"Authorization": "Bearer sk-demo"}
        plain = {"Content_Type": "application/json", "Content_Length": str(len(body)), **key, **headers}
        return head("POST", self.path, **plain) + body


OPENAI = Surface("openai", "/v1/chat/completions", {"model": "echo", "messages": HELLO})
ANTHROPIC = Surface(
    "anthropic",
    "/v1/messages",
    {"model": "echo", "messages": HELLO, "max_tokens": 50},
    {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 413: "request_too_large",
     405: "invalid_request_error", 415: "invalid_request_error", 417: "invalid_request_error", 503: "api_error"},
)  # fmt: skip
SURFACES = (OPENAI, ANTHROPIC)
Make = Callable[[Surface], bytes]


@dataclass(frozen=True, slots=True)
class Case:
    """One broken request: the bytes for a surface, and the documented answer."""

    name: str
    make: Make
    status: int = 400
    code: str = "invalid_text_request"


def body(name: str, data: bytes | str, code: str = "invalid_json", status: int = 400) -> Case:
    """A body that is the same for every surface."""
    raw = data.encode() if isinstance(data, str) else data
    return Case(name, lambda surface: surface.request(raw), status, code)


def inside(name: str, pattern: str, code: str = "invalid_json") -> Case:
    """A body whose `user` text, quotes included, is replaced by raw JSON."""
    return Case(
        name,
        lambda on: on.request(on.bytes(odd="@").replace(b'"@"', pattern.encode("utf-8", "surrogatepass"))),
        400,
        code,
    )


def fields(**named: Any) -> Case:
    """Fields of a wrong type or value, told by name."""
    name = ",".join(f"{key}={str(value)[:60]}" for key, value in named.items())
    return Case(name, lambda surface: surface.request(surface.bytes(**named)))


def headed(name: str, status: int, code: str, **headers: str) -> Case:
    """A good body under odd headers."""
    return Case(name, lambda surface: surface.request(surface.bytes(), **headers), status, code)


def keyed(name: str, key: str, status: int, code: str) -> Case:
    """A good request with another key."""
    return headed(name, status, code, Authorization=f"Bearer {key}")


def chunked(name: str, data: bytes, status: int = 400, code: str = "invalid_body") -> Case:
    """A chunked body, as it stands on the wire."""

    def make(on: Surface) -> bytes:
        return head("POST", on.path, Authorization="Bearer sk-demo", Transfer_Encoding="chunked") + data

    return Case(name, make, status, code)


def zipped(name: str, data: Make, status: int, code: str) -> Case:
    """A gzipped body."""
    return Case(name, lambda on: on.request(data(on), Content_Encoding="gzip"), status, code)


COMMON = [
    body("empty body", b""),
    body("blank body", b" \r\n "),
    body("list", "[1]"),
    body("text", '"hello"'),
    body("number", "5"),
    body("null", "null"),
    body("open end", '{"model": "echo", '),
    body("two documents", "{}{}"),
    body("trailing comma", '{"model": "echo",}'),
    body("single quotes", "{'model': 'echo'}"),
    body("comment", '{/* */"model": "echo"}'),
    body("form", "model=echo&messages=hello"),
    body("utf-16", '{"model": "echo"}'.encode("utf-16")),
    body("byte order mark", b'\xef\xbb\xbf{"model": "echo"}'),
    body("invalid utf-8", b'{"model": "\xff\xfe"}'),
    body("overlong utf-8", b'{"model": "\xc0\xaf"}'),
    body("binary", bytes(range(256))),
    body("only openers", "[" * 100_000),
    body("only object openers", '{"a":' * 100_000),
    inside("nested too deep", "[" * 201 + "]" * 201),
    inside("nested far too deep", "[" * 50_000 + "]" * 50_000),
    inside("NaN", "NaN"),
    inside("Infinity", "-Infinity"),
    inside("lone surrogate", '"\\ud800"'),
    inside("raw surrogate", '"\ud800"'),
    inside("control character", '"\x00"'),
    inside("hexadecimal", "0x10"),
    inside("leading zero", "012"),
    fields(model=...),
    fields(model=""),
    fields(model=None),
    fields(model=5),
    fields(model=["echo"]),
    fields(model={"id": "echo"}),
    fields(messages=...),
    fields(messages=[]),
    fields(messages="hello"),
    fields(messages={"role": "user"}),
    fields(messages=[5]),
    fields(messages=[None]),
    fields(messages=[[]]),
    fields(messages=[{"content": "x"}]),
    fields(messages=[{"role": "alien", "content": "x"}]),
    fields(messages=[{"role": 5, "content": "x"}]),
    fields(messages=[{"role": ["user"], "content": "x"}]),
    fields(messages=[{"role": "user", "content": 5}]),
    fields(messages=[{"role": "user", "content": [5]}]),
    fields(messages=[{"role": "user", "content": {"type": "text"}}]),
    fields(messages=[{"role": "user", "content": [{"type": "text"}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}]),
    fields(messages=[{"role": "user", "content": [{"type": 5}]}]),
    fields(stream="yes"),
    fields(stream=1),
    fields(max_tokens=-1),
    fields(max_tokens=2**31),
    fields(max_tokens=2**63),
    fields(max_tokens=1.5),
    fields(max_tokens="50"),
    fields(max_tokens=True),
    fields(max_tokens=[]),
    fields(temperature="hot"),
    fields(temperature=True),
    fields(top_p={}),
    fields(top_k="many"),
    fields(tools="weather"),
    fields(tools=[5]),
    fields(tools=[{"name": 5}]),
    fields(tools=[{}]),
    fields(tool_choice="perhaps"),
    fields(tool_choice=5),
    fields(service_tier=5),
    fields(model="unpriced", max_tokens=-1),
    inside("1e400", "1e400"),
    Case("10**40 tokens", lambda on: on.request(on.bytes(max_tokens="@").replace(b'"@"', b"1" + b"0" * 40))),
    Case("unpriced", lambda on: on.request(on.bytes(model="unpriced")), 400, "model_price_missing"),
    Case("unknown model", lambda on: on.request(on.bytes(model="nobody")), 503, "model_not_found"),
    fields(model="M" * 2**20),
    fields(model="M" * 513),
    Case("longest model", lambda on: on.request(on.bytes(model="M" * 512)), 503, "model_not_found"),
    Case("forbidden model", lambda on: on.request(on.bytes(model="hidden")), 403, "access_denied"),
    Case("odd model", lambda on: on.request(on.bytes(model="M\n\x00\u2028\U0001f600")), 503, "model_not_found"),
    keyed("unknown key", "sk-nobody", 401, "invalid_api_key"),
    keyed("no key", "", 401, "invalid_api_key"),
    keyed("long key", "sk-" + "x" * 8000, 401, "invalid_api_key"),
    keyed("expired key", "sk-old", 401, "invalid_api_key"),
    keyed("disabled key", "sk-off", 401, "invalid_api_key"),
    keyed("drained key", "sk-poor", 403, "pre_consume_token_quota_failed"),
    keyed("wrong address", "sk-far", 403, "access_denied"),
    headed("odd coding", 415, "unsupported_content_encoding", Content_Encoding="br"),
    headed("two codings", 415, "unsupported_content_encoding", Content_Encoding="gzip, gzip"),
    headed("not gzipped", 400, "invalid_body", Content_Encoding="gzip"),
    headed("odd expectation", 417, "expectation_failed", Expect="200-ok"),
    zipped("gzip cut", lambda on: gzip.compress(on.bytes())[:-9], 400, "invalid_body"),
    zipped("gzip twice", lambda on: gzip.compress(on.bytes()) * 2, 400, "invalid_body"),
    zipped("gzip bomb", lambda on: BOMB, 413, "request_too_large"),
    chunked("too many chunks", b"100000\r\n%b\r\n" % (b" " * 0x100000) * 4 + b"0\r\n\r\n", 413, "request_too_large"),
]  # fmt: skip
OPENAIS = [
    fields(n=0), fields(n=129), fields(n=-1), fields(n="1"), fields(n=1.5),
    fields(stream_options={"include_usage": True}), fields(stream=True, stream_options=5),
    fields(stream=True, stream_options={"include_usage": "yes"}),
    fields(messages=[{"role": "tool", "content": "x"}]),
    fields(messages=[{"role": "tool", "tool_call_id": 5, "content": "x"}]),
    fields(messages=[{"role": "function", "content": "x"}]),
    fields(messages=[{"role": "assistant", "tool_calls": "x"}]),
    fields(messages=[{"role": "assistant", "tool_calls": [5]}]),
    fields(messages=[{"role": "assistant", "tool_calls": [{"id": 5, "function": {"name": "a", "arguments": ""}}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:nothing"}}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": "x"}]}]),
    fields(messages=[{"role": "user", "content": "x", "name": 5}]),
    fields(tools=[{"type": "function"}]),
    fields(tools=[{"type": "function", "function": {"name": "a", "parameters": "x"}}]),
    fields(tools=[{"type": "function", "function": {"name": "a", "strict": "x"}}]),
    fields(tool_choice={"type": "function"}), fields(functions="x"), fields(functions=[{"name": 5}]),
    fields(response_format="json"), fields(response_format={"type": "json_schema"}),
    fields(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": 5}}),
    fields(stop=5), fields(stop=[5]), fields(seed="x"), fields(user=5), fields(metadata="x"), fields(logit_bias=[1]),
    fields(parallel_tool_calls="x"), fields(frequency_penalty="x"), fields(reasoning_effort=5),
    fields(max_completion_tokens=-1), fields(prediction="x"), fields(store="x"), fields(verbosity=5),
]  # fmt: skip
ANTHROPICS = [
    fields(max_tokens=...), fields(max_tokens=None), fields(system=5), fields(system=[5]),
    fields(system={"type": "text", "text": "x"}), fields(stop_sequences="x"), fields(stop_sequences=[5]),
    fields(messages=[{"role": "user"}]), fields(messages=[{"role": "user", "content": None}]),
    fields(messages=[{"role": "user", "content": [{}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "image"}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "disk"}}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": 5}}]}]),
    fields(messages=[{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": "x"}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [5]}]}]),
    fields(messages=[{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": 5}]}]),
    fields(messages=[{"role": "assistant", "content": [{"type": "thinking"}]}]),
    fields(tools=[{"name": "a"}]), fields(tools=[{"name": "a", "input_schema": "x"}]),
    fields(tool_choice={"type": "perhaps"}), fields(tool_choice={"type": "tool"}), fields(metadata="x"),
    fields(metadata={"user_id": 5}), fields(thinking="x"), fields(thinking={"type": "perhaps"}),
    fields(thinking={"type": "enabled", "budget_tokens": "x"}), fields(output_config="x"), fields(mcp_servers=[5]),
]  # fmt: skip
CASES = [(on, case) for on in SURFACES for case in (*COMMON, *(OPENAIS if on is OPENAI else ANTHROPICS))]


def good(stage: Stage) -> None:
    """The daemon serves, on a fresh connection."""
    assert sent(stage.url, OPENAI.request(OPENAI.bytes())).status == 200


@pytest.fixture(scope="module", autouse=True)
def whole(stage: Stage) -> Iterator[None]:
    """In the end: nothing unexpected, one line a request, and only the good ones were charged."""
    yield
    assert bugs(stage) == 0
    lines = [line for line in stage.daemon.lines if line["event"] == "request"]
    ids = [line["request_id"] for line in lines]
    assert len(ids) == len(set(ids))
    served = {line["request_id"]: line["quota"] for line in lines if line["status"] == 200}
    assert not [line for line in lines if line["quota"] and line["request_id"] not in served]
    with sqlite3.connect(stage.daemon.config.parent / "newapi.db") as base:
        assert dict(base.execute("SELECT request_id, quota FROM logs WHERE type = 2")) == served
    base.close()
    assert "Traceback" not in stage.daemon.errors


def refused(stage: Stage, on: Surface, answer: Answer, status: int, code: str) -> None:
    """The answer is that refusal in the surface's dialect, and has its line."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json"), answer.body
    assert not [word for word in INTERNALS if word in answer.body]
    tree = answer.tree
    error = tree["error"]
    assert error["message"].endswith(f"(request id: {answer.id})")
    if on is OPENAI:
        assert (set(tree), set(error)) == ({"error"}, {"message", "type", "param", "code"})
        assert error["code"] == code
    else:
        assert (tree["type"], tree["request_id"]) == ("error", answer.id)
        assert (set(error), error["type"]) == ({"type", "message"}, on.types[status])
    line = stage.line(answer.id)
    assert (line["status"], line["end"], line["error"]["code"]) == (status, "rejected", code)
    assert (line["quota"], line["attempts"], line["path"]) == (0, [], on.path)


@pytest.mark.parametrize(("on", "case"), CASES, ids=[f"{on.name}-{case.name}" for on, case in CASES])
def test_refused(stage: Stage, on: Surface, case: Case) -> None:
    """Each broken request gets its documented refusal, and the next one is served."""
    refused(stage, on, sent(stage.url, case.make(on)), case.status, case.code)
    good(stage)


GARBAGE = {
    "no HTTP": b"GARBAGE\r\n\r\n",
    "a later HTTP": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    "length and chunks": head("POST", OPENAI.path, Content_Length="2", Transfer_Encoding="chunked") + b"0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "negative length": head("POST", OPENAI.path, Content_Length="-2") + b"{}",
    "length of words": head("POST", OPENAI.path, Content_Length="two") + b"{}",
    "header without colon": b"POST / HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n",
    "blank before colon": b"POST / HTTP/1.1\r\nHost : a\r\n\r\n",
    "NUL in a header": b"POST / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "blank in a method": b"PO ST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "folded header": b"POST / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "long header": head("POST", OPENAI.path, X="x" * 20_000),
    "long target": head("POST", "/" + "x" * 20_000),
    "many headers": head("POST", OPENAI.path, **{f"X{number}": "x" for number in range(200)}),
    "chunk of no size": head("POST", OPENAI.path, Transfer_Encoding="chunked") + b"zz\r\nhello\r\n0\r\n\r\n",
    "negative chunk": head("POST", OPENAI.path, Transfer_Encoding="chunked") + b"-5\r\nhello\r\n0\r\n\r\n",
    "unknown framing": head("POST", OPENAI.path, Transfer_Encoding="gzip") + b"{}",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage(stage: Stage, data: bytes) -> None:
    """What is no HTTP request is a 400 that ends the connection; nothing of it is in the answer."""
    with opened(stage.url) as link:
        link.sendall(data)
        answer = received(link)
        assert link.recv(1) == b""
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.tree["error"]["code"] == "invalid_http"
    assert not [word for word in INTERNALS if word in answer.body]
    line = stage.line(answer.id)
    assert (line["end"], line["error"]["code"]) == ("rejected", "invalid_http")
    good(stage)


@pytest.mark.parametrize("on", SURFACES, ids=["openai", "anthropic"])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"2\r\nhello\r\n", b"-5\r\n"])
def test_chunks_that_go_wrong_later(stage: Stage, on: Surface, rest: bytes) -> None:
    """A body that turns out to be no body after its head was taken is refused in the surface's dialect."""
    with opened(stage.url) as link:
        named = {"Authorization": "Bearer sk-demo", "Transfer_Encoding": "chunked", "Expect": "100-continue"}
        link.sendall(head("POST", on.path, **named))
        assert link.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.sendall(rest)
        refused(stage, on, received(link), 400, "invalid_body")
    good(stage)


@pytest.mark.parametrize("on", SURFACES, ids=["openai", "anthropic"])
def test_a_large_body_is_refused_before_it_comes(stage: Stage, on: Surface) -> None:
    """The announced length is enough; so is a chunked body that has passed the limit."""
    key = {"Authorization": "Bearer sk-demo"}
    with opened(stage.url) as link:
        link.sendall(head("POST", on.path, Content_Length=str(LIMIT + 1), **key) + b"{")
        refused(stage, on, received(link), 413, "request_too_large")
    with opened(stage.url) as link:
        link.sendall(head("POST", on.path, Content_Length=str(10**30), **key) + b"{")
        assert received(link).status in (400, 413)
    good(stage)


@pytest.mark.parametrize("on", SURFACES, ids=["openai", "anthropic"])
def test_odd_but_accepted(stage: Stage, on: Surface) -> None:
    """What clients get away with: content types, a slash, a version once too often or not at all, doubled members."""
    key = {"Authorization": "Bearer sk-demo"}
    plain = on.bytes()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-8"):
        assert sent(stage.url, on.request(plain, Content_Type=kind)).status == 200
    for path in (f"{on.path}/", f"/v1{on.path}", on.path.removeprefix("/v1"), f"/{on.path}", f"{on.path}?beta=true"):
        answer = sent(stage.url, head("POST", path, Content_Length=str(len(plain)), **key) + plain)
        assert answer.status == 200, path
    zipped = gzip.compress(plain)
    assert sent(stage.url, on.request(zipped, Content_Encoding="gzip")).status == 200
    doubled = b'{"model": "nobody",' + plain[1:]
    assert sent(stage.url, on.request(doubled)).status == 200
    many = on.bytes(**{f"k{number}": number for number in range(10_000)})
    assert sent(stage.url, on.request(many)).status == 200


def test_names_of_fields_do_not_break_out(stage: Stage) -> None:
    """The header that names dropped fields stays one line of bounded length, whatever the names are."""
    names = ["a\r\nX-Evil: 1", "é,b", "\U0001f600", "x" * 70_000]
    for more in (dict.fromkeys(names, 1), {f"k{number}": 1 for number in range(10_000)}):
        answer = sent(stage.url, ANTHROPIC.request(ANTHROPIC.bytes(**more)))
        assert answer.status == 200
        assert "x-evil" not in answer.headers
        assert 0 < len(answer.headers["x-dropped-params"]) <= 4096


def test_no_such_place(stage: Stage) -> None:
    """Unknown paths are 404 in One API's words; a wrong method is 405 with the right ones."""
    for path in ("/", "/v1", "/v1/nothing", "/../etc/passwd", "/%00", "/v1/chat/completions/x"):
        answer = sent(stage.url, head("POST", path, Content_Length="0"))
        assert (answer.status, answer.tree["error"]["type"]) == (404, "invalid_request_error"), path
        assert stage.line(answer.id)["error"]["code"] == "unknown_path"
    for on in SURFACES:
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            answer = sent(stage.url, head(method, on.path))
            assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
            refused(stage, on, answer, 405, "method_not_allowed")
    good(stage)


def test_a_client_that_leaves_while_sending(stage: Stage) -> None:
    """Half a body and gone: a line, no answer, no bug."""
    for on in SURFACES:
        id = f"half-{on.name}"
        with opened(stage.url) as link:
            named = {"Authorization": "Bearer sk-demo", "Content_Length": "1000", "Expect": "100-continue"}
            link.sendall(head("POST", on.path, X_Request_Id=id, **named))
            assert link.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            link.sendall(b"{")
        assert stage.line(id)["end"] == "client_gone"
    good(stage)

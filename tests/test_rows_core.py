"""The rows that hold for every provider, each in every format that clients speak, through the exchange.

Each format has a provider of its own family, whose bytes are passed on, and one of another, whose answer is translated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import pytest

from newapi_proxy import log
from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.config.model import Channel, Fetch
from newapi_proxy.errors import ClientError, UpstreamFailure
from newapi_proxy.ports import Fetched
from newapi_proxy.secret import Secret
from tests.fakes import inbound, matrix, matrix_grammar, matrix_wires
from tests.fakes.inbound import FUNCTION, Call, Picture, Result, across
from tests.fakes.matrix import Cell, Client, Theatre, script
from tests.fakes.matrix_wires import Asked
from tests.fakes.ports import HANG, Script
from tests.fakes.scripted import Say, data_frame

EMOJI: Final = "Grüße, 世界 🌍!"
UP: Final = "https://up.example"
OWN: Final = {"OC": "chat", "OR": "chat", "AM": "claude", "GG": "gemini"}
OTHER: Final = {"OC": "claude", "OR": "claude", "AM": "chat", "GG": "chat"}
BOTH: Final = pytest.mark.parametrize("family", ["own", "other"])
STREAM: Final = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TYPES: Final = {"chat": "openai", "claude": "anthropic", "gemini": "gemini", "compatible": "together"}
UPSTREAM: Final = {"chat": "gpt-4o", "claude": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}


def channel(name: str, kind: str, model: str, **more: Any) -> Channel:
    """A channel that serves one model under the client's name for it."""
    return Channel(
        name=name,
        type=TYPES.get(kind, kind),
        base_url=f"{UP}/{name}",
        key=Secret("k"),
        models=(model,),
        model_mapping={model: UPSTREAM.get(kind, "model-1")},
        auto_disable=False,
        **more,
    )


class Pictures:
    """The fetcher at the port: what an address gives, or why it is refused."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def fetch(self, url: str, path: str, limits: Fetch) -> Fetched:
        """See ports.Fetcher."""
        self.asked.append(url)
        if url.endswith("a.png"):
            return Fetched(media_type="image/png", data=b"\x89PNG\r\n\x1a\n")
        raise ClientError("The address is not public.", code="invalid_image_url", param=path)


def kinds() -> list[str]:
    """The providers that are registered."""
    return [kind for kind, name in TYPES.items() if name in ADAPTERS]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """A channel of each kind, two of each for failing over, a strict one of each, one that needs bytes."""
    channels = [channel(kind, kind, kind) for kind in kinds()]
    channels += [channel(f"{kind}-{n}", kind, f"two-{kind}", priority=-n) for kind in kinds() for n in (1, 2)]
    channels += [channel(f"{kind}-strict", kind, f"strict-{kind}", options={"strict_params": True}) for kind in kinds()]
    channels.append(channel("bytes", "bedrock", "bytes", options={"region": "us-east-1"}))
    made = Theatre(tmp_path_factory.mktemp("core"), tuple(channels), fetcher=Pictures(), max_attempts=3)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _logging(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The log writes where these tests look."""
    log.setup("info", "json")


def kind_of(letter: str, family: str) -> str:
    """The provider of the format's own family, or of another."""
    return (OWN if family == "own" else OTHER)[letter]


def editing(client: Client, say: Say, change: Callable[[bytes], bytes], **named: Any) -> None:
    """Upstreams say this, their bytes changed."""

    def answer(outgoing: Outgoing) -> Script:
        told = matrix_wires.answer(outgoing.url, matrix.raw(outgoing), say)
        return script(change(told.data), status=told.status, kind=told.kind, **named)

    client.answer = answer


def grown(tree: Any, change: Callable[[Any], Any]) -> bytes:
    """JSON bytes changed as a tree."""
    return orjson.dumps(change(orjson.loads(tree)))


def frames_changed(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """An event stream whose JSON events are changed; None takes one out."""
    out = b""
    for block in data.split(b"\n\n")[:-1]:
        head, mark, body = block.rpartition(b"data: ")
        if body == b"[DONE]":
            out += block + b"\n\n"
            continue
        tree = change(orjson.loads(body))
        out += b"" if tree is None else head + mark + orjson.dumps(tree) + b"\n\n"
    return out


# What goes up.

STRANGE: Final = {"strange": {"a": [1, {"b": None}]}}


@across("OC", "OR", "AM", "GG")
def test_unknown_field_within_the_family(theatre: Theatre, letter: str) -> None:
    """T-CORE-001: it arrives as it is, and nothing is said about it."""
    theatre.client.says(Say())
    cell = theatre.play(letter, OWN[letter], steering=STRANGE)
    assert cell.upstream["strange"] == STRANGE["strange"]
    assert "x-dropped-params" not in cell.headers


@across("OC", "OR", "AM", "GG")
def test_unknown_field_across_families(theatre: Theatre, letter: str) -> None:
    """T-CORE-002: it stays away and is named."""
    theatre.client.says(Say())
    cell = theatre.play(letter, OTHER[letter], steering=STRANGE)
    assert "strange" not in cell.upstream
    assert cell.headers["x-dropped-params"] == "strange"


@STREAM
@across("OC", "OR", "AM", "GG")
def test_dropped_names_are_sorted(theatre: Theatre, letter: str, stream: bool) -> None:
    """T-CORE-003: in order, clamped ones with their mark, with the head of a stream already."""
    theatre.client.says(Say())
    wishes: dict[str, Any] = {"steering": {"zeta": 1, "alpha": 2}}
    if letter in ("OC", "OR"):
        wishes["temperature"] = 1.6
    cell = theatre.play(letter, OTHER[letter], stream=stream, **wishes)
    names = cell.headers["x-dropped-params"].split(",")
    assert names == sorted(names)
    assert {"alpha", "zeta"} <= set(names)
    assert letter in ("AM", "GG") or any(name.endswith("temperature~") for name in names)


@across("OC", "OR", "AM", "GG")
def test_strict_channels(theatre: Theatre, letter: str) -> None:
    """T-CORE-004: what would be dropped is refused by name, before any call."""
    theatre.client.says(Say())
    cell = theatre.play(letter, f"strict-{OTHER[letter]}", steering=STRANGE)
    assert (cell.status, cell.sent, cell.charged) == (400, (), 0)
    assert_refused(letter, cell, "unsupported_parameter", "strange")


def assert_refused(letter: str, cell: Cell, code: str, param: str) -> None:
    """A 400 in the caller's shape; code and place where the shape has fields for them."""
    assert cell.status == 400
    assert cell.shown.error is not None
    if letter in ("OC", "OR"):
        error = cell.shown.error
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    elif letter == "AM":
        assert cell.shown.error["type"] == "invalid_request_error"
    else:
        assert (cell.shown.error["code"], cell.shown.error["status"]) == (400, "INVALID_ARGUMENT")
    assert letter in ("OC", "OR") or param.rpartition(".")[2] in str(cell.shown.error)


SERVER_TOOL: Final = {"steering": {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}}
IMPOSSIBLE: Final[dict[str, dict[str, Any]]] = {
    "OC": {"n": 2},
    "OR": {"logprobs": True},
    "AM": SERVER_TOOL,
    "GG": {"n": 2},
}


@across("OC", "OR", "AM", "GG")
def test_refusals_leave_the_channel_alone(
    theatre: Theatre, letter: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """T-CORE-005: no call, no charge, nothing against the channel; a log line says why."""
    theatre.client.says(Say())
    kind = "chat" if letter == "AM" else "claude"
    cell = theatre.play(letter, kind, **IMPOSSIBLE[letter])
    assert (cell.status, cell.sent, cell.charged) == (400, (), 0)
    lines = [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines() if b'"event":"request"' in line]
    assert [(line["end"], line["attempts"]) for line in lines[-1:]] == [("rejected", [])]
    assert lines[-1]["error"]["code"]
    assert theatre.play(letter, kind).status == 200


@STREAM
@BOTH
@across("OC", "OR", "AM", "GG")
def test_mapped_model(theatre: Theatre, letter: str, family: str, stream: bool) -> None:
    """T-CORE-006: upstream sees its own name, the client the one it asked for, in every piece."""
    kind = kind_of(letter, family)
    theatre.client.says(Say(text=EMOJI))
    cell = theatre.play(letter, kind, stream=stream)
    (sent,) = cell.sent
    assert Asked(sent.url, matrix.raw(sent)).model == UPSTREAM[kind]
    assert cell.shown.model == kind
    assert UPSTREAM[kind].encode() not in cell.data


@BOTH
@across("OC", "OR", "AM", "GG")
def test_no_stream_wanted(theatre: Theatre, letter: str, family: str) -> None:
    """T-CORE-007: a client that asks for no stream gets none, and upstream is asked for none."""
    theatre.client.says(Say())
    cell = theatre.play(letter, kind_of(letter, family))
    (sent,) = cell.sent
    asked = Asked(sent.url, matrix.raw(sent))
    assert not matrix_wires.wire(asked).streamed(asked)
    assert cell.shown.text == "Hello there."


# What comes back.


@STREAM
@across("OC", "OR")
def test_creation_time(theatre: Theatre, letter: str, stream: bool) -> None:
    """T-CORE-008: ours where the provider tells none."""
    theatre.client.says(Say())
    cell = theatre.play(letter, "claude", stream=stream)
    name = "created" if letter == "OC" else "created_at"
    events = [cell.shown.tree] if not stream else [event for _, event in frames(cell) if event != "[DONE]"]
    times = [tree[name] for event in events for tree in (event, event.get("response") or {}) if name in tree]
    assert times
    assert all(abs(one - time.time()) < 60 for one in times)


def frames(cell: Cell) -> list[tuple[str, Any]]:
    """The stream's events."""
    return matrix.matrix_grammar.frames(cell.data)


def unmetered(data: bytes) -> bytes:
    """An answer of any kind without its usage."""

    def bare(tree: Any) -> Any:
        if isinstance(tree, dict):
            found = {name: bare(value) for name, value in tree.items() if name not in ("usage", "usageMetadata")}
            return found
        return [bare(one) for one in tree] if isinstance(tree, list) else tree

    if data.startswith(b"{"):
        return grown(data, bare)
    return frames_changed(data, lambda tree: None if tree.get("choices") == [] else bare(tree))


@STREAM
@BOTH
@across("OC", "OR", "AM", "GG")
def test_no_usage(
    theatre: Theatre, letter: str, family: str, stream: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """T-CORE-009: counted here, shown as if it were told, and logged as counted."""
    editing(theatre.client, Say(text="Hello there, my friend."), unmetered)
    cell = theatre.play(letter, kind_of(letter, family), stream=stream)
    assert cell.shown.text == "Hello there, my friend."
    assert 0 < cell.shown.usage["prompt"] < 20
    assert cell.shown.usage["completion"] == (9 if kind_of(letter, family) == "claude" else 6)
    lines = [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines() if b'"event":"request"' in line]
    assert lines[-1]["usage"]["source"] == "counted"
    assert cell.charged == cell.shown.usage["prompt"] + 2 * cell.shown.usage["completion"]


@STREAM
@BOTH
@across("OC", "OR", "AM", "GG")
def test_no_usage_of_a_call(theatre: Theatre, letter: str, family: str, stream: bool) -> None:
    """T-CORE-009: a call is counted with its name and what its maker puts around it."""
    editing(theatre.client, Say(text="", calls=(("c1", "get_weather", {"place": "Rome"}),)), unmetered)
    cell = theatre.play(letter, kind_of(letter, family), stream=stream)
    assert [name for _, name, _ in cell.shown.calls] == ["get_weather"]
    assert cell.shown.usage["completion"] == (54 if kind_of(letter, family) == "claude" else 15)


@STREAM
@across("OC", "OR", "AM", "GG")
def test_total_above_the_sum(theatre: Theatre, letter: str, stream: bool) -> None:
    """T-CORE-010: the difference is reasoning, and billed."""

    def more(tree: Any) -> Any:
        if tree.get("usage"):
            tree["usage"]["total_tokens"] = 35
        return tree

    def change(data: bytes) -> bytes:
        return frames_changed(data, more) if stream else grown(data, more)

    editing(theatre.client, Say(prompt=10, completion=5), change)
    cell = theatre.play(letter, "compatible" if letter == "OR" else "chat", stream=stream)
    assert cell.charged == 10 + 2 * 25
    assert cell.shown.usage["prompt"] == 10
    if letter != "OC":
        assert (cell.shown.usage["completion"], cell.shown.usage["reasoning"]) == (25, 20)


@STREAM
@BOTH
@across("OC", "OR", "AM", "GG")
def test_cached_once(theatre: Theatre, letter: str, family: str, stream: bool) -> None:
    """T-CORE-011: the prompt is the same in every format, what was cached is a part of it."""
    theatre.client.says(Say(prompt=100, completion=5, cached=60))
    cell = theatre.play(letter, kind_of(letter, family), stream=stream)
    assert (cell.shown.usage["prompt"], cell.shown.usage["cached"]) == (100, 60)


@STREAM
@across("OC", "OR", "AM", "GG")
def test_cache_writes(theatre: Theatre, letter: str, stream: bool) -> None:
    """T-CORE-012: where the format has a field for them; the prompt holds them in every one."""

    def written(tree: Any) -> Any:
        for place in (tree, tree.get("message") or {}):
            if "usage" in place:
                place["usage"]["cache_creation_input_tokens"] = 30
        return tree

    def change(data: bytes) -> bytes:
        return frames_changed(data, written) if stream else grown(data, written)

    editing(theatre.client, Say(prompt=10), change)
    cell = theatre.play(letter, "claude", stream=stream)
    assert cell.shown.usage["prompt"] == 40
    field = {"OC": b'"cache_write_tokens":30', "OR": b'"cache_write_tokens":30', "AM": b'_input_tokens":30'}
    assert field.get(letter, b"40") in cell.data.replace(b" ", b"")


# What goes wrong.


def failing(client: Client, status: int, then: Say | None = None, body: bytes = b"", **headers: str) -> None:
    """The first upstream fails; later ones say `then`, or fail as well."""

    def answer(outgoing: Outgoing) -> Script:
        raw = matrix.raw(outgoing)
        if then is not None and len(client.played) >= 1:
            told = matrix_wires.answer(outgoing.url, raw, then)
            return script(told.data, kind=told.kind)
        told = matrix_wires.answer(outgoing.url, raw, Say(status=status, message="refused"))
        return script(body or told.data, status=status, **headers)

    client.answer = answer


def good(letter: str, cell: Cell) -> None:
    """The second channel's answer, alone."""
    assert (cell.status, cell.shown.text, len(cell.sent)) == (200, "Second.", 2)


def shown_error(letter: str, cell: Cell, kind: tuple[str, str]) -> None:
    """The error's own word in Anthropic's and Gemini's shape."""
    assert cell.shown.error is not None
    if letter == "AM":
        assert cell.shown.error["type"] == kind[0]
    elif letter == "GG":
        assert cell.shown.error["status"] == kind[1]


@STREAM
@pytest.mark.parametrize("status", [401, 403])
@across("OC", "OR", "AM", "GG")
def test_dead_key(theatre: Theatre, letter: str, status: int, stream: bool) -> None:
    """T-CORE-013: another channel is tried; alone it is a 502 that says whose key it was."""
    kind = OTHER[letter]
    failing(theatre.client, status, Say(text="Second."))
    fresh(theatre)
    good(letter, theatre.play(letter, f"two-{kind}", stream=stream))
    failing(theatre.client, status)
    fresh(theatre)
    cell = theatre.play(letter, kind, stream=stream)
    assert (cell.status, cell.charged) == (502, 0)
    shown_error(letter, cell, ("api_error", "INTERNAL"))
    if letter in ("OC", "OR"):
        assert (cell.shown.error or {})["code"] == "upstream_credentials"
    fresh(theatre)


def fresh(theatre: Theatre) -> None:
    """Forgets what was held against channels."""
    theatre.forgive()


@STREAM
@across("OC", "OR", "AM", "GG")
def test_rate_limit(theatre: Theatre, letter: str, stream: bool) -> None:
    """T-CORE-014: when all are busy the client learns how long to wait."""
    fresh(theatre)
    failing(theatre.client, 429, **{"retry-after": "7"})
    cell = theatre.play(letter, f"two-{OTHER[letter]}", stream=stream)
    assert (cell.status, cell.headers["retry-after"], len(cell.sent)) == (429, "7", 2)
    shown_error(letter, cell, ("rate_limit_error", "RESOURCE_EXHAUSTED"))
    fresh(theatre)


@STREAM
@pytest.mark.parametrize(("status", "shown"), [(500, 502), (503, 503)])
@across("OC", "OR", "AM", "GG")
def test_server_errors(theatre: Theatre, letter: str, status: int, shown: int, stream: bool) -> None:
    """T-CORE-015: the next channel answers; if none does the client gets a gateway's error."""
    kind = OTHER[letter]
    fresh(theatre)
    failing(theatre.client, status, Say(text="Second."))
    good(letter, theatre.play(letter, f"two-{kind}", stream=stream))
    failing(theatre.client, status)
    fresh(theatre)
    cell = theatre.play(letter, f"two-{kind}", stream=stream)
    assert cell.status == (529 if (letter, status) == ("AM", 503) else shown)
    assert (len(cell.sent), cell.charged) == (2, 0)
    shown_error(letter, cell, ("api_error" if status == 500 else "overloaded_error", _google(status)))
    fresh(theatre)


def _google(status: int) -> str:
    return "INTERNAL" if status == 500 else "UNAVAILABLE"


@across("OC", "OR", "AM", "GG")
def test_overload_before_content(theatre: Theatre, letter: str) -> None:
    """T-ANTH-071: an overload that a stream begins with is no answer: another channel's is; alone it is told."""
    overloaded = b"event: error\n" + data_frame(
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    )

    def answer(outgoing: Outgoing) -> Script:
        if len(theatre.client.played) % 2 == 0:
            return script(overloaded, kind="text/event-stream")
        told = matrix_wires.answer(outgoing.url, matrix.raw(outgoing), Say(text="Second."))
        return script(told.data, kind=told.kind)

    fresh(theatre)
    theatre.client.answer = answer
    good(letter, theatre.play(letter, "two-claude", stream=True))
    fresh(theatre)
    theatre.client.answer = lambda outgoing: script(overloaded, kind="text/event-stream")
    assert theatre.play(letter, "claude", stream=True).status == (529 if letter == "AM" else 503)
    fresh(theatre)


def broken_off(kind: str, text: str, end: Any) -> Callable[[Outgoing], Script]:
    """A stream that says something and then ends in `end`: an exception, or silence."""

    def answer(outgoing: Outgoing) -> Script:
        told = matrix_wires.answer(outgoing.url, matrix.raw(outgoing), Say(text=text, prompt=40))
        whole = told.data.split(b"\n\n")
        spoken = next(number for number, block in enumerate(whole) if text[-4:].encode() in block)
        pieces = [block + b"\n\n" for block in whole[: spoken + 1]]
        return Script(*pieces, end, headers={"content-type": told.kind})

    return answer


@BOTH
@across("OC", "OR", "AM", "GG")
def test_break_after_content(theatre: Theatre, letter: str, family: str) -> None:
    """T-CORE-016: no second attempt; an error in the format's grammar; what was delivered is charged."""
    kind = kind_of(letter, family)
    fresh(theatre)
    theatre.client.answer = broken_off(kind, "Hello there", UpstreamFailure("reset"))
    cell = theatre.play(letter, f"two-{kind}", stream=True)
    assert (cell.status, len(cell.sent)) == (200, 1)
    assert cell.shown.error is not None
    assert "Hello there" in cell.shown.text
    assert cell.charged > 0
    fresh(theatre)


@BOTH
@across("OC", "OR", "AM", "GG")
def test_departure(theatre: Theatre, letter: str, family: str) -> None:
    """T-CORE-017: upstream is let go at once, and what was delivered is charged."""
    theatre.client.answer = broken_off(kind_of(letter, family), "Hello there", HANG)
    cell = theatre.play(letter, kind_of(letter, family), stream=True, leave_after=1)  # upstream would hang for ever
    (played,) = theatre.client.played
    assert played.closed
    assert cell.charged > 0
    fresh(theatre)


PAGE: Final = b"<html><body>" + b"SECRET login page " * 100 + b"</body></html>"


@pytest.mark.parametrize("status", [400, 500])
@across("OC", "OR", "AM", "GG")
def test_page_for_an_error(
    theatre: Theatre, letter: str, status: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """T-CORE-018: a 502 without the page's words; 300 characters of them are in the log."""
    fresh(theatre)
    failing(theatre.client, status, body=PAGE)
    cell = theatre.play(letter, OTHER[letter])
    assert cell.status == 502
    assert b"SECRET" not in cell.data
    if letter in ("OC", "OR"):
        assert (cell.shown.error or {})["code"] == "bad_response"
    logged = capfdbinary.readouterr().out
    assert b"SECRET" in logged
    assert PAGE[:301] not in logged
    fresh(theatre)


# Bytes.


@BOTH
@across("OC", "OR", "AM", "GG")
def test_cut_characters(theatre: Theatre, letter: str, family: str) -> None:
    """T-CORE-021: characters that arrive byte by byte are whole."""
    theatre.client.says(Say(text=EMOJI), cut=1)
    cell = theatre.play(letter, kind_of(letter, family), stream=True)
    assert cell.shown.text == EMOJI
    assert "\ufffd" not in cell.data.decode()


def untidy(data: bytes) -> bytes:
    """The same event stream as other servers write it: CRLF, comments, no space behind the colon."""
    lines = data.replace(b"data: {", b"data:{").replace(b"\n", b"\r\n")
    return b": hello\r\n\r\n" + lines.replace(b"\r\n\r\n", b"\r\n\r\n: keep-alive\r\n\r\n")


def in_lines(data: bytes) -> bytes:
    """The same events, each over several lines of data."""
    return data.replace(b',"', b',\ndata: "')


def ended_by_returns(data: bytes) -> bytes:
    """The same events, their lines ended by carriage returns alone."""
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r")


def numbered(data: bytes) -> bytes:
    """The same events, each with an id and a comment of its own before its data."""
    return data.replace(b"data: {", b": here\nid: 7\nretry: 5\ndata: {")


@pytest.mark.parametrize("change", [ended_by_returns, numbered])
@pytest.mark.parametrize("kind", kinds())
def test_strange_frames(theatre: Theatre, kind: str, change: Callable[[bytes], bytes]) -> None:
    """T-CORE-022 (OC): frames that are no single line of data are told again as such, nothing of them is lost."""
    editing(theatre.client, Say(text="Hello there.", prompt=21, completion=7), change)
    cell = theatre.play("OC", kind, stream=True)
    assert (cell.shown.text, cell.shown.finish) == ("Hello there.", "stop")
    assert (cell.shown.usage["prompt"], cell.shown.usage["completion"]) == (21, 7)


@pytest.mark.parametrize("change", [untidy, in_lines])
@BOTH
@across("OC", "OR", "AM", "GG")
def test_stream_syntax(theatre: Theatre, letter: str, family: str, change: Callable[[bytes], bytes]) -> None:
    """T-CORE-022: what the standard allows is read; comments never become data."""
    editing(theatre.client, Say(text="Hello there.", prompt=21, completion=7), change)
    cell = theatre.play(letter, kind_of(letter, family), stream=True)
    assert cell.shown.text == "Hello there."
    assert cell.shown.finish == matrix_grammar.FINISHES["stop"][letter]
    assert (cell.shown.usage["prompt"], cell.shown.usage["completion"]) == (21, 7)
    data = [line for line in cell.data.splitlines() if line.startswith(b"data:")]
    assert not any(b"keep-alive" in line for line in data)


@pytest.mark.parametrize(("address", "row"), [("https://10.0.0.1/x", "T-CORE-023"), ("https://e.example/404", "-024")])
@across("OC", "OR", "AM", "GG")
def test_bad_addresses(theatre: Theatre, letter: str, address: str, row: str) -> None:
    """T-CORE-023, T-CORE-024: refused with the picture's place, before the provider is called."""
    theatre.client.says(Say())
    cell = theatre.play(letter, "bytes", turns=(("user", "What?", Picture(address)),))
    assert (cell.status, cell.sent) == (400, ())
    assert cell.shown.error is not None
    assert "public" in cell.shown.error["message"]
    if letter in ("OC", "OR"):
        assert cell.shown.error["code"] == "invalid_image_url"


# Tools.

ORDERED: Final = '{"z":"🌍 世界","a":[1,{"y":2,"x":"\\"ü\\""}],"m":null}'


@across("OC", "OR")
def test_arguments_that_are_no_json(theatre: Theatre, letter: str) -> None:
    """T-CORE-025: wrapped, so that a broken turn can be replayed."""
    theatre.client.says(Say())
    turns = (("user", "Go"), ("assistant", Call("c1", "f", "{broken")), ("tool", Result("c1", "f")))
    cell = theatre.play(letter, "claude", turns=turns)
    (use,) = cell.upstream["messages"][1]["content"]
    assert use["input"] == {"__raw_arguments__": "{broken"}


def _old_style(tree: Any) -> Any:
    for choice in tree.get("choices", ()):
        place = choice.get("message") or choice.get("delta") or {}
        for call in place.pop("tool_calls", ()):
            place["function_call"] = call["function"]
        if choice.get("finish_reason") == "tool_calls":
            choice["finish_reason"] = "function_call"
    return tree


LEGACY: Final = {"functions": [FUNCTION], "function_call": {"name": "f"}}


@STREAM
@BOTH
@across("OC")
def test_legacy_functions(theatre: Theatre, letter: str, family: str, stream: bool) -> None:
    """T-CORE-026: tools upstream, `function_call` for the client."""
    tree = inbound.body(letter, model=kind_of(letter, family), stream=stream) | LEGACY

    def change(data: bytes) -> bytes:
        """A server of the old format answers in it."""
        if family == "other":
            return data
        return frames_changed(data, _old_style) if stream else grown(data, _old_style)

    editing(theatre.client, Say(text="", calls=(("c1", "f", {"a": 1}),)), change)
    cell = theatre.play(letter, kind_of(letter, family), tree=tree, stream=stream)
    if family == "other":
        assert cell.upstream["tools"][0]["name"] == "f"
        assert cell.upstream["tool_choice"] == {"type": "tool", "name": "f"}
    events = [cell.shown.tree] if not stream else [event for _, event in frames(cell) if event != "[DONE]"]
    choices = [choice for event in events for choice in event["choices"]]
    called = [(choice.get("message") or choice.get("delta") or {}).get("function_call") for choice in choices]
    assert "".join(one.get("arguments") or "" for one in called if one) == '{"a":1}'
    assert [one["name"] for one in called if one and one.get("name")] == ["f"]
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["function_call"]


@across("OC")
def test_legacy_results(theatre: Theatre, letter: str) -> None:
    """T-CORE-027: a result by name belongs to the last call of that name."""
    theatre.client.says(Say())
    calls = [
        {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": "{}"}} for name in "fg"
    ]
    results = [{"role": "function", "name": name, "content": f"of {name}"} for name in "fg"]
    items = (calls[0], results[0], calls[1], results[1])
    cell = theatre.play(letter, "claude", turns=(("user", "Go"), inbound.Native(items)))
    roles = [one["role"] for one in cell.upstream["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    for index, name in ((1, "f"), (3, "g")):
        (use,), (result,) = (cell.upstream["messages"][at]["content"] for at in (index, index + 1))
        assert (use["name"], result["content"]) == (name, f"of {name}")
        assert use["id"] == result["tool_use_id"]


@across("OC")
def test_null_content(theatre: Theatre, letter: str) -> None:
    """T-CORE-028: an empty text, never a null for those who refuse it."""
    theatre.client.says(Say())
    silent = inbound.Native(({"role": "assistant", "content": None},))
    cell = theatre.play(letter, "claude", turns=(("user", "Go"), silent, ("user", "And?")))
    assert "null" not in orjson.dumps(cell.upstream["messages"]).decode()
    assert all(one["content"] for one in cell.upstream["messages"])


@STREAM
@BOTH
@across("OC", "OR", "AM", "GG")
def test_arguments_unchanged(theatre: Theatre, letter: str, family: str, stream: bool) -> None:
    """T-CORE-029, T-CORE-030: characters and the order of keys, from the provider and back to it."""
    tree = orjson.loads(ORDERED)
    theatre.client.says(Say(text="", calls=(("call_1", "f", tree),)))
    kind = kind_of(letter, family)
    cell = theatre.play(letter, kind, stream=stream, tools=[FUNCTION])
    assert cell.shown.calls == [("call_1", "f", ORDERED)]
    assert b"\\u" not in cell.data
    turns = (("user", "Go"), ("assistant", Call("call_1", "f", ORDERED)), ("tool", Result("call_1", "f")))
    sent = orjson.dumps(theatre.play(letter, kind, turns=turns, tools=[FUNCTION]).upstream).decode()
    assert ORDERED in sent or orjson.dumps(ORDERED).decode() in sent


# Promises that a provider cannot keep.


@across("OC", "GG")
def test_several_answers(theatre: Theatre, letter: str) -> None:
    """T-CORE-031: refused under the client's own name for it."""
    theatre.client.says(Say())
    cell = theatre.play(letter, "claude", n=2)
    assert cell.sent == ()
    name = {"OC": "n", "GG": "generationConfig.candidateCount"}[letter]
    assert_refused(letter, cell, "unsupported_parameter", name)


@across("OC", "OR", "GG")
def test_log_probabilities(theatre: Theatre, letter: str) -> None:
    """T-CORE-032: refused under the client's own name for them."""
    theatre.client.says(Say())
    cell = theatre.play(letter, "claude", logprobs=True)
    assert cell.sent == ()
    name = {"OC": "logprobs", "OR": "top_logprobs", "GG": "generationConfig.responseLogprobs"}[letter]
    assert_refused(letter, cell, "unsupported_parameter", name)


# How streams end.


@BOTH
@across("OC")
def test_usage_chunk_not_wanted(theatre: Theatre, letter: str, family: str) -> None:
    """T-CORE-033: asked for upstream, billed, hidden from the client."""
    theatre.client.says(Say(prompt=21, completion=7))
    cell = theatre.play(letter, kind_of(letter, family), stream=True, usage=False)
    assert b'"usage":{' not in cell.data
    assert cell.charged == 21 + 2 * 7
    if family == "own":
        assert cell.upstream["stream_options"] == {"include_usage": True}


@BOTH
@across("OC")
def test_usage_chunk_wanted(theatre: Theatre, letter: str, family: str) -> None:
    """T-CORE-034: one chunk without choices, the last before the terminator."""
    theatre.client.says(Say(prompt=21, completion=7))
    cell = theatre.play(letter, kind_of(letter, family), stream=True, usage=True)
    events = [event for _, event in frames(cell)]
    told = [event for event in events if event != "[DONE]" and event.get("usage")]
    assert told == [events[-2]]
    assert (told[0]["choices"], events[-1]) == ([], "[DONE]")


def without_finish(tree: Any) -> Any:
    """A chunk that says nothing of an end."""
    for choice in tree.get("choices", ()):
        choice["finish_reason"] = None
    return tree


@pytest.mark.parametrize("called", [False, True])
@across("OC", "OR", "AM", "GG")
def test_no_finish(theatre: Theatre, letter: str, called: bool) -> None:
    """T-CORE-035: stop, or calls where there were some."""
    say = Say(text="", calls=(("c1", "f", {"a": 1}),)) if called else Say()
    editing(theatre.client, say, lambda data: frames_changed(data, without_finish))
    cell = theatre.play(letter, "compatible", stream=True, tools=[FUNCTION])
    assert cell.shown.error is None
    word = matrix.matrix_grammar.FINISHES["tool_calls" if called else "stop"][letter]
    assert cell.shown.finish == word


def twice(data: bytes) -> bytes:
    """A stream whose finish comes twice."""
    blocks = data.split(b"\n\n")
    at = next(number for number, block in enumerate(blocks) if b'"finish_reason":"stop"' in block)
    return b"\n\n".join([*blocks[: at + 1], blocks[at], *blocks[at + 1 :]])


@across("OC", "OR", "AM", "GG")
def test_two_finishes(theatre: Theatre, letter: str) -> None:
    """T-CORE-036: the client sees one."""
    editing(theatre.client, Say(text="Hello there."), twice)
    cell = theatre.play(letter, "compatible", stream=True)
    assert (cell.shown.text, cell.shown.error) == ("Hello there.", None)


@across("OC")
def test_no_terminator(theatre: Theatre, letter: str) -> None:
    """T-CORE-037: the client gets one all the same."""
    editing(theatre.client, Say(), lambda data: data.replace(b"data: [DONE]\n\n", b""))
    cell = theatre.play(letter, "chat", stream=True)
    assert cell.data.endswith(b"data: [DONE]\n\n")
    assert cell.shown.finish == "stop"


@pytest.mark.parametrize("kind", ["chat", "compatible"])
@across("OR")
def test_foreign_terminator(theatre: Theatre, letter: str, kind: str) -> None:
    """T-CORE-038: a terminator that this format does not have stays away."""
    done = b"data: [DONE]\n\n"
    editing(theatre.client, Say(), lambda data: data.removesuffix(done) + done)
    assert done not in theatre.play(letter, kind, stream=True).data

"""Every format that clients speak over every provider: text, tools, a picture, an error, a stream.

A cell gives the client the answer in its own grammar, or the refusal that `REFUSED` documents; none is empty. New
surfaces and providers are in it as soon as they are registered.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import speaks
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.endpoint import EndpointSurface
from tests.fakes import inbound, matrix, rows
from tests.fakes.inbound import FORMATS, FUNCTION, PNG, SPOKEN, Picture
from tests.fakes.matrix import Cell, Provider, Theatre
from tests.fakes.matrix_grammar import FINISHES
from tests.fakes.scripted import Say

PROVIDERS: Final = matrix.providers()
CELLS: Final = [(letter, one) for one in PROVIDERS for letter in FORMATS]
IDS: Final = [f"{letter}-{one.name}" for letter, one in CELLS]
PLAIN: Final = [(letter, one) for one in PROVIDERS for letter in SPOKEN]  # where text is all that is asked for
PLAIN_IDS: Final = [f"{letter}-{one.name}" for letter, one in PLAIN]
CALLS: Final = (("call_abc12", "weather", {"city": "Łódź", "at": 1}), ("call_def34", "weather", {"city": "Oslo"}))
WEATHER: Final = {**FUNCTION, "name": "weather"}

REFUSED: Final[dict[tuple[str, str], str]] = {
    ("dify", "tools"): "unsupported_parameter",  # an app has its own tools (T-DIFY-014)
    ("dify-agent", "tools"): "unsupported_parameter",
    ("coze", "tools"): "unsupported_parameter",  # a bot too
    ("zhipu-v3", "tools"): "unsupported_parameter",  # text is all that there is (T-ZHIP-016)
    ("zhipu-v3", "image"): "unsupported_content",
    ("cohere-v1", "image"): "unsupported_content",
    ("spark", "image"): "unsupported_content",
}
"""Provider's interface and feature: the code of the 400 that the client gets instead, the same in every format."""


NAMELESS: Final = ("echo", "cohere-v1", "cloudflare-run")
"""Interfaces whose calls have no ids: they are made here."""


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The house with all channels."""
    made = Theatre(tmp_path_factory.mktemp("matrix"), matrix.channels())
    yield made
    made.close()


def played(theatre: Theatre, letter: str, one: Provider, feature: str, say: Say, **body: Any) -> Cell | None:
    """The cell's answer; None where it is the documented refusal, which is checked here."""
    theatre.client.says(say)
    cell = theatre.play(letter, one.name, **body)
    code = REFUSED.get((one.interface, feature))
    if code is None:
        return cell
    assert (cell.status, cell.sent, cell.charged) == (400, (), 0)
    assert cell.shown.error is not None
    assert letter in ("AM", "GG") or cell.shown.error["code"] == code
    return None


def test_every_provider_has_a_script() -> None:
    """A provider without a script here would leave its cells empty."""
    silent = {name for name, one in ADAPTERS.items() if not one.chat}
    assert set(ADAPTERS) - silent <= set(matrix.PROVIDERS)


def test_every_route_is_in_the_matrix() -> None:
    """Every surface that answers questions is one of the formats; the others count, or are of another kind."""
    told = {id(inbound.surface(letter, stream)) for letter in SPOKEN for stream in (False, True)}
    chats = {route: one for route, one in SURFACES.items() if not isinstance(one, EndpointSurface)}
    others = {route for route, surface in chats.items() if id(surface) not in told}
    assert {route for route in others if not route.lower().endswith(COUNTING)} == set()


COUNTING: Final = ("/count_tokens", "/input_tokens", ":counttokens")


@pytest.mark.parametrize(("letter", "one"), PLAIN, ids=PLAIN_IDS)
def test_text(theatre: Theatre, letter: str, one: Provider) -> None:
    """The words, why they end, what they cost, and the name that the client asked for."""
    say = Say(text="Grüße, 世界 🌍!", prompt=21, completion=7)
    cell = played(theatre, letter, one, "text", say, turns=(("system", "Be kind."), ("user", "Grüße, 世界 🌍!")))
    if cell is None:
        return
    assert cell.status == 200
    assert cell.shown.text.removeprefix("Be kind.\n") == "Grüße, 世界 🌍!"  # an echo of all that a prompt says
    assert cell.shown.finish == FINISHES["stop"][letter]
    assert cell.shown.model == one.name
    if one.type != "echo":
        assert "sk-t" not in str(cell.sent)
        assert (cell.shown.usage["prompt"], cell.shown.usage["completion"]) == (21, 7)
        assert cell.charged == 21 + 7 * 2
        assert b"Be kind." in matrix.raw(cell.sent[-1])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("letter", "one"), CELLS, ids=IDS)
def test_tools(theatre: Theatre, letter: str, one: Provider, stream: bool) -> None:
    """Two calls at once, with their names, ids and arguments."""
    said = orjson.dumps({"calls": [{"call": name, "arguments": tree} for _, name, tree in CALLS]}).decode()
    turns = (("user", said),)
    cell = played(theatre, letter, one, "tools", Say(text="", calls=CALLS), turns=turns, tools=[WEATHER], stream=stream)
    if cell is None:
        return
    assert cell.status == 200, cell.data
    assert [(name, orjson.loads(arguments)) for _, name, arguments in cell.shown.calls] == [call[1:] for call in CALLS]
    ids = [id for id, _, _ in cell.shown.calls]
    assert len(set(ids)) == 2
    assert one.interface in NAMELESS or ids == [id for id, _, _ in CALLS]
    assert cell.shown.finish == FINISHES["tool_calls"][letter]
    if one.type != "echo":
        assert b'"weather"' in matrix.raw(cell.sent[-1])


@pytest.mark.parametrize(("letter", "one"), CELLS, ids=IDS)
def test_names_of_tools(theatre: Theatre, letter: str, one: Provider) -> None:
    """A name is never rewritten: the own family judges it by itself, all others refuse it here, with its place."""
    theatre.client.says(Say(text="No."))
    cell = theatre.play(letter, one.name, tools=[{**FUNCTION, "name": "files.read"}])
    own = inbound.surface(letter).dialect
    spoken = speaks(rows.adapter(one.type, **one.options)[0], own, one.model)
    assert spoken is not None
    asked_alike = one.interface == "cloudflare-run" and letter == "OC"  # its answers alone are of another format
    if (one.interface, "tools") not in REFUSED and (spoken.dialect == own or asked_alike):
        assert cell.status == 200, cell.data
        assert one.type == "echo" or b'"files.read"' in matrix.raw(cell.sent[-1])
        return
    assert (cell.status, cell.sent, cell.charged) == (400, (), 0)
    if (one.interface, "tools") not in REFUSED:
        assert NAME_AT[letter].encode() in cell.data


NAME_AT: Final = {
    "OC": "tools.0.function.name",
    "OR": "tools.0.name",
    "AM": "tools.0.name",
    "GG": "tools[0].functionDeclarations[0].name",
}


@pytest.mark.parametrize(("letter", "one"), CELLS, ids=IDS)
def test_image(theatre: Theatre, letter: str, one: Provider) -> None:
    """A picture by value reaches the provider."""
    cell = played(theatre, letter, one, "image", Say(text="A dot."), turns=(("user", "What?", Picture()),))
    if cell is None:
        return
    assert cell.status == 200, cell.data
    if one.type != "echo":
        assert cell.shown.text == "A dot."
        given = (PNG.encode(), base64.b64decode(PNG))
        assert any(one in matrix.raw(sent) for sent in cell.sent for one in given)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("letter", "one"), PLAIN, ids=PLAIN_IDS)
def test_error(theatre: Theatre, letter: str, one: Provider, stream: bool) -> None:
    """A provider's 429 is a 429 in the client's words, with its wait, and costs nothing."""
    say = Say(status=429, message="Slow down, please.", headers={"retry-after": "7"})
    cell = played(theatre, letter, one, "error", say, stream=stream)
    if cell is None:
        return
    if one.type == "echo":
        assert cell.status == 200  # there is nobody who could refuse
        return
    assert (cell.status, cell.headers.get("retry-after"), cell.charged) == (429, "7", 0)
    assert cell.shown.error is not None
    assert "Slow down, please." in cell.shown.error["message"]


@pytest.mark.parametrize("cut", [0, 1], ids=["at-once", "byte-by-byte"])
@pytest.mark.parametrize(("letter", "one"), PLAIN, ids=PLAIN_IDS)
def test_stream(theatre: Theatre, letter: str, one: Provider, cut: int) -> None:
    """The words in the format's own grammar, however upstream's bytes are cut."""
    theatre.client.says(Say(text="Grüße, 世界 🌍!", prompt=21, completion=7), cut)
    cell = theatre.play(letter, one.name, turns=(("user", "Grüße, 世界 🌍!"),), stream=True)
    assert (cell.status, cell.shown.text) == (200, "Grüße, 世界 🌍!")
    assert cell.shown.finish == FINISHES["stop"][letter]
    assert cell.shown.model == one.name
    assert cell.shown.error is None
    if one.type != "echo":
        assert (cell.shown.usage["prompt"], cell.shown.usage["completion"]) == (21, 7)
        assert cell.charged == 21 + 7 * 2

"""A channel's own system prompt: in every language of clients, towards a provider of the same and of another."""

from __future__ import annotations

from typing import Any

import pytest

from newapi_proxy.ir.ask import Ask, Media, Text
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.base import PATH
from newapi_proxy.surfaces.instructing import instructed
from newapi_proxy.wire import tree

USER = {"role": "user", "content": "Hi"}


def asked(dialect: str, body: dict[str, Any]) -> Ask:
    """The body as its surface reads it."""
    surface = next(one for one in SURFACES.values() if one.dialect == dialect)
    return surface.read(tree.encode({"model": "m", **body}), {PATH: "/v1beta/models/m:generateContent"})


def spoken(ask: Ask) -> list[tuple[str, str]]:
    """Roles and texts of the turns."""
    return [(turn.role, "".join(one.text for one in turn.parts if isinstance(one, Text))) for turn in ask.turns]


CHAT: dict[str, Any] = {"messages": [USER]}
CHAT_OWN: dict[str, Any] = {"messages": [{"role": "system", "content": "Own."}, USER]}
CLAUDE: dict[str, Any] = {"messages": [USER], "max_tokens": 5}
RESPONSES: dict[str, Any] = {"input": "Hi"}
GEMINI: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
GEMINI_OWN = {**GEMINI, "systemInstruction": {"parts": [{"text": "Own."}]}}


@pytest.mark.parametrize(
    ("dialect", "body"),
    [("openai-chat", CHAT), ("anthropic", CLAUDE), ("openai-responses", RESPONSES), ("gemini", GEMINI)],
)
def test_it_stands_in_where_the_client_gives_none(dialect: str, body: dict[str, Any]) -> None:
    """In the turns, and in the tree so that the surface would read the same."""
    found = instructed(asked(dialect, body), "Be brief.", "absent")
    assert spoken(found) == [("system", "Be brief."), ("user", "Hi")]
    again = asked(dialect, found.tree)
    assert spoken(again) == spoken(found)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("openai-chat", CHAT_OWN),
        ("anthropic", {**CLAUDE, "system": "Own."}),
        ("anthropic", {**CLAUDE, "system": [{"type": "text", "text": "Own."}]}),
        ("openai-responses", {**RESPONSES, "instructions": "Own."}),
        ("gemini", GEMINI_OWN),
    ],
)
def test_beside_the_clients_own(dialect: str, body: dict[str, Any]) -> None:
    """`absent` leaves it alone, `before` stands in front of it, `replace` in its place."""
    ask = asked(dialect, body)
    assert instructed(ask, "Be brief.", "absent") is ask
    before = asked(dialect, instructed(ask, "Be brief.", "before").tree)
    assert spoken(before)[0][1].startswith("Be brief.")
    assert spoken(before)[0][1].endswith("Own.")
    assert spoken(instructed(ask, "Be brief.", "before"))[0][1] == "Be brief.\nOwn."
    assert spoken(asked(dialect, instructed(ask, "Be brief.", "replace").tree))[0] == ("system", "Be brief.")


def test_places_move_with_the_messages() -> None:
    """What an adapter edits in the tree by its path is found one message later."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/p.png"}}
    found = instructed(asked("openai-chat", {"messages": [{"role": "user", "content": [picture]}]}), "S.", "absent")
    (part,) = (part for turn in found.turns for part in turn.parts if isinstance(part, Media))
    assert tree.find(found.tree, part.path) is not tree.MISSING
    assert part.path.startswith("messages.1.")

"""The policy table of aborted requests, cell by cell, and which usage of upstream is believed."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from newapi_proxy.billing import policy
from newapi_proxy.billing.policy import Basis, End, aborted, reaches_out, topped, trusted
from newapi_proxy.ir.ask import Ask, Media, Text, Tool, ToolResult, Turn
from newapi_proxy.ir.usage import Usage

# end, content begun → what is billed for: usage known and delivered, known only, delivered only, neither
CELLS: list[tuple[End, bool, tuple[Basis, Basis, Basis, Basis]]] = [
    ("ok", True, ("upstream", "upstream", "counted", "nothing")),
    ("client_gone", True, ("upstream", "upstream", "counted", "nothing")),
    ("upstream_error", True, ("upstream", "nothing", "counted", "nothing")),
    ("timeout", True, ("upstream", "nothing", "counted", "nothing")),
    ("upstream_error", False, ("nothing", "nothing", "nothing", "nothing")),
    ("rejected", False, ("nothing", "nothing", "nothing", "nothing")),
]


@pytest.mark.parametrize(("end", "content", "row"), CELLS)
def test_every_cell(end: End, content: bool, row: tuple[Basis, ...]) -> None:
    """Decision 7: upstream's usage if it was seen, else what was delivered, else nothing; failures without delivery
    are free."""
    cells = [(True, True), (True, False), (False, True), (False, False)]
    found = tuple(aborted(end, known=known, delivered=delivered, content=content) for known, delivered in cells)
    assert found == row


def test_the_table_is_complete() -> None:
    """Six states by two by two, none missing, none besides."""
    either = (True, False)
    cells = {(state, known, got) for state in get_args(policy.State) for known in either for got in either}
    assert set(policy.POLICY) == cells


def test_nothing_delivered_and_nothing_known_is_free_everywhere() -> None:
    """Whatever the end: nothing for nothing (demand B2)."""
    assert {aborted(end, known=False, delivered=False) for end in get_args(End)} == {"nothing"}


def test_content_follows_delivery_where_it_is_not_said() -> None:
    """An upstream's failure counts as after content when something was delivered."""
    assert aborted("upstream_error", known=False, delivered=True) == "counted"
    assert aborted("upstream_error", known=True, delivered=False) == "nothing"


def asked(size: int = 400, tree: dict[str, Any] | None = None, parts: tuple[Any, ...] = (), **more: Any) -> Ask:
    turns = (Turn(role="user", parts=parts or (Text(text="hello"),)),)
    return Ask(dialect="x", model="m", tree=tree or {}, size=size, turns=turns, **more)


def test_ordinary_usage_is_trusted() -> None:
    """Templates and hidden instructions fit the slack."""
    assert trusted(Usage(prompt=120, completion=4000), asked())
    assert trusted(Usage(prompt=policy.PER_BYTE * 400 + policy.SLACK), asked())


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt=policy.PER_BYTE * 400 + policy.SLACK + 1),
        Usage(prompt=-1),
        Usage(prompt=10, completion=-5),
        Usage(prompt=10, cache_read=-5),
        Usage(prompt=2**63),
        Usage(prompt=10, completion=2**63),
        Usage(prompt=10, completion=policy.CONTEXT + 1),
        Usage(prompt=10, others=(("m", Usage(prompt=2**63)),)),
        Usage(prompt=10, server_tools={"web_search_requests": -1}),
        Usage(prompt=10, server_tools={"web_search_requests": 2**63}),
    ],
)
def test_absurd_usage_is_not_trusted(usage: Usage) -> None:
    """Fault U27: more than the body can mean, more than any context, negative, overflowing."""
    assert not trusted(usage, asked())


@pytest.mark.parametrize(
    "ask",
    [
        asked(parts=(Media(kind="file", file_id="file-1"),)),
        asked(parts=(ToolResult(id="1", parts=(Media(kind="image", url="https://example.org/a.png"),)),)),
        asked(tree={"previous_response_id": "resp_1"}),
        asked(tree={"prompt": {"id": "pmpt_1"}}),
        asked(tools=(Tool(name="web_search", kind="server"),)),
    ],
)
def test_context_kept_elsewhere_may_be_long(ask: Ask) -> None:
    """A short body that names a file, a stored conversation or a search may use any context there is."""
    assert reaches_out(ask)
    assert trusted(Usage(prompt=900_000), ask)
    assert not trusted(Usage(prompt=policy.CONTEXT + 1), ask)


def test_a_prompt_as_text_is_the_body_itself() -> None:
    """The completions route's `prompt` reaches nowhere."""
    assert not reaches_out(asked(tree={"prompt": "once upon a time"}))


def test_a_cut_stream_costs_what_was_delivered() -> None:
    """A usage from before the end is raised to the delivered text, never lowered."""
    early = Usage(prompt=100, completion=1)
    assert topped(early, 250) == Usage(prompt=100, completion=250, source="mixed")
    assert topped(Usage(prompt=100, completion=300), 250) == Usage(prompt=100, completion=300)

"""Model names that say how to reason: taken apart, routed, priced and translated (decision 15)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.billing.prices import book
from newapi_proxy.config.model import Channel as ChannelConfig
from newapi_proxy.config.model import Config
from newapi_proxy.ir.ask import Controls, Thinking
from newapi_proxy.ir.suffix import Named, by_effort, by_thinking, wished
from newapi_proxy.snapshot import Channel, Snapshot
from tests.fakes.ports import Script
from tests.fakes.rows import AM, OC, ask, chunk, sent, sse, whole
from tests.fakes.stage import JSON, stage

ON = Thinking(adaptive=True)
BUDGET = {"thinking": {"type": "enabled", "budget_tokens": 2048}}


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("a-high", Named("a", Thinking(effort="high"))),
        ("a-xhigh", Named("a", Thinking(effort="xhigh"))),
        ("a-minimal", Named("a", Thinking(effort="minimal"))),
        ("a-none", Named("a", Thinking(effort="none", disabled=True))),
        ("a", None),
        ("-high", None),
        ("a-highest", None),
        ("a-max", None),
    ],
)
def test_efforts(name: str, named: Named | None) -> None:
    """An effort word at the end."""
    assert by_effort(name) == named


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("a-thinking", Named("a", ON)),
        ("a-nothinking", Named("a", Thinking(disabled=True))),
        ("a-thinking-2048", Named("a", Thinking(budget=2048))),
        ("a-thinking-0", Named("a", Thinking(budget=0, disabled=True))),
        ("a-thinking-9999999", None),
        ("a-thinking-exp", None),
        ("thinking", None),
    ],
)
def test_thinking(name: str, named: Named | None) -> None:
    """A switch, or a budget."""
    assert by_thinking(name) == named


def test_the_request_itself_wins() -> None:
    """What the body says about thinking is not overruled; a switch without a number leaves a fifth for the answer."""
    own = Controls(thinking=Thinking(effort="low"))
    assert wished(own, ON) is own
    assert wished(own, None) is own
    assert wished(Controls(max_tokens=1000), ON).thinking == Thinking(adaptive=True, budget=800)
    assert wished(Controls(), ON).thinking == ON


@pytest.mark.parametrize(
    ("type_", "name", "base"),
    [
        ("openai", "o3-mini-high", "o3-mini"),
        ("openai", "gpt-5-none", "gpt-5"),
        ("openai", "gpt-4o-high", None),
        ("openai", "o3-mini-thinking", None),
        ("azure", "o1-low", "o1"),
        ("anthropic", "claude-3-7-sonnet-20250219-thinking", "claude-3-7-sonnet-20250219"),
        ("anthropic", "claude-sonnet-4-5-thinking-4096", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-6-high", "claude-opus-4-6"),
        ("anthropic", "another-thinking", None),
        ("xai", "grok-3-mini-high", "grok-3-mini"),
        ("xai", "grok-2-high", None),
        ("openrouter", "anthropic/claude-sonnet-4.5-thinking", "anthropic/claude-sonnet-4.5"),
        ("openrouter", "openai/o3-mini-high", None),  # a name of its own there
        ("openrouter", "qwen/qwen3-235b-a22b-thinking-2507", None),
    ],
)
def test_families(type_: str, name: str, base: str | None) -> None:
    """Each provider takes apart the names of its own families alone: many a name ends so by itself."""
    suffixes = ADAPTERS[type_].suffixes
    assert suffixes is not None
    found = suffixes(name)
    assert (found.model if found else None) == base


@pytest.mark.parametrize("type_", ["deepseek", "moonshot", "zhipu", "custom", "volcengine", "mistral", "echo"])
def test_the_others_take_none(type_: str) -> None:
    """A provider that says nothing of suffixes gets every name as it is."""
    assert ADAPTERS[type_].suffixes is None


def channel(name: str, *models: str, type_: str = "openai", **more: Any) -> Channel:
    """A channel of the default group."""
    adapter = ADAPTERS[type_]
    options = adapter.options()
    return Channel(
        name=name,
        id=1,
        adapter=adapter,
        base_url="",
        keys=(),
        models=models,
        groups=("default",),
        options=options,
        **more,
    )


def tiers(model: str, *channels: Channel) -> list[tuple[str, str, Thinking | None]]:
    """Who serves the model: channel, upstream's name, wish."""
    view = Snapshot(Config(), channels, {}, book({}, {}, {}))
    return [
        (one.name, one.upstream_model(model), one.thinking) for tier in view.tiers("default", model) for one in tier
    ]


HIGH = Thinking(effort="high")


def test_routing_to_the_name_without_it() -> None:
    """A channel that lists the plain name serves the suffixed one; a plain request sees the channel itself."""
    one = channel("a", "o3-mini", model_mapping={"o3-mini": "deployed"})
    assert tiers("o3-mini-high", one) == [("a", "deployed", HIGH)]
    view = Snapshot(Config(), [one], {}, book({}, {}, {}))
    assert view.tiers("default", "o3-mini")[0][0] is one
    assert view.tiers("default", "o3-mini-high") is view.tiers("default", "o3-mini-high")
    assert tiers("o1-high", one) == []


def test_a_channel_that_lists_it_gets_it() -> None:
    """The suffixed name where it is listed goes out as it is, and only there, patterns apart."""
    listing, plain, pattern = channel("a", "o3-mini-high"), channel("b", "o3-mini"), channel("c", "o3-*")
    assert tiers("o3-mini-high", listing, plain) == [("a", "o3-mini-high", None)]
    assert tiers("o3-mini-high", listing, pattern) == [("a", "o3-mini-high", None), ("c", "o3-mini", HIGH)]


def test_patterns_and_mappings() -> None:
    """A pattern is no list: upstream gets the plain name; a mapping to a suffixed name is resolved as well."""
    assert tiers("gpt-5-high", channel("a", "*")) == [("a", "gpt-5", HIGH)]
    assert tiers("gpt-5-high", channel("a", "*-high")) == [("a", "gpt-5-high", None)]
    assert tiers("smart", channel("a", "smart", model_mapping={"smart": "o3-high"})) == [("a", "o3", HIGH)]
    assert tiers("smart", channel("a", "smart", "o3-high", model_mapping={"smart": "o3-high"})) == [
        ("a", "o3-high", None)
    ]
    assert tiers("gpt-4-high", channel("a", "*", type_="custom")) == [("a", "gpt-4-high", None)]


def test_prices() -> None:
    """The suffixed name's own price before that of the name without it."""
    prices = {"o3-mini": {"input": 1.0, "output": 2.0}, "o1": {"input": 1.0}, "o1-high": {"input": 9.0}}
    find = book(prices, {}, {}).find
    first, second = find("o3-mini-high", "o3-mini"), find("o1-high", "o1")
    assert first is not None
    assert second is not None
    assert second.name == "o1-high"


@pytest.mark.parametrize(
    ("client", "type_", "model", "thinking", "told"),
    [
        (OC, "openai", "o3-mini", HIGH, {"reasoning_effort": "high"}),
        (AM, "openai", "o3-mini", HIGH, {"reasoning_effort": "high"}),
        (OC, "openai", "gpt-5", Thinking(effort="none", disabled=True), {"reasoning_effort": "none"}),
        (OC, "openrouter", "anthropic/claude-x", Thinking(budget=2048), {"reasoning": {"max_tokens": 2048}}),
        (OC, "openrouter", "anthropic/claude-x", ON, {"reasoning": {"enabled": True}}),
        (OC, "openrouter", "openai/gpt-5", HIGH, {"reasoning": {"effort": "high"}}),
        (OC, "anthropic", "claude-sonnet-4-5", Thinking(budget=2048), BUDGET),
        (AM, "anthropic", "claude-sonnet-4-5", Thinking(budget=2048), BUDGET),
    ],
)
def test_requests(client: str, type_: str, model: str, thinking: Thinking, told: dict[str, Any]) -> None:
    """The wish reaches every provider's own field, from a client of the same format too."""
    asked = ask(client)
    before = dict(asked.tree)
    named = msgspec.structs.replace(asked, controls=wished(asked.controls, thinking))
    body = sent(named, type_, model).body
    assert isinstance(body, dict)
    assert {name: body.get(name) for name in told} == told
    assert asked.tree == before


@pytest.mark.parametrize("stream", [False, True])
async def test_an_exchange(tmp_path: Path, stream: bool) -> None:
    """Upstream is asked for the model with its effort, the client sees the name that it asked for."""
    listed = (ChannelConfig(name="a", type="openai", models=("o3-mini",)),)
    parts = (chunk({"role": "assistant", "content": "x"}), chunk({"content": "y"}), chunk(finish="stop"))
    script = Script(sse(*parts)) if stream else Script(whole({"content": "xy"}), headers=JSON)
    async with stage(tmp_path, listed, script) as one:
        body = {"model": "o3-mini-high", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
        sink = await one.ask(**body)
        (sent_body,) = one.sent
    assert (sink.status, sent_body["model"], sent_body["reasoning_effort"]) == (200, "o3-mini", "high")
    frames = sink.body.split(b"\n\n") if stream else [b"data: " + sink.body]
    nodes = [orjson.loads(one[6:]) for one in frames if one.startswith(b"data: {")]
    assert {node["model"] for node in nodes} == {"o3-mini-high"}


async def test_names_that_nobody_serves(tmp_path: Path) -> None:
    """A suffix on a name that no channel lists, or on another family's, serves nobody."""
    listed = (ChannelConfig(name="a", type="openai", models=("o3-mini", "gpt-4o")),)
    async with stage(tmp_path, listed) as one:
        for model in ("o1-high", "gpt-4o-high", "o3-mini-thinking"):
            sink = await one.ask(model=model, messages=[{"role": "user", "content": "Hi"}])
            assert sink.status == 503

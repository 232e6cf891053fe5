"""Conversations made up at random reach a provider of the client's own format as they are, but for the model's name.

Each has several turns, tools and their results, thinking, pictures, and at every depth keys that nobody knows. A body
is compared as JSON with the order of its keys, once below the surface and once through the whole house.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import pytest

from tests.fakes import inbound, matrix, rows
from tests.fakes.inbound import PDF, PNG
from tests.fakes.matrix import Theatre
from tests.fakes.scripted import Say

CONVERSATIONS: Final = 1_000
THROUGH: Final = 250  # of each format, through the house
Tree = dict[str, Any]
WORDS: Final = (
    "hello",
    "Grüße",
    "世界 🌍",
    'a "quoted" \\ word',
    "line\nend",
    "\u2028",
    "tab\tand\u0000",
    " ",
    "x" * 300,
)


def text(dice: random.Random) -> str:
    """A few words, never empty."""
    return " ".join(dice.choice(WORDS) for _ in range(dice.randrange(1, 4))) + "."


def value(dice: random.Random, depth: int = 0) -> Any:
    """Any JSON: numbers of every size, texts, nested things."""
    kind = dice.randrange(9 if depth < 3 else 6)
    if kind > 6:
        return {f"k{number}": value(dice, depth + 1) for number in range(dice.randrange(3))}
    if kind == 6:
        return [value(dice, depth + 1) for _ in range(dice.randrange(3))]
    return (None, dice.random() < 0.5, dice.randrange(-(2**63), 2**64), dice.random() * 1e9, text(dice), 0.1)[kind]


def strange(dice: random.Random, node: Tree) -> Tree:
    """The object with keys nobody knows among its own, in any order."""
    extra = {f"x_{dice.randrange(1000)}": value(dice) for _ in range(dice.choice((0, 0, 1, 2)))}
    items = [*node.items(), *extra.items()]
    dice.shuffle(items)
    return dict(items)


def sometimes(dice: random.Random, **fields: Any) -> Tree:
    """Some of the fields."""
    return {name: one for name, one in fields.items() if dice.random() < 0.4}


def schema(dice: random.Random) -> Tree:
    """A JSON schema that no cleaner would leave alone."""
    return {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/c"}, "n": {"type": ["integer", "null"], "minimum": dice.randrange(9)}},
        "$defs": {"c": {"const": text(dice), "allOf": [{"type": "string"}]}},
        "additionalProperties": dice.random() < 0.5,
        "x-own": value(dice),
    }


def arguments(dice: random.Random) -> str:
    """A call's arguments as a model writes them: spaces and all."""
    return dice.choice(('{"city": "Łódź",  "n": 1.0}', "{}", '{"a":{"b":[1,2,{"c":null}]}}', "{broken"))


def object_(dice: random.Random) -> Tree:
    """A call's arguments where they are an object."""
    return {"city": text(dice), "more": value(dice)}


# OpenAI chat.


def chat(dice: random.Random) -> Tree:
    """A body for /v1/chat/completions."""
    messages: list[Tree] = [strange(dice, {"role": dice.choice(("system", "developer")), "content": text(dice)})]
    for turn in range(dice.randrange(1, 5)):
        messages.append(strange(dice, {"role": "user", "content": _chat_content(dice)}))
        if dice.random() < 0.5:
            messages += _chat_calls(dice, turn)
        messages.append(strange(dice, {"role": "assistant", "content": text(dice)}))
    messages.append({"role": "user", "content": text(dice)})
    function = strange(dice, {"name": "weather", "description": text(dice), "parameters": schema(dice)})
    return strange(
        dice,
        {
            "model": "asked",
            "messages": messages,
            "tools": [strange(dice, {"type": "function", "function": function})],
            **sometimes(
                dice,
                temperature=0.7,
                top_p=1,
                seed=7,
                stop=["a", "b"],
                logit_bias={"50256": -100},
                metadata={"k": "v"},
                parallel_tool_calls=False,
                tool_choice={"type": "function", "function": {"name": "weather"}},
                response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema(dice)}},
                user=text(dice),
                max_completion_tokens=64,
                service_tier="flex",
                prediction={"type": "content", "content": text(dice)},
            ),
        },
    )


def _chat_content(dice: random.Random) -> Any:
    if dice.random() < 0.4:
        return text(dice)
    image = {"url": f"data:image/png;base64,{PNG}", **sometimes(dice, detail="low")}
    file = {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}
    parts = [
        {"type": "text", "text": text(dice)},
        {"type": "image_url", "image_url": strange(dice, image)},
        {"type": "file", "file": strange(dice, file)},
        {"type": "input_audio", "input_audio": strange(dice, {"data": "UklGRg==", "format": "wav"})},
        {"type": "x_unknown", "x": value(dice)},
    ]
    return [strange(dice, one) for one in dice.sample(parts, dice.randrange(1, 4))]


def _chat_calls(dice: random.Random, turn: int) -> list[Tree]:
    ids = [f"call_{turn}_{number}" for number in range(dice.randrange(1, 4))]
    calls = [
        strange(
            dice,
            {
                "id": id_,
                "type": "function",
                "function": strange(dice, {"name": "weather", "arguments": arguments(dice)}),
                **sometimes(dice, extra_content={"google": {"thought_signature": "c2ln"}}),
            },
        )
        for id_ in ids
    ]
    details = [{"type": "reasoning.text", "text": text(dice), "signature": "s", "format": "anthropic-claude-v1"}]
    said = sometimes(dice, reasoning_content=text(dice), reasoning_details=details, refusal=None)
    results = [strange(dice, {"role": "tool", "tool_call_id": id_, "content": text(dice)}) for id_ in ids]
    return [strange(dice, {"role": "assistant", "content": None, "tool_calls": calls, **said}), *results]


# Anthropic messages.


def messages(dice: random.Random) -> Tree:
    """A body for /v1/messages."""
    turns: list[Tree] = []
    for turn in range(dice.randrange(1, 4)):
        turns.append(strange(dice, {"role": "user", "content": _blocks(dice)}))
        if dice.random() < 0.6:
            turns += _uses(dice, turn)
        turns.append(strange(dice, {"role": "assistant", "content": [_said(dice)]}))
    turns.append({"role": "user", "content": text(dice)})
    tool = {"name": "weather", "description": text(dice), "input_schema": schema(dice), **_marked(dice)}
    own = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    return strange(
        dice,
        {
            "model": "asked",
            "max_tokens": 4096,
            "messages": turns,
            "system": [strange(dice, {"type": "text", "text": text(dice), **_marked(dice)})],
            "tools": [strange(dice, tool), *([strange(dice, own)] if dice.random() < 0.3 else [])],
            **sometimes(
                dice,
                thinking=strange(dice, {"type": "enabled", "budget_tokens": 2048}),
                metadata={"user_id": "u"},
                stop_sequences=["a"],
                tool_choice={"type": "auto", "disable_parallel_tool_use": True},
                context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
                mcp_servers=[{"type": "url", "url": "https://mcp.example", "name": "m"}],
                container="c_1",
                service_tier="auto",
                output_config={"effort": "low"},
            ),
        },
    )


def _marked(dice: random.Random) -> Tree:
    return sometimes(dice, cache_control={"type": "ephemeral", "ttl": "1h"})


def _said(dice: random.Random) -> Tree:
    return strange(dice, {"type": "text", "text": text(dice), **sometimes(dice, citations=None)})


def _blocks(dice: random.Random) -> Any:
    if dice.random() < 0.3:
        return text(dice)
    blocks = [
        {"type": "text", "text": text(dice), **_marked(dice)},
        {"type": "image", "source": strange(dice, {"type": "base64", "media_type": "image/png", "data": PNG})},
        {"type": "image", "source": {"type": "url", "url": "https://e.example/a.png"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text(dice)}, "title": "T"},
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": text(dice)}]},
        {"type": "x_unknown", "x": value(dice)},
    ]
    return [strange(dice, one) for one in dice.sample(blocks, dice.randrange(1, 4))]


def _uses(dice: random.Random, turn: int) -> list[Tree]:
    ids = [f"toolu_{turn}_{number}" for number in range(dice.randrange(1, 4))]
    thought = {"type": "thinking", "thinking": text(dice), "signature": "EqQBCg=="}
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"encrypted_content": "e"}]}
    asked: list[Tree] = [thought, {"type": "redacted_thinking", "data": "EmwK"}, _said(dice), search, found]
    asked += [{"type": "tool_use", "id": id_, "name": "weather", "input": object_(dice)} for id_ in ids]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    content = dice.choice((text(dice), [{"type": "text", "text": text(dice)}, image]))
    results = [
        {"type": "tool_result", "tool_use_id": id_, "content": content, **sometimes(dice, is_error=True)} for id_ in ids
    ]
    return [
        {"role": "assistant", "content": [strange(dice, one) for one in asked]},
        {"role": "user", "content": [strange(dice, one) for one in results]},
        {"role": "assistant", "content": [_said(dice)]},
        {"role": "user", "content": text(dice)},
    ]


# Gemini.


def contents(dice: random.Random) -> Tree:
    """A body for :generateContent; either spelling of a key, as SDKs mix them."""
    turns: list[Tree] = []
    for _ in range(dice.randrange(1, 4)):
        turns.append(strange(dice, {"role": "user", "parts": _parts(dice)}))
        if dice.random() < 0.6:
            turns += _functions(dice)
        turns.append(strange(dice, {"role": "model", "parts": [{"text": text(dice), "thoughtSignature": "c2ln"}]}))
    turns.append({"role": "user", "parts": [{"text": text(dice)}]})
    declared = strange(dice, {"name": "weather", "description": text(dice), "parametersJsonSchema": schema(dice)})
    settings = sometimes(
        dice,
        temperature=0.5,
        topP=0.9,
        top_k=3,
        candidateCount=1,
        responseMimeType="application/json",
        thinkingConfig={"includeThoughts": True, "thinkingBudget": 128},
        mediaResolution="MEDIA_RESOLUTION_LOW",
        x_own=value(dice),
    )
    return strange(
        dice,
        {
            "contents": turns,
            "tools": [{dice.choice(("functionDeclarations", "function_declarations")): [declared]}],
            dice.choice(("systemInstruction", "system_instruction")): {"parts": [{"text": text(dice)}]},
            dice.choice(("generationConfig", "generation_config")): settings,
            **sometimes(
                dice,
                safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
                toolConfig={"functionCallingConfig": {"mode": "AUTO"}},
                cachedContent="cachedContents/1",
                labels={"team": "a"},
            ),
        },
    )


def _parts(dice: random.Random) -> list[Tree]:
    data = dice.choice(({"mimeType": "image/png", "data": PNG}, {"mime_type": "image/png", "data": PNG}))
    parts = [
        {"text": text(dice)},
        {"inlineData": strange(dice, data)},
        {
            "file_data": {"fileUri": "https://e.example/a.pdf", "mimeType": "application/pdf"},
            "videoMetadata": {"fps": 1},
        },
        {"xUnknown": value(dice)},
    ]
    return [strange(dice, one) for one in dice.sample(parts, dice.randrange(1, 4))]


def _functions(dice: random.Random) -> list[Tree]:
    many = dice.randrange(1, 3)
    calls: list[Tree] = [{"text": text(dice), "thought": True}]
    calls += [
        {"functionCall": {"name": "weather", "args": object_(dice), **sometimes(dice, id="f1")}} for _ in range(many)
    ]
    calls[1]["thoughtSignature"] = "c2ln"
    code = [{"executableCode": {"language": "PYTHON", "code": "1"}}, {"codeExecutionResult": {"outcome": "OUTCOME_OK"}}]
    results = [{"functionResponse": {"name": "weather", "response": object_(dice)}} for _ in range(many)]
    return [
        {"role": "model", "parts": [strange(dice, one) for one in calls]},
        {"role": "user", "parts": [strange(dice, one) for one in results]},
        {"role": "model", "parts": [*code, {"text": text(dice)}]},
        {"role": "user", "parts": [{"text": text(dice)}]},
    ]


# OpenAI Responses.


def items(dice: random.Random) -> Tree:
    """A body for /v1/responses, without stored state."""
    given: list[Tree] = []
    for turn in range(dice.randrange(1, 4)):
        given.append(strange(dice, {"type": "message", "role": "user", "content": _inputs(dice)}))
        if dice.random() < 0.6:
            given += _calls(dice, turn)
        said = strange(dice, {"type": "output_text", "text": text(dice), "annotations": []})
        given.append(strange(dice, {"type": "message", "role": "assistant", "id": f"msg_{turn}", "content": [said]}))
    given.append({"role": "user", "content": text(dice)})
    tool = {"type": "function", "name": "weather", "parameters": schema(dice), "strict": False}
    return strange(
        dice,
        {
            "model": "asked",
            "input": given,
            "store": False,
            "tools": [strange(dice, tool), *dice.sample(HOSTED, dice.randrange(3))],
            **sometimes(
                dice,
                instructions=text(dice),
                reasoning={"effort": "low", "summary": "auto"},
                include=["reasoning.encrypted_content"],
                text={"format": {"type": "text"}, "verbosity": "low"},
                metadata={"k": "v"},
                tool_choice="auto",
                parallel_tool_calls=False,
                prompt_cache_key="k",
                truncation="auto",
                max_output_tokens=900,
            ),
        },
    )


HOSTED: Final = (
    {"type": "web_search"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "mcp", "server_label": "m", "server_url": "https://mcp.example", "require_approval": "never"},
    {"type": "custom", "name": "code", "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}},
)


def _inputs(dice: random.Random) -> Any:
    if dice.random() < 0.3:
        return text(dice)
    parts = [
        {"type": "input_text", "text": text(dice)},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
    ]
    return [strange(dice, one) for one in dice.sample(parts, dice.randrange(1, 3))]


def _calls(dice: random.Random, turn: int) -> list[Tree]:
    thought = {"type": "reasoning", "id": f"rs_{turn}", "summary": [], "encrypted_content": "gAAA"}
    search = {"type": "web_search_call", "id": f"ws_{turn}", "status": "completed", "action": {"type": "search"}}
    out: list[Tree] = [thought, search] if dice.random() < 0.5 else []
    for number in range(dice.randrange(1, 3)):
        id_ = f"call_{turn}_{number}"
        out.append({"type": "function_call", "call_id": id_, "name": "weather", "arguments": arguments(dice)})
        parts = [{"type": "input_text", "text": text(dice)}]
        output = dice.choice((text(dice), parts))
        out.append({"type": "function_call_output", "call_id": id_, "output": output})
    return [strange(dice, one) for one in out]


MADE: Final[dict[str, Callable[[random.Random], Tree]]] = {"OC": chat, "OR": items, "AM": messages, "GG": contents}
HOMES: Final = {
    "OC": (("openai", "gpt-4o", {}), ("together", "model-1", {}), ("custom", "model-1", {}), ("openrouter", "a/b", {})),
    "OR": (("openai", "gpt-5", {}), ("openrouter", "a/b", {})),
    "AM": (("anthropic", "claude-sonnet-4-5", {}),),
    "GG": (("gemini", "gemini-2.5-flash", {}),),
}
PAIRS: Final = [(letter, *home) for letter, homes in HOMES.items() for home in homes]


def made(letter: str, many: int, seed: int) -> Iterator[Tree]:
    """So many conversations, the same every time."""
    for number in range(many):
        dice = random.Random(f"{letter} {seed} {number}")
        tree = MADE[letter](dice)
        if dice.random() < 0.3 and letter != "GG":
            tree["stream"] = True
        yield tree


def unchanged(letter: str, given: Tree, body: Any, model: str) -> None:
    """The body is the client's, byte by byte as JSON, but for what the relay says itself."""
    wanted = dict(given)
    if letter != "GG":
        wanted["model"] = model
    if letter == "OC" and given.get("stream"):
        wanted["stream_options"] = {"include_usage": True}  # asked for here, for the charge
    assert orjson.dumps(body) == orjson.dumps(wanted)


@pytest.mark.parametrize(("letter", "type", "model", "options"), PAIRS, ids=[f"{one[0]}-{one[1]}" for one in PAIRS])
def test_conversations_stay_as_they_are(letter: str, type: str, model: str, options: dict[str, Any]) -> None:
    """T-CORE-001, T-OPEN-001 (OC), T-OPEN-002 (OR): read and written again, nothing is lost, added or moved."""
    for given in made(letter, CONVERSATIONS, 1):
        raw = orjson.dumps(given)
        asked = inbound.surface(letter, bool(given.get("stream"))).read(raw, inbound.headers(letter))
        outgoing = rows.sent(asked, type, model, base_url="https://up.example", **options)
        assert outgoing.dropped == ()
        unchanged(letter, given, outgoing.body, model)
        assert asked.tree == orjson.loads(raw)  # the client's own tree is nobody's to change


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The house with all channels."""
    house = Theatre(tmp_path_factory.mktemp("same"), matrix.channels())
    yield house
    house.close()


@pytest.mark.parametrize("letter", MADE)
def test_conversations_pass_the_house(theatre: Theatre, letter: str) -> None:
    """The same through plan, attempt and relay: the provider's body is the client's, streamed or whole."""
    (one,) = (one for one in matrix.providers() if one.type == HOMES[letter][0][0])
    theatre.client.says(Say(text="Yes."))
    for given in made(letter, THROUGH, 2):
        tree = {**given, "model": one.name} if letter != "GG" else given
        cell = theatre.play(letter, one.name, tree=tree, stream=bool(given.get("stream")))
        assert cell.status == 200, cell.data
        assert cell.shown.text == "Yes."
        unchanged(letter, given, orjson.loads(matrix.raw(cell.sent[-1])), one.model)

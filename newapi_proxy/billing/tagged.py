"""What a prompt is in tokens for models whose prompts are one text with speakers' names and tags for tools: Claude's.

Measured: messages follow each other under a speaker's name, tools stand as sorted JSON between tags behind a text that
explains them, calls and results as tags in the messages. Flat numbers are what is left of recorded usage when all that
is known has been counted; where a maker's text is not public, they stand for it. Source: provider-translation E.5 and
recorded usage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from newapi_proxy.billing import encodings, tiling
from newapi_proxy.billing.rendering import shown, written
from newapi_proxy.billing.tiling import Vocabulary
from newapi_proxy.ir.ask import Ask, Media, Part, Reasoning, ServerBlock, Text, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.wire import tree

_PLAIN: Final = "openai.completions"  # the format that has no messages
_SPEAKERS: Final = ("assistant", "system", "developer")
_AMONG: Final = 22  # a result among several, beside its tool's name
_FAILED: Final = 8  # a result that is an error
_BESIDE: Final = 5  # what is said behind results
_ONE_BY_ONE: Final = 9  # less of an answer where calls may not be parallel
_THINKING: Final = 29
_THINKER: Final = ":thinking"  # how a platform calls a model that thinks unasked
_UNASKED: Final = 12  # before a conversation that the model begins
_SCHEMA: Final = 81  # around the schema of structured output
_DOCUMENT: Final = 38  # around a text document
_TITLE: Final = 9  # around its title
_CITED: Final = 559  # where something is to be cited
THOUGHT: Final = 8  # around a thought of an answer
_THOUGHT: Final = 7  # around one that is shown again
_SEALED: Final = 0.16  # encrypted thoughts: tokens a character
_CLOSED: Final = "encrypted_"  # of a search's results: tokens a character
_ENCRYPTED: Final = 0.3
_PREFIX: Final = "antml:"


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """A model's flat tokens."""

    begin: int = 1  # of a prompt
    turn: int = 3  # of a message, and of an answer
    system: int = 0  # of instructions, where there are no tools
    headed: bool = True  # a space stands before a message's words
    calls: int = 15  # around a message's calls
    results: int = 10  # around its results
    auto: int = 489  # what explains tools that may be called,
    forced: int = 581  # of which one must be,
    named: int = 583  # of which this one must be; likewise where they are not to be called side by side:
    alone: int = 281
    single: int = 584
    adaptive: int = 0  # what says that it is free to think, where no call is demanded
    keeps: bool = False  # thoughts of earlier turns are shown again
    late: int = 0  # what explains tools that are yet to be found
    wordy: float = 1.0  # the factor on what explains the provider's own
    must: int = -16  # what an answer has less where a call is demanded,
    this: int = -18  # and where one by name is


_OLD: Final = Frame(auto=306, forced=308, named=310, single=267)
_HAIKU: Final = Frame(auto=257, forced=333, named=350, alone=257, single=350)
_FREE: Final = Frame(system=1, auto=490, forced=582, named=584, keeps=True)
_NEWEST: Final = Frame(
    begin=2,
    turn=2,
    system=1,
    headed=False,
    calls=1,
    results=4,
    auto=280,
    forced=392,
    named=402,
    alone=280,
    single=402,
    keeps=True,
    late=93,
    wordy=1.4,
    must=-10,
    this=-12,
)
_SONNET: Final = msgspec.structs.replace(_NEWEST, auto=345, forced=457, named=467, alone=345, single=467)
# What explains a tool of the provider's own, by the beginning of its type; the newest models take it for more.
_SERVED: Final = {
    "bash": 244,
    "code_execution_2025": 1296,
    "code_execution_2026": 4130,
    "computer": 1322,
    "memory": 1067,
    "text_editor_20250124": 702,
    "text_editor_20250[4-9]": 764,
    "tool_search_tool_bm25": 189,
    "tool_search_tool_regex": 213,
    "web_fetch": 525,
    "web_search": 1710,
}
_BILLED: Final = "x-anthropic-billing-header:"  # a first instruction that the model is not shown
# First match in the lower-case name wins.
_FRAMES: Final[tuple[tuple[re.Pattern[str], Frame], ...]] = tuple(
    (re.compile(pattern), frame)
    for pattern, frame in (
        (r"(opus|claude)-4[-.]7", msgspec.structs.replace(_NEWEST, begin=1, turn=5, system=0, headed=True)),
        (r"sonnet-[5-9](?!\d)|claude-[5-9]-sonnet", _SONNET),
        (r"(opus|claude)-4[-.][89]|claude-([a-z]+-)?[5-9](?!\d)", _NEWEST),
        (r"opus-4[-.]6", msgspec.structs.replace(_FREE, adaptive=17)),
        (r"[a-z]+-4[-.]6", _FREE),
        (r"opus-4[-.]5", Frame(keeps=True)),
        (r"[a-z]+-4[-.]5", Frame()),
        (r"-4(?!\d)|3[-.]7", _OLD),
        (r"3[-.]5-sonnet-20240620", Frame(auto=287, forced=254, named=271, alone=287, single=271)),
        (r"3[-.]5-sonnet", _OLD),
        (r"3-opus", Frame(auto=526, forced=274, named=291, alone=526, single=291)),
        (r"3-sonnet", Frame(auto=152, forced=228, named=245, alone=152, single=245)),
        (r"claude-3", _HAIKU),
        (r"claude-(instant|v?[12])", msgspec.structs.replace(_HAIKU, turn=4)),
        (r"", _NEWEST),
    )
)


def _known(model: str) -> tuple[Frame, Vocabulary]:
    name = encodings.bare(model)
    return next(frame for pattern, frame in _FRAMES if pattern.search(name)), tiling.load(tiling.generation(name))


def counted(ask: Ask, model: str) -> int:
    """The prompt's tokens but for its media. Raises OurError when the vocabulary is unusable."""
    frame, words = _known(model)
    if ask.dialect == _PLAIN:
        return sum(words.count("".join(map(written, turn.parts))) for turn in ask.turns)
    leading = ask.leading()
    system = [part.text for turn in ask.turns[:leading] for part in turn.parts if isinstance(part, Text) and part.text]
    turns = (ask.turns if frame.keeps else shown(ask))[leading:]
    if system and system[0].startswith(_BILLED):
        system = system[1:]
    before = _offered(ask, frame, words) if ask.tools else 0
    if _thinks(ask) or model.endswith(_THINKER):
        before += _THINKING + (1 if before else 0)
    total = frame.begin + before + _instructed(system, bool(before), words)
    formed = _formed(ask, bool(before or system), words)
    total += formed + (frame.system if (system or formed) and not before else 0)
    if ask.choice is not None and ask.choice.mode in ("required", "named"):
        total -= bool(turns) and any(isinstance(part, ToolResult) for part in turns[-1].parts)
    elif ask.controls.thinking is not None and ask.controls.thinking.adaptive:
        total += frame.adaptive
    total += _UNASKED if turns and turns[0].role == "assistant" else 0
    total += _CITED if any(_cites(part) for turn in turns for part in turn.parts) else 0
    return total + _spoken(turns, frame, words)


def answered(said: str, calls: Sequence[tuple[str, str]], model: str, ask: Ask | None, *, ended: bool) -> int:
    """An answer's tokens: its words and its calls (name, arguments), and where it has `ended` what is around them.

    What a request demands is not the model's own: `ask` is the request, where it is known. What came of an answer is
    never more than it would be at its end.
    """
    frame, words = _known(model)
    came = (words.said(said, headed=frame.headed) if said else 0) + sum(words.count(_call(*call)) for call in calls)
    total = came + frame.turn + (frame.calls + len(calls) if calls else 0)
    if calls and ask is not None:
        if ask.choice is not None and ask.choice.mode == "named":
            total += frame.this - words.count(calls[0][0])
        elif ask.choice is not None and ask.choice.mode == "required":
            total += frame.must
        total = max(0, total - (_ONE_BY_ONE if ask.controls.parallel_tools is False else 0))
    return total if ended else min(came, total)


def _offered(ask: Ask, frame: Frame, words: Vocabulary) -> int:
    """What is said of the tools: how to call, and each that the model sees from the beginning or has found."""
    late = {tool.name for tool in ask.tools if _deferred(ask, tool)}
    hidden = late.difference(_found(ask.tree.get("messages"))) if late else late
    seen = [tool for tool in ask.tools if tool.name not in hidden]
    served = round(frame.wordy * sum(flat for tool in seen for flat in _served(tool)))
    return _explained(ask, frame, words) + words.count(_listed(seen)) + served + (frame.late if late else 0)


def _explained(ask: Ask, frame: Frame, words: Vocabulary) -> int:
    """What is said about tools, by what may be called."""
    one = ask.controls.parallel_tools is False
    if ask.choice is None or ask.choice.mode in ("auto", "none"):
        return frame.alone if one else frame.auto
    if ask.choice.mode == "named" and ask.choice.name:
        return (frame.single if one else frame.named) + words.count(ask.choice.name)
    return frame.forced + (frame.single - frame.named if one else 0)


def _served(tool: Tool) -> Iterator[int]:
    if tool.kind == "server":
        yield from (flat for kind, flat in _SERVED.items() if re.match(kind, tool.name))


def _listed(tools: Iterable[Tool]) -> str:
    rows = (f"<function>{tree.spaced(_row(tool))}</function>\n" for tool in tools if tool.kind != "server")
    return f"<functions>\n{''.join(rows)}</functions>"


def _row(tool: Tool) -> dict[str, object]:
    row: dict[str, object] = {"name": tool.name, "parameters": tool.schema or {"type": "object", "properties": {}}}
    return row | ({"description": tool.description} if tool.description else {})


def _deferred(ask: Ask, tool: Tool) -> bool:
    """Whether the model does not see a tool before it has looked for it."""
    own = tree.find(ask.tree, tool.path)
    return isinstance(own, dict) and own.get("defer_loading") is True


def _found(value: object) -> Iterator[str]:
    """The names of deferred tools that the conversation has found."""
    match value:
        case {"type": "tool_reference", **named}:
            yield str(named.get("tool_name", named.get("name")))
        case dict():
            for one in value.values():
                yield from _found(one)
        case list():
            for one in value:
                yield from _found(one)


def _thinks(ask: Ask) -> bool:
    """Whether a prompt says how to think: by a budget, or by an effort that becomes one on the way."""
    thinking = ask.controls.thinking
    if thinking is None or thinking.disabled:
        return False
    own = "thinking" in ask.tree or "output_config" in ask.tree  # then an effort is sent as it is
    bare = thinking.effort is None and not thinking.adaptive  # asked for, and no word on how much
    return bool(thinking.budget) or (not own and (bare or thinking.effort not in (None, "none")))


def _instructed(blocks: Sequence[str], behind: bool, words: Vocabulary) -> int:
    """The system's blocks, an empty line between them and before them where they stand `behind` something."""
    total = 0
    for number, block in enumerate(blocks):
        total += words.said(f"\n\n{block}" if number or behind else block, headed=False)
    return total


def _formed(ask: Ask, behind: bool, words: Vocabulary) -> int:
    form = ask.controls.format
    if form is None or form.kind != "json_schema":
        return 0
    return _SCHEMA + behind + words.count(tree.indented(form.schema))


def _messages(turns: Sequence[Turn]) -> Iterator[tuple[str, list[Turn]]]:
    """What one speaker says in a row, which is one message; results are the user's."""
    for speaker, group in groupby(turns, lambda turn: turn.role if turn.role in _SPEAKERS else "user"):
        yield speaker, list(group)


def _spoken(turns: Sequence[Turn], frame: Frame, words: Vocabulary) -> int:
    """The messages, and the beginning of the answer where the last one is not that."""
    total, last = 0, ""
    names = {part.id: part.name for turn in turns for part in turn.parts if isinstance(part, ToolCall)}
    for speaker, group in _messages(turns):
        parts = [part for turn in group for part in turn.parts]
        total += frame.turn + sum(_parts(group, frame, words)) + _called(parts, frame, words)
        total += _returned(parts, names, frame, words)
        last = speaker
    return total + (0 if last == "assistant" else frame.turn)


def _parts(turns: Sequence[Turn], frame: Frame, words: Vocabulary) -> Iterator[int]:
    """The tokens of a message's texts, and of the empty line between its turns."""
    begun = False
    for turn in turns:
        for number, part in enumerate(one for one in turn.parts if not isinstance(one, (ToolCall, ToolResult))):
            if isinstance(part, Reasoning) and part.data is not None:
                yield round(_SEALED * len(part.data))
            elif isinstance(part, Media):
                yield 0 if part.text is None else _document(part, words)
            elif isinstance(part, ServerBlock):
                yield words.count(tree.dumps(_open(part.value)))
                yield round(frame.wordy * _ENCRYPTED * sum(_closed(part.value)))
            elif isinstance(part, Reasoning):
                yield _THOUGHT + words.said(part.text, headed=frame.headed)
            elif begun and not number:
                yield words.said(f"\n\n{written(part)}", headed=False)
            else:
                yield words.said(written(part), headed=frame.headed)
            begun = True


def _cites(part: Part) -> bool:
    """Whether a text document is to be cited."""
    if not isinstance(part, Media) or part.text is None or part.extra is None:
        return False
    wish = part.extra.get("citations")
    return isinstance(wish, dict) and wish.get("enabled") is True


def _shown(part: Part, words: Vocabulary) -> int:
    if isinstance(part, Media) and part.text is not None:
        return _document(part, words)
    return words.count(written(part))


def _document(document: Media, words: Vocabulary) -> int:
    """A text that came as a document."""
    title = _TITLE + words.count(document.filename) if document.filename else 0
    return _DOCUMENT + title + words.count(document.text or "")


def _open(value: Any) -> Any:
    """A block without what is encrypted in it."""
    match value:
        case dict():
            return {name: _open(one) for name, one in value.items() if not name.startswith(_CLOSED)}
        case list():
            return [_open(one) for one in value]
        case _:
            return value


def _closed(value: object) -> Iterator[int]:
    """How long the encrypted texts of a block are."""
    match value:
        case dict():
            for name, one in value.items():
                if name.startswith(_CLOSED) and isinstance(one, str):
                    yield len(one)
                else:
                    yield from _closed(one)
        case list():
            for one in value:
                yield from _closed(one)


def _called(parts: Iterable[Part], frame: Frame, words: Vocabulary) -> int:
    calls = [_call(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]
    return (frame.calls if calls else 0) + sum(map(words.count, calls))


def _returned(parts: Sequence[Part], names: dict[str, str], frame: Frame, words: Vocabulary) -> int:
    """A message's results; several are told apart by their tools' names."""
    results = [part for part in parts if isinstance(part, ToolResult)]
    if not results:
        return 0
    total = frame.results + (_BESIDE if len(results) < len(parts) else 0)
    for result in results:
        total += sum(_shown(part, words) for part in result.parts) + (_FAILED if result.is_error else 0)
        if len(results) > 1:
            total += _AMONG + words.count(result.name or names.get(result.id, ""))
    return total


def _call(name: str, arguments: str) -> str:
    """A call as its tags."""
    return f'<{_PREFIX}invoke name="{name}">\n{"".join(_arguments(arguments))}</{_PREFIX}invoke>'


def _arguments(arguments: str) -> Iterator[str]:
    read = tree.within(arguments) if arguments else {}
    if read is None:  # of an answer that broke off
        read = tree.begun(arguments)
    for name, value in (read if isinstance(read, dict) else {"": arguments}).items():
        said = value if isinstance(value, str) else tree.spaced(value, ordered=False)
        yield f'<{_PREFIX}parameter name="{name}">{said}</{_PREFIX}parameter>\n'

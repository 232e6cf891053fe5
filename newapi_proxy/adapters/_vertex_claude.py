"""Claude on Vertex: Anthropic's Messages with the model in the path, betas in the body and no addresses in it.

Pure; addresses and the record stand in `vertex`. Source: provider-translation B.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import anthropic
from newapi_proxy.adapters._anthropic_messages import MARKS
from newapi_proxy.adapters._anthropic_request import Built
from newapi_proxy.adapters._inlining import inlined
from newapi_proxy.adapters.base import Target
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Media, Part, ToolResult
from newapi_proxy.wire import tree

Tree = dict[str, Any]

VERSION: Final = "vertex-2023-10-16"
_DATED: Final = re.compile(r"(claude-.+)-(20\d{6})")
# Anthropic tells the two 3.5 Sonnets apart by their dates, Google by a name of its own for the second.
_RENAMED: Final = {"claude-3-5-sonnet@20241022": "claude-3-5-sonnet-v2@20241022"}
_LACKING: Final = ("web_fetch", "advisor", "mcp_")  # how the types of server tools begin that only Anthropic itself has
_THOUGHTS: Final = ("thinking", "redacted_thinking")


def is_claude(model: str) -> bool:
    """Whether the model is one of these."""
    return name(model).startswith("claude")


def name(model: str) -> str:
    """Vertex's name of the model: the date behind an @; one that has it already stays as it is."""
    model = model.removeprefix("anthropic/")
    dated = model if "@" in model else _DATED.sub(r"\1@\2", model, count=1)
    return _RENAMED.get(dated, dated)


def built(ask: Ask, to: Target) -> Built:
    """The body for the ask. Raises Unsupported with the path of what Claude can do elsewhere only."""
    for tool in ask.tools:
        if tool.kind == "server" and tool.name.startswith(_LACKING):
            raise Unsupported(f"Claude on Vertex has no {tool.name} ({tool.path}).", tool.path)
    for medium in _media(ask):
        if medium.file_id is not None:
            raise _refused(medium, "knows no uploaded files")
        if medium.url is not None and medium.data is None:
            raise _refused(medium, "takes bytes only, and this address was not fetched")
    if ask.fetched:
        ask = _by_bytes(ask)  # before anything moves in the tree: media are found by their paths in it
    draft = anthropic.build(ask, to)
    body = {"anthropic_version": VERSION, **draft.body}
    body["anthropic_version"] = VERSION
    given = body.pop("anthropic_beta", None)
    own = [*draft.betas, *(one for one in given if isinstance(one, str))] if isinstance(given, list) else draft.betas
    wanted = anthropic.betas(ask, (*own, *to.options.beta))
    if wanted:
        body["anthropic_beta"] = wanted
    return Built(body=_marked(body), dropped=draft.dropped)


def _refused(medium: Media, why: str) -> Unsupported:
    return Unsupported(f"Claude on Vertex {why} ({medium.path or medium.kind}).", medium.path, "unsupported_content")


def _media(ask: Ask) -> Iterator[Media]:
    for part in (part for turn in ask.turns for part in turn.parts):
        inside = part.parts if isinstance(part, ToolResult) else (part,)
        yield from (one for one in inside if isinstance(one, Media))


# A client's own body goes up as its tree, everybody else's is built from the turns: both must know the bytes.
def _by_bytes(ask: Ask) -> Ask:
    """The ask with the bytes of what was fetched and no address left, in the client's own tree as well."""
    body = inlined(ask.tree, ask.turns) if ask.dialect == anthropic.DIALECT else ask.tree
    turns = tuple(
        turn if turn.plain else msgspec.structs.replace(turn, parts=tuple(_bare(part) for part in turn.parts))
        for turn in ask.turns
    )
    return msgspec.structs.replace(ask, tree=body, turns=turns)


def _bare(part: Part) -> Any:
    if isinstance(part, ToolResult):
        return msgspec.structs.replace(part, parts=tuple(_bare(one) for one in part.parts))
    if isinstance(part, Media) and part.data is not None and part.url is not None:
        return msgspec.structs.replace(part, url=None)
    return part


# Caching of the whole prompt by one mark at the top is not known here: the mark goes to the prompt's last block.
def _marked(body: Tree) -> Tree:
    if "cache_control" not in body:
        return body
    body = dict(body)
    mark = body.pop("cache_control")
    place = _last(body)
    if not isinstance(mark, dict) or place is None or tree.encode(body).count(b'"cache_control":') >= MARKS:
        return body
    block = tree.find(body, place)
    if isinstance(block, str):
        return tree.put(body, place, [{"type": "text", "text": block, "cache_control": mark}])
    return tree.default(body, f"{place}.cache_control", mark)


def _last(body: Tree) -> str | None:
    """Where the last block stands that may carry a mark."""
    messages = body.get("messages")
    places = [f"messages.{index}.content" for index in range(len(messages if isinstance(messages, list) else ()))]
    for place in [*reversed(places), "system"]:
        content = tree.find(body, place)
        if isinstance(content, str) and content.strip():
            return place
        for index in reversed(range(len(content if isinstance(content, list) else ()))):
            if _markable(content[index]):
                return f"{place}.{index}"
    tools = body.get("tools")
    return f"tools.{len(tools) - 1}" if isinstance(tools, list) and tools else None


def _markable(block: Any) -> bool:
    if not isinstance(block, dict) or block.get("type") in _THOUGHTS:
        return False
    return block.get("type") != "text" or bool(str(block.get("text", "")).strip())

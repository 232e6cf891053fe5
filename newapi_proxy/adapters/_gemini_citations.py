"""What an answer rests on: grounding and citations as places in its text.

Offsets come as bytes of UTF-8 and go as characters. Source: provider-translation B.2, A.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

Tree = dict[str, Any]

MOST: Final = 200  # citations of one answer
_SOURCES: Final = ("web", "retrievedContext", "maps")


def citations(grounding: Any, cited: Any, text: str | None) -> list[Tree]:
    """The citations as `{url, title, start, end, cited_text}`; without places where `text` is not known."""
    found = [*_grounded(grounding), *_recited(cited)]
    places = _places([one[at] for one in found for at in ("start", "end") if at in one], text)
    out: list[Tree] = []
    for one in found:
        placed = _placed(one, places, text)
        if placed not in out:
            out.append(placed)
        if len(out) == MOST:
            break
    return out


def _grounded(grounding: Any) -> Iterator[Tree]:
    """Each support with each of its sources; the bare sources where there are no supports."""
    if not isinstance(grounding, dict):
        return
    sources = [_source(chunk) for chunk in _dicts(grounding.get("groundingChunks"))[:MOST]]
    supports = _dicts(grounding.get("groundingSupports"))[:MOST]
    for support in supports:
        segment = support.get("segment")
        place = _segment(segment if isinstance(segment, dict) else {})
        numbers = support.get("groundingChunkIndices")
        for number in numbers[:MOST] if isinstance(numbers, list) else ():
            if type(number) is int and 0 <= number < len(sources) and sources[number]:
                yield {**sources[number], **place}
    if not supports:
        yield from (source for source in sources if source)


def _source(chunk: Tree) -> Tree:
    for name in _SOURCES:
        told = chunk.get(name)
        if isinstance(told, dict) and isinstance(told.get("uri"), str) and told["uri"]:
            title = told.get("title")
            return {"url": told["uri"], "title": title if isinstance(title, str) else ""}
    return {}


def _recited(cited: Any) -> Iterator[Tree]:
    """Sources that the model repeats word for word."""
    for one in _dicts(cited.get("citations") if isinstance(cited, dict) else None)[:MOST]:
        if isinstance(one.get("uri"), str) and one["uri"]:
            title = one.get("title")
            place = _segment(one) if "endIndex" in one else {}
            yield {"url": one["uri"], "title": title if isinstance(title, str) else "", **place}


def _segment(segment: Tree) -> Tree:
    """Start and end in bytes; a start that is zero is left out upstream."""
    start, end, text = segment.get("startIndex", 0), segment.get("endIndex"), segment.get("text")
    place: Tree = {"cited_text": text} if isinstance(text, str) else {}
    if type(start) is int and type(end) is int and 0 <= start <= end:
        place |= {"start": start, "end": end}
    return place


def _places(offsets: Iterable[int], text: str | None) -> dict[int, int]:
    """Characters before each offset in bytes; none where the text is not known."""
    if text is None:
        return {}
    raw = text.encode("utf-8", "replace")
    places: dict[int, int] = {}
    at = count = 0
    for offset in sorted(set(offsets)):
        count += len(raw[at:offset].decode("utf-8", "ignore"))
        at = min(offset, len(raw))
        places[offset] = count
    return places


# Offsets count from a part's beginning, and in streams nobody says which part that is: the words themselves decide.
def _placed(one: Tree, places: dict[int, int], text: str | None) -> Tree:
    start, end = places.get(one.get("start", -1)), places.get(one.get("end", -1))
    rest = {name: value for name, value in one.items() if name not in ("start", "end")}
    words = one.get("cited_text")
    if words and text is not None and (start is None or end is None or text[start:end] != words):
        found = text.find(words)
        start, end = (found, found + len(words)) if found >= 0 else (start, end)
    return rest if start is None or end is None else {**rest, "start": start, "end": end}


def _dicts(value: Any) -> list[Tree]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []

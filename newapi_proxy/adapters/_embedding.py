"""Embeddings for providers of formats of their own: the texts, how many at once, what is left out of a request.

Knows no provider. Source: provider-translation A.3, A.0.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters.base import Target
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Failed, Metered, Started, Yielded
from newapi_proxy.ir.matter import Embed, Vector
from newapi_proxy.ir.usage import Usage

Node = dict[str, Any]
CLIENT: Final = "openai.embeddings"  # the format in which clients may name a provider's own settings
_OURS: Final = frozenset({"model", "input", "dimensions", "encoding_format"})  # what the request itself says, or we do


def matter(ask: Ask) -> Embed:
    """What is asked for."""
    assert isinstance(ask.matter, Embed)
    return ask.matter


def texts(ask: Ask) -> list[str]:
    """The inputs as texts. Raises Unsupported for what is none: token numbers were made texts before, if they could."""
    found = []
    for place, one in enumerate(matter(ask).inputs):
        text = one.get("text") if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise Unsupported("Only texts can be embedded here.", f"input.{place}", "unsupported_content")
        found.append(text)
    return found


def own(ask: Ask, names: Iterable[str]) -> Node:
    """The provider's own settings that the client named; one of Google's format has none of them."""
    if ask.kind == "embeddings" and ask.dialect != CLIENT:
        return {}
    return {name: ask.tree[name] for name in names if ask.tree.get(name) is not None}


def left_out(ask: Ask, names: Iterable[str] = ()) -> tuple[str, ...]:
    """What the client named and the provider, which takes `names` besides, is not given."""
    if ask.dialect != CLIENT:
        return ()
    known = _OURS | set(names)
    return tuple(name for name, value in ask.tree.items() if name not in known and value is not None)


def at_most(most: int) -> Callable[[Ask, Target], Sequence[Ask]]:
    """Batches of so many inputs."""
    return lambda ask, to: split(ask, most)


def split(ask: Ask, most: int) -> Sequence[Ask]:
    """The ask as several of at most so many inputs each."""
    whole = matter(ask)
    if len(whole.inputs) <= most:
        return (ask,)
    parts = [whole.inputs[start : start + most] for start in range(0, len(whole.inputs), most)]
    return [msgspec.structs.replace(ask, matter=msgspec.structs.replace(whole, inputs=part)) for part in parts]


def vectors(ask: Ask, rows: Any, told: Any, prompt: int | None) -> Sequence[Event]:
    """The events of an answer whose vectors are `rows`, one an input; without them it is the failure that `told` says.

    `prompt`: the tokens that upstream states, None or 0 where it does not.
    """
    if type(rows) is not list or len(rows) != len(matter(ask).inputs) or not all(type(row) is list for row in rows):
        said = _failures.told(told)
        if said is not None:
            return (Failed(_failures.inband(said)),)
        detail = f"{len(rows)} vectors" if type(rows) is list else "no list of vectors"
        return (Failed(UpstreamFailure("The provider's answer holds no vectors.", upstream_status=502, detail=detail)),)
    events: list[Event] = [Started()]
    events += [Yielded(Vector(row, place)) for place, row in enumerate(rows)]
    if prompt:
        events.append(Metered(Usage(prompt=prompt)))
    return events

"""Token numbers made the text they are, for a provider that takes texts only. Source: provider-translation A.3."""

from __future__ import annotations

import asyncio

import msgspec

from newapi_proxy.adapters.base import Adapter
from newapi_proxy.billing import encodings
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.matter import Embed


async def worded(ask: Ask, adapter: Adapter) -> Ask:
    """The ask with texts alone; itself where it has no token numbers or the provider takes them.

    Raises Unsupported for numbers of an encoding that nobody here knows.
    """
    matter, endpoint = ask.matter, adapter.embeddings
    if not isinstance(matter, Embed) or endpoint is None or endpoint.tokens:
        return ask
    if not any(isinstance(one, tuple) for one in matter.inputs):
        return ask
    # the tables take long to load, and lists may be long: never on the event loop
    texts = await asyncio.get_running_loop().run_in_executor(None, _texts, matter, ask.model)
    return msgspec.structs.replace(
        ask, matter=msgspec.structs.replace(matter, inputs=texts), tree={**ask.tree, "input": list(texts)}
    )


def _texts(matter: Embed, model: str) -> tuple[str, ...]:
    texts = []
    for one in matter.inputs:
        text = encodings.words(one, model) if isinstance(one, tuple) else one
        if not isinstance(text, str):
            raise Unsupported("This provider takes texts, not token numbers.", "input")
        texts.append(text)
    return tuple(texts)

"""Media brought to a provider before the request that names them, where it takes files by its own ids only.

Knows the port, no network; what an upload says stands in the adapter's `uploads`. Source: provider-translation B.9.
"""

from __future__ import annotations

from typing import Final

import msgspec

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media
from newapi_proxy.ports import Client, Interrupt
from newapi_proxy.relay.attempt import Prepared
from newapi_proxy.wire import tree

ANSWER: Final = 64 * 1024  # bytes of an upload's answer
DONE: Final = (200, 201)


async def uploaded(client: Client, prepared: Prepared, interrupt: Interrupt, *, connect_timeout: float) -> Ask:
    """The attempt's ask with ids in place of bytes; the ask itself where nothing has to be uploaded.

    Raises UpstreamFailure for an upload that fails, Unsupported for a medium that is broken, `interrupt.cause`.
    """
    uploads, ask = prepared.candidate.channel.adapter.uploads, prepared.ask
    assert uploads is not None
    wanted = [part for turn in ask.turns for part in turn.parts if isinstance(part, Media) and uploads.wanted(part)]
    if not wanted:
        return ask
    ids: dict[str | None, str] = {}  # what a client sends twice is uploaded once
    for medium in wanted:
        if medium.data not in ids:
            ids[medium.data] = await _upload(client, prepared, medium, interrupt, connect_timeout)
    turns = []
    for turn in ask.turns:
        parts = tuple(
            msgspec.structs.replace(part, data=None, file_id=ids[part.data])
            if isinstance(part, Media) and uploads.wanted(part)
            else part
            for part in turn.parts
        )
        turns.append(msgspec.structs.replace(turn, parts=parts))
    return msgspec.structs.replace(ask, turns=tuple(turns))


async def _upload(
    client: Client, prepared: Prepared, medium: Media, interrupt: Interrupt, connect_timeout: float
) -> str:
    channel = prepared.candidate.channel
    uploads = channel.adapter.uploads
    assert uploads is not None
    outgoing = uploads.request(medium, prepared.ask, prepared.target)
    incoming = await client.open(outgoing, interrupt, connect_timeout=connect_timeout, proxy=channel.proxy)
    try:
        body = await incoming.whole(ANSWER)
    finally:
        incoming.close()
    if incoming.status not in DONE:
        raise prepared.dialect.failure(incoming.status, incoming.headers, body)
    found = uploads.file_id(tree.Document(body))
    if found is None:
        raise UpstreamFailure("The upstream took a file and gave no id for it.", detail=f"{len(body)} bytes")
    return found

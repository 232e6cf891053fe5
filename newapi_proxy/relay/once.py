"""One answer for one Idempotency-Key: the first request runs, the same one again is told the same bytes for nothing.

Another request under the key is refused, one that still runs is to be waited for. What was charged is kept, in the
transaction of the charge, a stream that broke off as well; what ended without a charge frees the key. Keys are the
token's own. Sources: user-demands B11, reliability RF4, §2.4.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from newapi_proxy.errors import ClientError, OurError, ProxyError
from newapi_proxy.ports import Sink
from newapi_proxy.relay import exchange
from newapi_proxy.relay.house import House
from newapi_proxy.relay.keeping import Keeping, unpacked
from newapi_proxy.relay.record import Record, Visit
from newapi_proxy.relay.settle import noted
from newapi_proxy.store import replies
from newapi_proxy.surfaces.base import PATH, QUERY, Surface
from newapi_proxy.surfaces.endpoint import asked as read_asked
from newapi_proxy.wire import tree
from newapi_proxy.wire.multipart import Form

HEADER: Final = "Idempotency-Key"
LONGEST: Final = 255
PATIENCE: Final = 30.0  # seconds; the longest that a copy is told to wait
LIGHT: Final = 256 * 1024  # bytes that are read over on the loop; more in a thread
_NAME: Final = HEADER.lower()
_SANE: Final = re.compile(rf"[\x21-\x7e]{{1,{LONGEST}}}")
_BOUNDARY: Final = re.compile(r"multipart/[^;]+;.*\bboundary=\"?([^\";]+)", re.IGNORECASE)


class Told(msgspec.Struct, frozen=True):
    """What the first request under the key was answered."""

    found: replies.Found
    body: bytes

    def tell(self, record: Record, sink: Sink) -> None:
        """The same bytes once more, noted as what they are."""
        found = self.found
        record.replay_of = found.owner
        record.status = found.status
        record.first_byte()
        headers = [(name, value) for name, value in tree.lenient(found.headers.encode())]
        headers.append(("idempotent-replayed", "true"))
        if found.streamed:
            sink.start(found.status, headers)
            sink.end(self.body)
        else:
            sink.whole(found.status, headers, self.body)


async def chat(
    house: House, visit: Visit, surface: Surface, body: bytes | Form, headers: Mapping[str, str], sink: Sink
) -> None:
    """Answers one request that brings an idempotency key; see exchange.chat."""
    record: Record | None = Record(visit, house.clock)
    try:
        async with turn(house, visit, body, headers, sink) as mine:
            if isinstance(mine, Keeping):
                record = None  # the exchange has one of its own
                visit = msgspec.structs.replace(visit, keeping=mine)
                await exchange.chat(house, visit, surface, body, headers, mine)
                return
        assert record is not None
        _named(record, surface, body, headers)
        mine.tell(record, sink)
    except ProxyError as error:
        record = record or Record(visit, house.clock)
        exchange.tell(visit, surface, sink, error, record, None)
    except BaseException:
        if record is not None:
            record.broke()
        raise
    finally:
        if record is not None:
            record.finish()


@asynccontextmanager
async def turn(
    house: House, visit: Visit, body: bytes | Form, headers: Mapping[str, str], sink: Sink
) -> AsyncIterator[Keeping | Told]:
    """The request's turn under its key: a sink that keeps what it is answered, where it may run, else what the first
    one was answered. Leaving without a charge frees the key. Raises ProxyError for every other way to stand there."""
    assert visit.token is not None
    place = replies.Place(visit.token.account.token_id, _key(headers))
    claim = replies.Claim(
        request_id=f"{place.token_id}/{place.key}",
        place=place,
        owner=visit.request_id,
        fingerprint=await fingerprint(visit, body, headers),
        boot=house.boot,
        at=int(house.clock.wall()),
    )
    found = await _claimed(house, claim)
    if found is not None:
        with _room(house, found):
            yield Told(found, await _kept(house, claim, found))
            if found.size > LIGHT:
                await sink.drain()
        return
    how = (visit.snapshot or house.snapshot).config.idempotency
    keeping = Keeping(sink, place, visit.request_id, house.shelf, how)
    try:
        yield keeping
    finally:
        keeping.close()
        if not keeping.settled:
            _release(house, claim)


@contextmanager
def _room(house: House, found: replies.Found) -> Iterator[None]:
    """Memory for an answer that is told again, until its client has taken it. Raises OurError where it is short."""
    memory = house.memory
    size = min(found.size, memory.most // 4) if found.state == "kept" and found.size > LIGHT else 0
    if not memory.lend(size):
        raise OurError(
            "Too many large answers are being told: try again.", status=503, code="overloaded", retry_after=1.0
        )
    try:
        yield
    finally:
        memory.back(size)


def _key(headers: Mapping[str, str]) -> str:
    """A digest of the key, so that what a client puts into it stands nowhere. Raises ClientError."""
    text = headers.get(HEADER) or headers.get(_NAME) or ""
    if not _SANE.fullmatch(text):
        message = f"An idempotency key has 1 to {LONGEST} printable ASCII characters, without blanks."
        raise ClientError(message, code="invalid_idempotency_key", param=HEADER)
    return _digest(text.encode())


async def fingerprint(visit: Visit, body: bytes | Form, headers: Mapping[str, str]) -> str:
    """A digest of what is asked: the route with what stands in its place, and the body to the byte. Clients draw a new
    boundary for each copy of a form, so that is left out."""
    query = [pair for pair in parse_qsl(headers.get(QUERY, ""), max_num_fields=100) if pair[0] != "key"]
    asked = repr((visit.method, visit.route, headers.get(PATH, ""), query)).encode()
    if isinstance(body, Form):
        return await asyncio.get_running_loop().run_in_executor(None, _form_digest, asked, body)
    boundary = _BOUNDARY.match(headers.get("content-type", ""))
    if boundary is not None:
        body = body.replace(b"--" + boundary[1].encode("utf-8", "surrogateescape"), b"--")
    if len(body) <= LIGHT:
        return _digest(asked, body)
    return await asyncio.get_running_loop().run_in_executor(None, _digest, asked, body)


def _digest(*pieces: bytes) -> str:
    whole = sha256()
    for piece in pieces:
        whole.update(len(piece).to_bytes(8) + piece)
    return urlsafe_b64encode(whole.digest()).decode().rstrip("=")


def _form_digest(asked: bytes, form: Form) -> str:
    whole = sha256(asked + tree.encode(form.fields))
    for file in form.files:
        whole.update(len(file.head).to_bytes(8) + file.head + file.size.to_bytes(8))
        for at in range(0, file.size, LIGHT):
            whole.update(file.read(at, LIGHT))
    return urlsafe_b64encode(whole.digest()).decode().rstrip("=")


async def _claimed(house: House, claim: replies.Claim) -> replies.Found | None:
    try:
        return await house.db.write(replies.claim, claim)
    except asyncio.CancelledError:
        _release(house, claim)  # the claim is in the queue, and what is queued after it finds it
        raise


def _release(house: House, claim: replies.Claim) -> None:
    house.db.write(replies.release, claim, must=True).add_done_callback(noted)


async def _kept(house: House, claim: replies.Claim, found: replies.Found) -> bytes:
    """What the first request was answered. Raises ClientError where it was another, still runs, or was not kept."""
    if found.fingerprint != claim.fingerprint:
        message = "This idempotency key was used for another request."
        raise ClientError(message, status=422, code="idempotency_key_reused", param=HEADER)
    if found.state == "large":
        raise ClientError(
            f"The answer to this request could not be kept, as it was too large for the memory or the configuration, "
            f"or broke off; it was charged as {found.owner}.",
            status=409,
            code="idempotency_answer_too_large",
            param=HEADER,
        )
    body = found.body
    if found.state == "kept" and body is None:
        body = await house.db.read(lambda conn: replies.load(conn, claim.place, found.owner))
    if body is None:  # it runs, or has been freed in this moment
        # as long as it has taken so far: SDKs ask twice more, and the first of them should not be in vain
        wait = min(max(1.0, float(claim.at - found.at)), PATIENCE)
        message = "The request with this idempotency key is still being answered: ask again."
        raise ClientError(message, status=409, code="idempotency_in_flight", param=HEADER, retry_after=wait)
    if not found.streamed:
        return body
    if found.size <= LIGHT:
        return unpacked(body, found.size)
    return await asyncio.get_running_loop().run_in_executor(None, unpacked, body, found.size)


def _named(record: Record, surface: Surface, body: bytes | Form, headers: Mapping[str, str]) -> None:
    """What is asked, for the line; the answer does not hang on it."""
    with suppress(ProxyError):
        record.asked(read_asked(surface, body, headers))

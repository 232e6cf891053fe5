"""Providers' bytes gone bad: whatever a provider sends ends in events or in a declared failure, in bounded memory.

Seeds are the golden folders of a provider and what the matrix lets it say; each is broken in ways that break parsers:
cut, spliced, repeated, bits flipped, values of other types in place of its own. A hundred or so cases per provider run
always, 20 000 in the soak.
"""

from __future__ import annotations

import contextlib
import copy
import random
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import msgspec
import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Dialect, Target, speaks
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Failed, fold
from newapi_proxy.ir.usage import MOST, NOTHING, Usage
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire.tree import Document
from tests.fakes import golden, inbound, matrix, matrix_wires
from tests.fakes.inbound import FUNCTION, SPOKEN
from tests.fakes.matrix import Provider
from tests.fakes.scripted import Say

USUAL: Final = 120
SOAK: Final = 20_000
GROWTH: Final = 40  # bytes of events, at most, for a byte of upstream's; and a little for the smallest
ROOM: Final = 20_000
FACE: Final = Face(model="asked", id="chatcmpl-1", created=1)
SAYS: Final = (
    Say(text="Grüße, 世界!", prompt=21, completion=7, cached=3),
    Say(text="I go.", calls=(("call_1", "f", {"a": [1, {"b": None}]}), ("call_2", "f", {})), thinking="Hm."),
    Say(text="", thinking="Hm.", signature="c2ln", prompt=1),
)
WRONG: Final[tuple[Any, ...]] = (
    None, True, False, -1, 0, 1e308, 2**63 - 1, 0.5, "", "x", "\x00", "9" * 40, [], {}, [None], [[]], {"": None},
    [{}] * 3, {"type": None}, {"text": 1}, "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
)  # fmt: skip


class Seed(msgspec.Struct, frozen=True):
    """A good answer of a provider, streamed or whole."""

    provider: Provider
    data: bytes
    streamed: bool


def target(one: Provider) -> Target:
    """An attempt's target."""
    adapter = ADAPTERS[one.type]
    return Target(
        channel="c",
        base_url=(one.base_url or adapter.base_url or "https://up.example").rstrip("/"),
        key=Secret(one.key or ""),
        model=one.model,
        options=adapter.options(**one.options),
        granted="granted",
    )


@cache
def ask(letter: str, stream: bool) -> Ask:
    """A request with a tool, so that calls make sense; a prompt has none."""
    wishes: dict[str, Any] = {} if letter == "CO" else {"tools": [FUNCTION]}
    return inbound.read(letter, inbound.body(letter, stream=stream, **wishes), stream=stream)


def dialect(one: Provider, letter: str) -> Dialect:
    """The provider's format for this client."""
    adapter = ADAPTERS[one.type]
    chat = adapter.tuned(target(one).options) if adapter.tuned is not None else adapter.chat
    found = speaks(msgspec.structs.replace(adapter, chat=chat), inbound.surface(letter).dialect, one.model)
    assert found is not None
    return found


@cache
def seeds(type: str) -> tuple[Seed, ...]:
    """What the provider says well."""
    found = []
    for one in matrix.PROVIDERS[type]:
        for streamed in (False, True):
            given = inbound.read("OC", inbound.body("OC", stream=streamed), stream=streamed)
            outgoing = dialect(one, "OC").request(given, target(one))
            if ADAPTERS[type].local is None:
                told = [matrix_wires.answer(outgoing.url, matrix.raw(outgoing), say).data for say in SAYS]
                found += [Seed(one, data, streamed) for data in told]
    kept = [case for case in golden.folders() if case.adapter.name == type and case.case.status == 200]
    first = matrix.PROVIDERS[type][0]
    return (*found, *(Seed(first, case.upstream, case.streamed) for case in kept))


# How bytes go bad.


def _cut(dice: random.Random, data: bytes) -> bytes:
    at, to = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
    return dice.choice((data[:at], data[at:], data[:at] + data[to:], data[:to] + data[at:]))


def _flip(dice: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(dice.randrange(1, 9)):
        if out:
            out[dice.randrange(len(out))] ^= 1 << dice.randrange(8)
    return bytes(out)


def _insert(dice: random.Random, data: bytes) -> bytes:
    strange = (b"\x00", b"\xff\xfe", b"\n\n", b"\r", b"data: ", b"data: {\n\n", b"event: x\n", b"{", b"[" * 300, b'"')
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(strange) + data[at:]


def _shuffle(dice: random.Random, data: bytes) -> bytes:
    """Frames in another order, some twice, some not at all."""
    mark = b"\n\n" if b"\n\n" in data else b"\n"
    blocks = data.split(mark)
    return mark.join(dice.choices(blocks, k=dice.randrange(1, len(blocks) + 4)))


def _retype(dice: random.Random, data: bytes) -> bytes:
    """A value of another type somewhere in the JSON, in every place where it parses."""
    lines = data.split(b"\n")
    at = dice.sample(range(len(lines)), min(len(lines), 1 + dice.randrange(3)))
    for number in at:
        head, brace, rest = lines[number].partition(b"{")
        try:
            tree = orjson.loads(brace + rest)
        except orjson.JSONDecodeError:
            continue
        lines[number] = head + orjson.dumps(_changed(dice, tree))
    return b"\n".join(lines)


def _changed(dice: random.Random, tree: Any) -> Any:
    places = list(_places(tree))
    if not places:
        return dice.choice(WRONG)
    for _ in range(dice.randrange(1, 4)):
        home, key = dice.choice(places)
        if isinstance(home, dict) and key in home and dice.random() < 0.2:
            del home[key]
        elif isinstance(home, dict) or key < len(home):
            home[key] = copy.deepcopy(dice.choice(WRONG))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


HARMS: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    _retype,
    _retype,
    _retype,
    _cut,
    _flip,
    _insert,
    _shuffle,
)


def harmed(dice: random.Random, data: bytes) -> bytes:
    """The bytes after one to three accidents."""
    for _ in range(dice.randrange(1, 4)):
        data = dice.choice(HARMS)(dice, data)
    return data


# What must hold all the same.


def heard(one: Provider, letter: str, data: bytes, streamed: bool, dice: random.Random) -> list[Event]:
    """The events of a body, or of a stream cut anywhere."""
    speaker, given = dialect(one, letter), ask(letter, streamed)
    if not streamed:
        return list(speaker.answer(given, Document(data)))
    decoder, reader = speaker.frames(), speaker.reader(given)
    events: list[Event] = []
    try:
        for piece in pieces(dice, data):
            for frame in decoder.feed(piece):
                events += reader.read(frame)
        for frame in decoder.close():
            events += reader.read(frame)
    except UpstreamFailure as failure:
        return [*events, Failed(failure)]
    return [*events, *reader.close()]


def pieces(dice: random.Random, data: bytes) -> Iterator[bytes]:
    """The bytes in a few reads."""
    ends = sorted(dice.randrange(len(data) + 1) for _ in range(3))
    for at, to in zip([0, *ends], [*ends, len(data)], strict=True):
        yield data[at:to]


def checked(events: list[Event], size: int) -> None:
    """Events that are events, of believable numbers, not much larger than what they were read from."""
    for event in events:
        assert isinstance(event, Event), event
    assert len(str(events)) <= GROWTH * size + ROOM
    usage = fold(events).usage
    for used in () if usage is None else (usage, *(other for _, other in usage.others)):
        assert all(0 <= number <= 10 * MOST for number in _numbers(used))
        assert used.cache_read + used.cache_write + used.cache_write_1h <= max(used.prompt, 0)


def _numbers(usage: Usage) -> Iterator[int]:
    for name in usage.__struct_fields__:
        value = getattr(usage, name)
        if isinstance(value, int):
            yield value


def delivered(one: Provider, letter: str, data: bytes, streamed: bool, dice: random.Random) -> None:
    """A client of the format gets bytes of its grammar, or a failure."""
    surface, speaker, given = inbound.surface(letter, streamed), dialect(one, letter), ask(letter, streamed)
    if not streamed:
        document = Document(data)
        events = speaker.answer(given, document)
        told = fold(events)
        if told.failure is not None:
            assert surface.failure(told.failure, "req")
        elif surface.dialect == speaker.dialect:
            assert surface.same(given, FACE, document, told.usage or NOTHING)
        else:
            orjson.loads(surface.answer(given, FACE, events, told.usage or NOTHING))
        return
    through = pipe(surface, speaker, given, FACE)
    try:
        out = b"".join([through.feed(piece) for piece in pieces(dice, data) if through.heard.failure is None])
        out += through.drain()
    except UpstreamFailure as failure:
        through.fail(failure, "req")
        return
    error = through.heard.failure
    out += through.close(through.heard.usage or NOTHING) if error is None else through.fail(error, "req")
    assert len(out) <= GROWTH * len(data) + ROOM


def run(type: str, cases: int, seed: int) -> None:
    """So many broken answers of one provider."""
    known = seeds(type)
    for number in range(cases):
        dice = random.Random(seed * 1_000_003 + number)
        one = dice.choice(known)
        data = harmed(dice, one.data)
        letter = dice.choice(SPOKEN)
        try:
            checked(heard(one.provider, letter, data, one.streamed, dice), len(data))
            delivered(one.provider, letter, data, one.streamed, dice)
            answered(one.provider, letter, data, dice)
        except Exception as error:
            error.add_note(f"{one.provider.name}, case {number} of seed {seed}, {letter}: {data[:2000]!r}")
            raise


def answered(one: Provider, letter: str, data: bytes, dice: random.Random) -> None:
    """As an error's body the same bytes are a failure of a status that clients know, as a count or key one or none."""
    status = dice.choice((400, 401, 404, 413, 422, 429, 500, 503, 529))
    failure = dialect(one, letter).failure(status, {"content-type": "x", "retry-after": dice.choice(("7", "x"))}, data)
    assert isinstance(failure, UpstreamFailure)
    assert failure.upstream_status == status
    assert 400 <= failure.status < 600
    assert inbound.surface(letter).failure(failure, "req")
    adapter = ADAPTERS[one.type]
    if adapter.counting is not None:
        tokens = adapter.counting.tokens(data)
        assert tokens is None or 0 <= tokens <= MOST
    if adapter.credential is not None:
        granted = adapter.credential.granted(Document(data), 1)
        assert granted is None or (granted.text and granted.expires > 1)
    if adapter.uploads is not None:
        with contextlib.suppress(UpstreamFailure):
            assert adapter.uploads.file_id(Document(data)) != ""


TYPES: Final = [name for name in matrix.SPEAKING if ADAPTERS[name].local is None]


@pytest.mark.parametrize("type", TYPES)
def test_garbage(type: str) -> None:
    """Events or declared failures, whatever comes."""
    run(type, USUAL, 1)


@pytest.mark.soak
@pytest.mark.parametrize("type", TYPES)
def test_much_garbage(type: str) -> None:
    """The same at length, with other dice every time."""
    run(type, SOAK, random.SystemRandom().randrange(1 << 30))


@pytest.mark.parametrize("type", TYPES)
def test_long_streams_are_not_kept(type: str) -> None:
    """A reader that is fed for long keeps less than it was fed."""
    for one in (seed for seed in seeds(type)[3:4] if seed.streamed):
        speaker = dialect(one.provider, "OC")
        decoder, reader = speaker.frames(), speaker.reader(ask("OC", True))
        frames = decoder.feed(one.data)
        said = next((number for number, frame in enumerate(frames) if _says(reader.read(frame))), None)
        assert said is not None
        decoder = speaker.frames()
        raw = frames[said].raw
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(2000):
                for frame in decoder.feed(raw):
                    for _event in reader.read(frame):
                        pass
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert kept < 2000 * len(raw) / 2 + ROOM


def _says(events: Any) -> bool:
    return any(getattr(event, "text", "") for event in events)

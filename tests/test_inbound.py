"""What a request brings: ids, addresses, keys, bodies; routes and their mercy."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.billing.ledger import Account
from newapi_proxy.config.model import Config
from newapi_proxy.errors import ClientError, OurError
from newapi_proxy.snapshot import Snapshot, Token
from newapi_proxy.web import body, inbound, keys
from newapi_proxy.web.router import Route, Router, split

NOW = 1_700_000_000.0

ZIPPED = gzip.compress(b"hello", mtime=0)  # the same bytes in every run


def token(name: str = "alice", **changes: Any) -> Token:
    account = Account(1, 1, token_limited=False, user_limited=False)
    return Token(name=name, account=account, group="default", **changes)


def snapshot(tokens: Mapping[str, Token]) -> Snapshot:
    """A view with these keys and nothing else; prices are not looked at here."""
    by_digest = {sha256(key.encode()).digest(): one for key, one in tokens.items()}
    return Snapshot(Config(), (), by_digest, None)  # type: ignore[arg-type]


def test_own_ids_are_unique_and_ours() -> None:
    """Ids of our own never repeat, and two processes do not share them."""
    ids, others = inbound.Ids(), inbound.Ids()
    made = {ids.own() for _ in range(1000)} | {others.own() for _ in range(1000)}
    assert len(made) == 2000
    assert all(re.fullmatch(r"na-[0-9a-z]{10}-[0-9a-z]+", one) for one in made)


def test_a_sane_id_is_kept_once() -> None:
    """The client's id is taken as it is; the same again gets a suffix, so that no charge hides behind the first."""
    ids = inbound.Ids()
    assert ids.of("trace-1.2_3") == "trace-1.2_3"
    again = {ids.of("trace-1.2_3") for _ in range(10)}
    assert len(again) == 10
    assert all(one.startswith("trace-1.2_3.na-") for one in again)


@pytest.mark.parametrize("bad", [None, "", "a b", "x" * 65, "é", "a\r\nb", "na-abc-1", "sk-mykey", "a/b", '"'])
def test_an_odd_id_is_replaced(bad: str | None) -> None:
    """What is no sane id, looks like one of ours, or like a key, is not taken over."""
    assert inbound.Ids().of(bad).startswith("na-")


def test_remembered_ids_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client-chosen ids are remembered up to twice the bound."""
    monkeypatch.setattr(inbound, "MOST_IDS", 10)
    ids = inbound.Ids()
    for number in range(100):
        ids.of(f"c{number}")
    assert ids.of("c99") != "c99"
    assert ids.of("c0") == "c0"
    assert len(ids._recent) + len(ids._older) <= 20


@given(st.lists(st.text(max_size=80) | st.sampled_from(["a", "b.na-1"]), max_size=30))
def test_no_two_requests_share_an_id(presented: list[str]) -> None:
    """Whatever clients choose, each request's id is its own."""
    ids = inbound.Ids()
    made = [ids.of(one) for one in presented]
    assert len(set(made)) == len(made)


TRUSTED = inbound.networks(("10.0.0.0/8", "::1"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("8.8.8.8", [], "8.8.8.8"),
        ("8.8.8.8", ["1.1.1.1"], "8.8.8.8"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.9.9.9"], "1.1.1.1"),
        ("10.0.0.1", ["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ("10.0.0.1", ["6.6.6.6, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense, 10.0.0.2"], "10.0.0.2"),
        ("::1", ["[2001:db8::5]:443"], "2001:db8::5"),
        ("::ffff:10.0.0.1", ["1.1.1.1:5555"], "1.1.1.1"),
        ("", ["1.1.1.1"], "127.0.0.1"),
        ("10.0.0.1", ["6.6.6.6," * 500 + " 1.1.1.1"], "1.1.1.1"),
    ],
)
def test_client_address(peer: str, forwarded: list[str], address: str) -> None:
    """The nearest address that no trusted proxy vouches for; what a client writes itself changes nothing."""
    assert inbound.client_ip(peer, forwarded, TRUSTED) == address


def test_nobody_is_trusted_by_default() -> None:
    """Without trusted_proxies X-Forwarded-For is nothing."""
    assert inbound.client_ip("127.0.0.1", ["1.1.1.1"], ()) == "127.0.0.1"


FORMS: list[tuple[str, str, dict[str, str]]] = [
    ("/v1/chat/completions", "", {"authorization": "Bearer sk-demo"}),
    ("/v1/chat/completions", "", {"authorization": "bearer sk-demo"}),
    ("/v1/chat/completions", "", {"authorization": "BEARER   sk-demo  "}),
    ("/v1/chat/completions", "", {"authorization": "sk-demo"}),
    ("/v1/chat/completions", "", {"authorization": "demo"}),
    ("/v1/chat/completions", "", {"authorization": "Bearer demo"}),
    ("/v1/chat/completions", "", {"x-api-key": "sk-demo"}),
    ("/v1/chat/completions", "", {"x-goog-api-key": "sk-demo"}),
    ("/v1/chat/completions", "alt=sse&key=sk-demo", {}),
    ("/v1/messages", "", {"x-api-key": "sk-demo", "authorization": "Bearer other"}),
    ("/v1/messages", "", {"x-api-key": "other", "authorization": "Bearer sk-demo"}),
    ("/v1beta/models/m:generateContent", "key=sk%2Ddemo", {}),
    ("/mj/submit/imagine", "", {"authorization": "midjourney-proxy", "mj-api-secret": "Bearer sk-demo"}),
    ("/mj/submit/imagine", "", {"mj-api-secret": "sk-demo"}),
]


@pytest.mark.parametrize(("path", "query", "headers"), FORMS)
def test_auth_forms(path: str, query: str, headers: dict[str, str]) -> None:
    """The key is found wherever the inherited services and the SDKs put it."""
    view = snapshot({"demo": token()})
    assert keys.Keys().caller(view, path, query, headers).name == "alice"


def test_digest_of_either_form() -> None:
    """`key_sha256` may have been made of the key with or without `sk-`."""
    for stored in ("demo", "sk-demo"):
        assert keys.Keys().find(snapshot({stored: token()}), "sk-demo") is not None


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": ""}, {"authorization": "Bearer "}, {"authorization": "midjourney-proxy"}]
)
def test_no_key(headers: dict[str, str]) -> None:
    """Without a key: 401, and how to send one."""
    with pytest.raises(ClientError) as told:
        keys.Keys().caller(snapshot({"demo": token()}), "/v1/chat/completions", "", headers)
    assert (told.value.status, told.value.code) == (401, "invalid_api_key")


def test_a_key_among_too_many_fields() -> None:
    """A query of more fields than anyone sends is not searched for a key: that is no key, not a fault of ours."""
    query = "key=sk-demo&" + "&".join(f"a{number}=1" for number in range(120))
    with pytest.raises(ClientError) as told:
        keys.Keys().caller(snapshot({"demo": token()}), "/v1/models", query, {})
    assert (told.value.status, told.value.code) == (401, "invalid_api_key")


def test_bad_keys_look_alike() -> None:
    """Unknown, disabled and expired keys get the same words."""
    view = snapshot({"off": token(enabled=False), "old": token(expires=int(NOW) - 1)})
    told = []
    for key in ("nobody", "off", "old"):
        with pytest.raises(ClientError) as error:
            keys.admit(keys.Keys().caller(view, "/", "", {"authorization": key}), "1.1.1.1", NOW)
        told.append((error.value.status, error.value.code, error.value.message))
    assert set(told) == {(401, "invalid_api_key", "Invalid API key.")}


def test_drained_key() -> None:
    """A key without money is refused with its own code, but may look at read-only routes."""
    with pytest.raises(ClientError) as told:
        keys.admit(token(drained=True), "1.1.1.1", NOW)
    assert (told.value.status, told.value.code) == (401, "token_exhausted")
    keys.admit(token(drained=True), "1.1.1.1", NOW, drained=True)


@pytest.mark.parametrize(("address", "fits"), [("10.1.2.3", True), ("11.1.2.3", False), ("::1", False)])
def test_address_list(address: str, fits: bool) -> None:
    """A key with an address list serves nobody else."""
    limited = token(allow_ips=inbound.networks(("10.0.0.0/8",)))
    if fits:
        keys.admit(limited, address, NOW)
        return
    with pytest.raises(ClientError) as told:
        keys.admit(limited, address, NOW)
    assert (told.value.status, told.value.code) == (403, "access_denied")


def test_banned_user() -> None:
    """A disabled account's key is refused with 403."""
    with pytest.raises(ClientError) as told:
        keys.admit(token(user_enabled=False), "1.1.1.1", NOW)
    assert told.value.status == 403


def test_keys_are_forgotten_with_their_snapshot() -> None:
    """A key that the new snapshot does not know is unknown at once, whatever was remembered."""
    known = keys.Keys()
    assert known.find(snapshot({"demo": token()}), "sk-demo") is not None
    assert known.find(snapshot({}), "sk-demo") is None


def test_unknown_keys_are_not_remembered() -> None:
    """Strangers cannot fill the memory of keys."""
    known, view = keys.Keys(), snapshot({"demo": token()})
    for number in range(100):
        known.find(view, f"sk-{number}")
    assert known._found == {}


class Nobody(BaseProtocol):
    """A protocol with no transport behind it, but connected."""

    connected = True

    def pause_reading(self) -> None:
        """Nothing to pause."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing to resume."""


def stream(*pieces: bytes, end: bool = True) -> StreamReader:
    """A body that has arrived in these pieces."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(Nobody(loop), 2**16, loop=loop)
    for piece in pieces:
        reader.feed_data(piece)
    if end:
        reader.feed_eof()
    return reader


def share(limit: int, budget: body.Budget | None = None) -> body.Share:
    """A request's part of a budget, by default one that nobody else uses."""
    return body.Share(budget or body.Budget(), limit)


async def test_body_at_once_and_in_pieces() -> None:
    """The body is the same whether it was there already or comes later."""
    assert await body.whole(stream(b"ab", b"cd"), share(4)) == b"abcd"
    late = stream(b"ab", end=False)
    asyncio.get_running_loop().call_soon(late.feed_data, b"cd")
    asyncio.get_running_loop().call_later(0.01, late.feed_eof)
    assert await body.whole(late, share(4)) == b"abcd"


@pytest.mark.parametrize("end", [True, False])
async def test_body_above_the_cap(end: bool) -> None:
    """A body above the cap is refused, an endless one before its end."""
    with pytest.raises(ClientError) as told:
        await body.whole(stream(b"x" * 5, end=end), share(4))
    assert (told.value.status, told.value.code) == (413, "request_too_large")


def test_declared_length() -> None:
    """A promised length above the cap is refused before anything is read."""
    assert body.declared({"content-length": "4"}, 4) == 4
    with pytest.raises(ClientError):
        body.declared({"content-length": "5"}, 4)


async def test_slow_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come is given up."""
    monkeypatch.setattr(body, "BODY_GRACE", 0.01)
    with pytest.raises(ClientError) as told:
        await body.whole(stream(b"x", end=False), share(100))
    assert told.value.status == 408


async def test_gzip_is_bounded() -> None:
    """A gzipped body is inflated up to the cap, small or large; a bomb ends there."""
    assert await body.inflated(ZIPPED, share(5)) == b"hello"
    bomb = gzip.compress(b"\0" * 80_000_000)
    assert len(bomb) > body.SMALL
    with pytest.raises(ClientError) as told:
        await body.inflated(bomb, share(1_000_000))
    assert told.value.status == 413


async def test_the_budget_counts_what_has_come() -> None:
    """A body without a length counts piece by piece, one with a length from its head on, and is given back in one."""
    budget = body.Budget(10)
    first, second = share(8, budget), share(8, budget)
    late = stream(b"abcd", end=False)
    reading = asyncio.ensure_future(body.whole(late, first))
    await asyncio.sleep(0)
    assert budget.held == 4
    with pytest.raises(OurError) as told:
        second.hold(body.declared({"content-length": "8"}, 8))
    assert (told.value.status, told.value.code, budget.held) == (503, "overloaded", 4)
    second.hold(5)
    late.feed_data(b"ef")
    with pytest.raises(OurError):
        await reading
    first.hold(0)
    second.hold(0)
    assert budget.held == 0


async def test_the_budget_counts_inflated_bytes() -> None:
    """What a gzipped body becomes counts while it grows: it is refused before it is all there."""
    data = gzip.compress(b"\0" * (5 * body.PIECE + 7))
    budget = body.Budget(6 * body.PIECE)
    budget.held = body.PIECE  # another request's
    for limit, error in ((3, ClientError), (6, OurError)):
        one = share(limit * body.PIECE, budget)
        with pytest.raises(error):
            await body.inflated(data, one)
        one.hold(0)
        assert budget.held == body.PIECE
    budget.most = 7 * body.PIECE
    assert await body.inflated(data, share(6 * body.PIECE, budget)) == b"\0" * (5 * body.PIECE + 7)
    assert budget.held == 6 * body.PIECE + 7


@pytest.mark.parametrize("broken", [b"", b"hello", ZIPPED[:-3], ZIPPED + b"x"])
async def test_broken_gzip(broken: bytes) -> None:
    """What is no gzip, not all of it, or more than it, is refused."""
    with pytest.raises(ClientError) as told:
        await body.inflated(broken, share(100))
    assert (told.value.status, told.value.code) == (400, "invalid_body")


@pytest.mark.parametrize(("coding", "result"), [("", False), ("identity", False), ("GZIP", True), ("x-gzip", True)])
def test_coding(coding: str, result: bool) -> None:
    """Plain and gzipped bodies are read."""
    assert body.coding({"content-encoding": coding} if coding else {}) is result


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip"])
def test_other_codings(coding: str) -> None:
    """Everything else is refused with 415."""
    with pytest.raises(ClientError) as told:
        body.coding({"content-encoding": coding})
    assert told.value.status == 415


ROUTER: Router[str] = Router(
    [
        Route("/v1/chat/completions", {"POST": "chat"}),
        Route("/v1/models", {"GET": "models"}),
        Route("/v1/models/{id}", {"GET": "model"}),
        Route("/v1/models/{id}", {"DELETE": "gone"}),
        Route("/v1beta/models/{model}:generateContent", {"POST": "gemini"}),
        Route("/v1beta/models/{id}", {"GET": "google"}),
        Route("/v1/files/{id}", {"GET": "file"}),
        Route("/healthz", {"GET": "health"}),
    ]
)


@pytest.mark.parametrize(
    ("path", "pattern", "tail"),
    [
        ("/v1/chat/completions", "/v1/chat/completions", ""),
        ("/v1/chat/completions/", "/v1/chat/completions", ""),
        ("/v1/v1/chat/completions", "/v1/chat/completions", ""),
        ("/v1/v1/v1/chat/completions", "/v1/chat/completions", ""),
        ("/chat/completions", "/v1/chat/completions", ""),
        ("//v1//chat/completions", "/v1/chat/completions", ""),
        ("/v1beta/openai/chat/completions", "/v1/chat/completions", ""),
        ("/v1/models/", "/v1/models", ""),
        ("/models", "/v1/models", ""),
        ("/v1/models/a/b", "/v1/models/{id}", "a/b"),
        ("/v1/models/gpt%2D4", "/v1/models/{id}", "gpt-4"),
        ("/v1/v1beta/models/g:generateContent", "/v1beta/models/{model}:generateContent", "g"),
        ("/v1beta/models/g%3AgenerateContent", "/v1beta/models/{model}:generateContent", "g"),
        ("/healthz", "/healthz", ""),
    ],
)
def test_routes(path: str, pattern: str, tail: str) -> None:
    """Base URLs with /v1 once too often or not at all, and a slash at the end, find their route."""
    match = ROUTER.find(path)
    assert match is not None
    assert (match.route.pattern, match.tail) == (pattern, tail)


@pytest.mark.parametrize(
    "path", ["/", "", "/v2/chat/completions", "/v1", "/v1/chat", "/v1x/chat/completions", "/" * 5000]
)
def test_unknown_paths(path: str) -> None:
    """What is no route is none."""
    assert ROUTER.find(path) is None


def test_routes_of_one_pattern_join() -> None:
    """Two parts may serve the same pattern with different methods."""
    match = ROUTER.find("/v1/models/x")
    assert match is not None
    assert match.route.actions == {"GET": "model", "DELETE": "gone"}


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a?b=c?d", ("/a", "b=c?d")),
        ("http://host/a?b", ("/a", "b")),
        ("http://host", ("/", "")),
        ("*", ("*", "")),
        ("/a#b", ("/a", "")),
    ],
)
def test_targets(target: str, parts: tuple[str, str]) -> None:
    """Origin form and absolute form are the same."""
    assert split(target) == parts

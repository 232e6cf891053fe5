"""Telegram's proof: the vectors, and each way to bring something that is none."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

import pytest

from newapi_proxy.accounts.telegram import FRESH, Person, person, sign

BOT: Final = "123456789:AAE-test-bot-token_abcdefghijklmnopqr"
AT: Final = 1729000000
SHORT: Final = {"auth_date": str(AT), "first_name": "Ada", "id": "42424242"}
LONG: Final = SHORT | {"last_name": "L", "photo_url": "https://t.me/i/userpic/320/ada.jpg", "username": "ada_l"}
# tasks-and-accounts 13.2
LONG_HASH: Final = "ff1ebd5fced8e406925fea0eaf9b8fc7ae999d9a63bbd92ff2a8a03a47043ac4"
SHORT_HASH: Final = "12eae947d39b04b44b7d37d2045a48a413f040174140f296b204dad075623448"
EMPTY_HASH: Final = "9eae43cc1d577708c9af6483d7026e0dbb47adb23ad9be04240bf44338c6a575"


def told(fields: dict[str, str], proof: str) -> str:
    """The query that the widget sends."""
    return urlencode({**fields, "hash": proof})


@pytest.mark.parametrize(("fields", "proof"), [(LONG, LONG_HASH), (SHORT, SHORT_HASH)])
def test_vectors(fields: dict[str, str], proof: str) -> None:
    """What Telegram has signed is believed, in any order, and as long as it is fresh to the second on both sides."""
    assert person(told(fields, proof), BOT, AT) == Person("42424242", proof)
    backwards = dict(reversed(fields.items()))
    for now in (AT - FRESH, AT + FRESH):
        assert person(told(backwards, proof), BOT, now) == Person("42424242", proof)
    for now in (AT - FRESH - 1, AT + FRESH + 1, AT + 86400):
        assert person(told(fields, proof), BOT, now) == "stale"


def test_an_empty_token_proves_nothing() -> None:
    """What is signed with the digest of nothing is refused, though the hash is right."""
    assert sign(SHORT, "") == EMPTY_HASH
    assert person(told(SHORT, EMPTY_HASH), "", AT) == "garbled"
    assert person(told(SHORT, EMPTY_HASH), BOT, AT) == "sign"


@pytest.mark.parametrize("name", sorted(LONG))
def test_every_field_counts(name: str) -> None:
    """A field that was changed or left out breaks the proof."""
    assert person(told(LONG | {name: LONG[name] + "1"}, LONG_HASH), BOT, AT) in ("sign", "stale")
    assert isinstance(person(told({key: LONG[key] for key in LONG if key != name}, LONG_HASH), BOT, AT), str)


def test_names_of_others() -> None:
    """A name that is not Telegram's is no part of the proof: it changes nothing, and cannot be signed in."""
    assert person(told(SHORT | {"x": "1"}, SHORT_HASH), BOT, AT) == Person("42424242", SHORT_HASH)
    assert person(told(SHORT | {"x": "1"}, sign(SHORT | {"x": "1"}, BOT)), BOT, AT) == "sign"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "hash=" + SHORT_HASH,
        told(SHORT, SHORT_HASH) + "&id=42424242",
        told(SHORT, SHORT_HASH) + "&hash=" + SHORT_HASH,
        *(told(fields := SHORT | {"id": id}, sign(fields, BOT)) for id in ("", "x", "-1", "0", "1.5", "٤٢", "9" * 21)),
        *(told(fields := SHORT | {"auth_date": at}, sign(fields, BOT)) for at in ("", "x", "-1", "1e9", "9" * 13)),
        told({"first_name": "Ada", "auth_date": str(AT)}, SHORT_HASH),
        "&".join(f"a{number}=1" for number in range(100)),
        told(SHORT, SHORT_HASH) + "&username=%ff",
    ],
)
def test_what_is_no_proof(query: str) -> None:
    """A missing id, a number that is none, a name twice, bytes that are no text."""
    assert person(query, BOT, AT) == "garbled"


@pytest.mark.parametrize(
    "proof", ["", SHORT_HASH.upper(), SHORT_HASH[:-1], SHORT_HASH + "0", LONG_HASH, "é" * 64, "\ud83d"]
)
def test_the_hash_is_exact(proof: str) -> None:
    """It is 64 lower-case hex digits, and nothing else is."""
    query = urlencode(SHORT) + "&hash=" + proof.encode("utf-8", "replace").decode()
    assert person(query, BOT, AT) == "sign"

"""Telegram's login: whose account a browser was sent back with, if what it brings is Telegram's, fresh and whole.

Pure: the query, the bot's token and the moment come in. Only the seven names that Telegram defines count; a name given
twice, an id that is no number, a token that is empty, and a time that is more than five minutes off are refused. That
a proof is used once is not known here. Source: tasks-and-accounts 7.1, trap T-18, vectors 13.2.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from typing import Final, Literal
from urllib.parse import parse_qsl

import msgspec

WAY: Final = "telegram"
COLUMN: Final = "telegram_id"
FRESH: Final = 300  # seconds that a proof may be old, or ahead
WIDGET: Final = "https://telegram.org/js/telegram-widget.js?22"
SCRIPTS: Final = "https://telegram.org"
FRAMES: Final = "https://oauth.telegram.org"
NAMES: Final = ("auth_date", "first_name", "hash", "id", "last_name", "photo_url", "username")
_MOST: Final = 32  # fields of a query
_ID: Final = re.compile(r"[1-9][0-9]{0,19}", re.ASCII)
_TIME: Final = re.compile(r"[0-9]{1,12}", re.ASCII)

Fault = Literal["garbled", "sign", "stale"]


class Person(msgspec.Struct, frozen=True):
    """An account at Telegram by its number; `proof` is what says so, which is to be used once."""

    id: str
    proof: str


def person(query: str, token: str, now: float) -> Person | Fault:
    """Who was sent back with this query; or why it is not to be believed, in one word. `now` in unix seconds."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST, errors="strict")
    except ValueError:
        return "garbled"
    meant = [(name, value) for name, value in pairs if name in NAMES]
    given = dict(meant)
    if len(given) != len(meant) or not _ID.fullmatch(given.get("id", "")) or not token:
        return "garbled"
    if not _TIME.fullmatch(given.get("auth_date", "")):
        return "garbled"
    proof = given.pop("hash", "")
    if not hmac.compare_digest(proof.encode(), sign(given, token).encode()):
        return "sign"
    if abs(now - int(given["auth_date"])) > FRESH:
        return "stale"
    return Person(given["id"], proof)


def sign(fields: dict[str, str], token: str) -> str:
    """The hash over the fields, sorted, one a line, by the digest of the bot's token."""
    told = "\n".join(f"{name}={value}" for name, value in sorted(fields.items()))
    return hmac.new(sha256(token.encode()).digest(), told.encode(), sha256).hexdigest()

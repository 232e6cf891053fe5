"""Which key a request brings, and whether it may be used now.

Knows headers and the snapshot's keys, no request body. Sources: relay-and-billing §2, reliability §2.10, user-demands
X2. Raises ClientError for everything that is the caller's fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import hdrs

from newapi_proxy.errors import ClientError
from newapi_proxy.snapshot import Snapshot, Token
from newapi_proxy.web.inbound import within

MOST_KEYS: Final = 10_000  # presented keys remembered per snapshot
MIDJOURNEY: Final = "midjourney-proxy"


def presented(path: str, query: str, headers: Mapping[str, str]) -> Iterator[str]:
    """The keys a request brings, the likeliest first (relay-and-billing 2.1, 2.2): any form, on any route.

    Anthropic's and Gemini's own places go first on their routes, Authorization elsewhere; `midjourney-proxy` there
    stands for "look at mj-api-secret".
    """
    bearer = _bare(headers.get("authorization"))
    places = [None if bearer == MIDJOURNEY else bearer, _bare(headers.get("mj-api-secret"))]
    own = [headers.get("x-api-key"), headers.get("x-goog-api-key")]
    if "key=" in query:
        own.append(_asked(query))
    first = "/messages" in path or "/v1beta" in path or (bearer is None and places[1] is None)
    for place in [*own, *places] if first else [*places, *own]:
        if place:
            yield place.strip()


def _asked(query: str) -> str | None:
    """The key in a query, None where there is none, or where there are too many fields to look for it."""
    try:
        return next((value for name, value in parse_qsl(query, max_num_fields=100) if name == "key"), None)
    except ValueError:
        return None


def _bare(value: str | None) -> str | None:
    """A header's key without its scheme word, in any case; None where there is none."""
    if not value:
        return None
    if value[:7].lower() == "bearer ":
        value = value[7:]
    return value.strip() or None


class Keys:
    """From what a client presents to the snapshot's token.

    The look-up is by digest in a table, so its time says nothing about how much of a key is right, and costs the same
    for every unknown key. Texts that were found are remembered as long as
    the snapshot is in use; unknown ones are not, so that strangers cannot fill the memory.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._found: dict[str, Token] = {}
        self._bearers: dict[str, Token] = {}  # by the whole header, where it decides alone

    def find(self, snapshot: Snapshot, text: str) -> Token | None:
        """The token of a key as text, `sk-` or not, or None."""
        if self._snapshot is not snapshot:
            self._snapshot, self._found, self._bearers = snapshot, {}, {}
        token = self._found.get(text)
        if token is not None:
            return token
        bare = text.removeprefix("sk-")
        for form in (bare, "sk-" + bare):  # `key_sha256` may have been made of either
            token = snapshot.tokens.get(sha256(form.encode("utf-8", "surrogateescape")).digest()) or token
        if token is not None and len(self._found) < MOST_KEYS:
            self._found[text] = token
        return token

    def _by_bearer(self, snapshot: Snapshot, header: str) -> Token | None:
        """The token of an Authorization header where that goes first, which is nearly always."""
        if self._snapshot is snapshot:
            token = self._bearers.get(header)
            if token is not None:
                return token
        bare = _bare(header)
        token = None if bare is None or bare == MIDJOURNEY else self.find(snapshot, bare)
        if token is not None and len(self._bearers) < MOST_KEYS:
            self._bearers[header] = token
        return token

    def caller(self, snapshot: Snapshot, path: str, query: str, headers: Mapping[str, str]) -> Token:
        """The token that the request's key belongs to. Raises ClientError 401, in the same words for every bad key."""
        header = headers.get(hdrs.AUTHORIZATION)
        if header is not None and "/messages" not in path and "/v1beta" not in path:
            token = self._by_bearer(snapshot, header)
            if token is not None:
                return token
        any_key = False
        for text in presented(path, query, headers):
            any_key = True
            token = self.find(snapshot, text)
            if token is not None:
                return token
        if any_key:
            raise bad_key()
        raise ClientError(
            "No API key given: send it as `Authorization: Bearer sk-...`.",
            status=401,
            kind="unauthorized",
            code="invalid_api_key",
        )


def bad_key() -> ClientError:
    """One answer for keys that are unknown, disabled or expired: a stranger learns nothing from it."""
    return ClientError("Invalid API key.", status=401, kind="unauthorized", code="invalid_api_key")


def admit(token: Token, address: str, now: float, *, drained: bool = False, expired: bool = False) -> None:
    """Whether this key may come from this address now. `drained`: a key without money may, on read-only routes;
    `expired`: one whose time is over may too, where its holder asks about the key itself.

    In New API's order (relay-and-billing 2.4): the key, its address list, its user. Raises ClientError.
    """
    if not token.enabled:
        raise bad_key()
    if not expired and (token.expired or (token.expires is not None and token.expires < now)):
        raise bad_key()
    if token.drained and not drained:
        raise ClientError("This key's quota is used up.", status=401, kind="unauthorized", code="token_exhausted")
    if token.allow_ips and not within(address, token.allow_ips):
        raise ClientError(
            "This key may not be used from your address.", status=403, kind="permission", code="access_denied"
        )
    if not token.user_enabled:
        if not token.group_usable:
            raise ClientError(
                f"This key may not use the group {token.group}.", status=403, kind="permission", code="access_denied"
            )
        raise ClientError("This account is disabled.", status=403, kind="permission", code="access_denied")

"""Service accounts: the JSON that Google gives out as a key, and its exchange for an access token.

No message here quotes the key. Source: provider-translation B.3, interfaces 3, user-demands R11.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

import msgspec

from newapi_proxy.adapters._signing import rs256
from newapi_proxy.adapters.base import Granted, Outgoing, Target
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.usage import counted
from newapi_proxy.secret import Secret
from newapi_proxy.wire import tree

TOKENS: Final = "https://oauth2.googleapis.com/token"
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME: Final = 3600  # seconds, the most that is granted
# Everything else that is no JSON is an API key, which goes into a header of its own.
_READY: Final = ("ya29.", "eyJ")  # how tokens begin that need no exchange
_NEEDED: Final = ("client_email", "private_key")


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A service account's key as far as it is needed; `fault` says in a sentence why it cannot be used."""

    email: str = ""
    private_key: Secret = Secret("")
    key_id: str = ""
    project: str = ""
    token_uri: str = TOKENS
    fault: str = ""


@lru_cache(maxsize=256)
def account(key: Secret) -> Account | None:
    """The service account in a key; None for a key of another kind. Never raises: see `fault`."""
    text = key.reveal().strip()
    if not text.startswith("{"):
        return None
    value = tree.lenient(text.encode("utf-8", "replace"))
    if not isinstance(value, dict):
        return Account(fault="is no valid JSON")
    kind = _word(value, "type")
    if kind and kind != "service_account":  # other kinds are exchanged in ways of their own
        return Account(fault="is of another type than service_account")
    for name in _NEEDED:
        if not _word(value, name):
            return Account(fault=f"has no {name}")
    pem = _word(value, "private_key").replace("\\n", "\n")  # pasted through a form, line ends come escaped twice
    if "-----BEGIN" not in pem:
        return Account(fault="has a private_key that is not in PEM form")
    uri = _word(value, "token_uri") or TOKENS
    return Account(
        email=_word(value, "client_email"),
        private_key=Secret(pem),
        key_id=_word(value, "private_key_id"),
        project=_word(value, "project_id"),
        token_uri=uri,
        fault="" if _callable(uri) else "has a token_uri that is no https address",
    )


def bearer(key: Secret) -> bool:
    """Whether the key is an access token already."""
    return key.reveal().startswith(_READY)


def fault(key: Secret) -> str | None:
    """What is wrong with a key, for those who check a configuration; None for nothing."""
    found = account(key)
    return None if found is None or not found.fault else f"this service account key {found.fault}"


class AccessTokens:
    """The exchange; see adapters.base.Credential."""

    def request(self, to: Target) -> Outgoing | None:
        """The signed claim, sent where the account says. None for API keys and ready tokens."""
        found = account(to.key)
        if found is None:
            return None
        if found.fault:
            raise _unusable(found.fault)
        if not (to.options.project or found.project):
            raise _unusable("names no project, and the channel has none")
        claims: dict[str, Any] = {
            "iss": found.email,
            "aud": found.token_uri,
            "scope": SCOPE,
            "iat": to.now,
            "exp": to.now + LIFETIME,
        }
        header = {"typ": "JWT", **({"kid": found.key_id} if found.key_id else {})}
        try:
            assertion = rs256(header, claims, found.private_key.reveal())
        except ValueError as error:
            raise _unusable(f"holds {error} as private_key") from None
        return Outgoing(
            url=found.token_uri,
            body=f"grant_type={quote_plus(GRANT)}&assertion={assertion}".encode(),
            headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
        )

    def granted(self, body: tree.Document, now: int) -> Granted | None:
        """The token and its end."""
        value = body.tree if isinstance(body.tree, dict) else {}
        token, life = value.get("access_token"), counted(value.get("expires_in"))
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            return None
        return Granted(text=token, expires=now + (LIFETIME if life is None else life)) if token else None


def _unusable(why: str) -> UpstreamFailure:
    return UpstreamFailure(
        f"The channel's service account key {why}.",
        kind="upstream_auth",
        code="upstream_credentials",
        blames="key",
        detail="key not exchanged",
    )


# A claim signed with the key is sent there: in the clear it could be used by whoever reads along.
def _callable(uri: str) -> bool:
    """https anywhere, http on this machine only."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or not uri.isascii() or any(letter <= " " for letter in uri):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _here(host))


def _here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _word(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""

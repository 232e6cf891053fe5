"""AWS Signature Version 4, in headers. Pure: a function of request, keys and time.

The path is encoded once more than it stands in the URL, as all services but S3 want it: a model id's `%3A` becomes
`%253A` in what is signed. Signed are the host, the content type and every `x-amz-` header; what a client library or a
proxy on the way may touch is not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_SIGNED: Final = frozenset({"host", "content-type"})
_PORTS: Final = {"https": 443, "http": 80}


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs, for which service and region."""

    access: str
    secret: str
    region: str
    service: str


def signed(keys: Keys, method: str, url: str, headers: Mapping[str, str], body: bytes, now: int) -> dict[str, str]:
    """The headers to add: `authorization` and `x-amz-date`. `now` in unix seconds."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    kept = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    kept = {name: value for name, value in kept.items() if name in _SIGNED or name.startswith("x-amz-")}
    kept.setdefault("host", _host(parts.scheme, parts.hostname or "", parts.port))
    kept["x-amz-date"] = moment
    names = ";".join(sorted(kept))
    request = "\n".join(
        (
            method,
            quote(parts.path or "/", safe="/-_.~"),
            _query(parts.query),
            *(f"{name}:{kept[name]}" for name in sorted(kept)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{moment[:8]}/{keys.region}/{keys.service}/aws4_request"
    text = "\n".join((ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = _mac(key, part)
    signature = _mac(key, text).hex()
    authorization = f"{ALGORITHM} Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {"authorization": authorization, "x-amz-date": moment}


# As clients write it: without the port that the scheme means anyway, an IPv6 address in brackets.
def _host(scheme: str, name: str, port: int | None) -> str:
    host = f"[{name}]" if ":" in name else name
    return host if port is None or port == _PORTS.get(scheme) else f"{host}:{port}"


# Sorted as it stands in the URL, where it is encoded already.
def _query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()

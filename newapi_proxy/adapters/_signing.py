"""Signed tokens for providers that want one made from their key: HS256 JSON Web Tokens.

A function of key and time; nothing is kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from newapi_proxy.wire import tree


def hs256(header: dict[str, Any], claims: dict[str, Any], secret: str) -> str:
    """The compact form of a token over these claims; `alg` is set here."""
    signed = b".".join(_encoded(tree.encode(part)) for part in ({"alg": "HS256", **header}, claims))
    return (signed + b"." + _encoded(hmac.new(secret.encode(), signed, hashlib.sha256).digest())).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

"""Signed tokens for providers that want one made from their key: JSON Web Tokens, HS256 and RS256.

Functions of key and claims; nothing is kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from newapi_proxy.wire import sealing, tree


def hs256(header: dict[str, Any], claims: dict[str, Any], secret: str) -> str:
    """The compact form of a token over these claims; `alg` is set here."""
    signed = b".".join(_encoded(tree.encode(part)) for part in ({"alg": "HS256", **header}, claims))
    return (signed + b"." + _encoded(hmac.new(secret.encode(), signed, hashlib.sha256).digest())).decode()


def rs256(header: dict[str, Any], claims: dict[str, Any], pem: str) -> str:
    """The compact form of a token over these claims, signed with an RSA key; `alg` is set here.

    Raises ValueError for text that holds no unencrypted RSA key; its message holds nothing of the key.
    """
    signed = b".".join(_encoded(tree.encode(part)) for part in ({"alg": "RS256", **header}, claims))
    return (signed + b"." + _encoded(sealing.signed(signed, pem))).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

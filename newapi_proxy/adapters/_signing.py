"""Signed tokens for providers that want one made from their key: JSON Web Tokens, HS256 and RS256.

Functions of key and claims; nothing is kept.
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


def rs256(header: dict[str, Any], claims: dict[str, Any], pem: str) -> str:
    """The compact form of a token over these claims, signed with an RSA key; `alg` is set here.

    Raises ValueError for text that holds no unencrypted RSA key; its message holds nothing of the key.
    """
    # Loaded on first use: most daemons have no such key, and the library takes ten megabytes.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("no private key in PEM form") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("no RSA key")
    signed = b".".join(_encoded(tree.encode(part)) for part in ({"alg": "RS256", **header}, claims))
    return (signed + b"." + _encoded(key.sign(signed, PKCS1v15(), SHA256()))).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

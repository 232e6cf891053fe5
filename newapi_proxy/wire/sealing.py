"""Bytes signed with RSA (PKCS #1 v1.5 over SHA-256) and sealed with AES-256-GCM; keys as PEM text.

Functions of key and bytes. No message here quotes a key. The library is loaded by the first call: most daemons need
none of it, and it takes ten megabytes.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

AES_KEY: Final = 32  # bytes
_BARE: Final = re.compile(r"[A-Za-z0-9+/=\s]+")


@lru_cache(maxsize=16)
def private_key(pem: str) -> RSAPrivateKey:
    """The key. Raises ValueError for text that holds no unencrypted RSA key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_armoured(pem, "PRIVATE KEY"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("no private key in PEM form") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("no RSA key")
    return key


@lru_cache(maxsize=64)
def public_key(pem: str) -> RSAPublicKey:
    """The key, or that of a certificate. Raises ValueError for text that holds none of RSA."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certified = "BEGIN CERTIFICATE" in pem
        key: object = load_pem_x509_certificate(pem.encode()).public_key() if certified else None
        key = key or load_pem_public_key(_armoured(pem, "PUBLIC KEY"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("no public key or certificate in PEM form") from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("no RSA key")
    return key


def _armoured(pem: str, what: str) -> bytes:
    """PEM with the lines around it, which some pages leave away; line ends may come escaped."""
    text = pem.replace("\\n", "\n").strip()
    if "-----BEGIN" in text or not _BARE.fullmatch(text):
        return text.encode()
    bare = "".join(text.split())
    lines = [bare[start : start + 64] for start in range(0, len(bare), 64)]
    return "\n".join((f"-----BEGIN {what}-----", *lines, f"-----END {what}-----", "")).encode()


def signed(data: bytes, pem: str) -> bytes:
    """The signature. Raises ValueError as `private_key` does."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    return private_key(pem).sign(data, PKCS1v15(), SHA256())


def vouched(data: bytes, signature: str, pem: str) -> bool:
    """Whether the signature, in base64, is the key's over the data. Raises ValueError as `public_key` does."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        public_key(pem).verify(b64decode(signature, validate=True), data, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def opened(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """What was sealed, the tag at its end; None where key, nonce or associated data are other ones."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except (InvalidTag, ValueError, OverflowError):
        return None

"""Service accounts for tests: a key made once per run, its JSON, and how to read what was signed with it."""

from __future__ import annotations

import base64
import functools
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

TOKEN_URI: Final = "https://tokens.example/token"
EMAIL: Final = "relay@project-1.iam.gserviceaccount.com"


@functools.cache
def _key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


@functools.cache
def pem() -> str:
    """The private key as the JSON has it."""
    return _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def account(**changes: Any) -> str:
    """The JSON; None takes a field out."""
    fields = {
        "type": "service_account",
        "project_id": "project-1",
        "private_key_id": "kid-1",
        "private_key": pem(),
        "client_email": EMAIL,
        "token_uri": TOKEN_URI,
        **changes,
    }
    return orjson.dumps({name: value for name, value in fields.items() if value is not None}).decode()


def claimed(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of the assertion in an exchange's body; its signature is checked."""
    form = parse_qs(body.decode(), strict_parsing=True)
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, claims, signature = form["assertion"][0].split(".")
    _key().public_key().verify(_decoded(signature), f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
    return orjson.loads(_decoded(head)), orjson.loads(_decoded(claims))


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

"""What a session is: a random text in the browser, and here the digest of it with whom it stands for.

Pure: chance and the moment come in. A key is remembered by its digest, which the database has anyway; a key of the
operator's by a digest that only its session's text can make, so that the database helps nobody to guess it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from newapi_proxy.secret import Secret
from newapi_proxy.store.sessions import Begun, Session

KEY: Final = "key"  # the holder of one key
USER: Final = "user"  # an account, with all its keys
OPERATOR: Final = "admin"  # whoever holds one of `admin.keys`
USED: Final = "used"  # nobody: a proof that was used
BYTES: Final = 32  # of chance in a session's text


def number(text: str) -> str:
    """A session's number of its text."""
    return sha256(f"session {text}".encode()).hexdigest()


def opened(text: str, kind: str, subject: str, at: int, seconds: float) -> Begun:
    """A session that begins now and lasts so long at the most."""
    return Begun(Session(number(text), kind, subject, at + int(seconds)), at)


def used(proof: str, at: int, seconds: int) -> Begun:
    """The mark that a proof was used, kept as long as the proof would be good for."""
    return Begun(Session(sha256(f"proof {proof}".encode()).hexdigest(), USED, "", at + seconds), at)


def operator(text: str, key: str) -> str:
    """How the session of that text stands for the operator's key."""
    return hmac.new(text.encode(), key.encode(), sha256).hexdigest()


def still(text: str, subject: str, keys: Iterable[Secret]) -> bool:
    """Whether the operator's key that the session began with is still one."""
    return any(hmac.compare_digest(operator(text, key.reveal()), subject) for key in keys)

"""What requests of other kinds than chat ask for, and what their answers hold. Knows no dialect.

Source: provider-translation A.3, A.5; tasks-and-accounts 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

Tree = dict[str, Any]


class Embed(msgspec.Struct, frozen=True, kw_only=True):
    """Texts, lists of token numbers, or objects of some server's own, to be made vectors.

    `base64`: how the client wants those written. `task`, `title`: what for, in Google's words, where the client's
    format has a place for it.
    """

    inputs: tuple[str | tuple[int, ...] | Tree, ...]
    dimensions: int | None = None
    base64: bool = False
    task: str | None = None
    title: str | None = None


class Rerank(msgspec.Struct, frozen=True, kw_only=True):
    """Documents to be put in order of their bearing on a query.

    `documents` are their texts. `top_n` None: all of them. `return_documents` None: the client did not say.
    """

    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    return_documents: bool | None = None


class Depict(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures to be made of words, or of pictures in the form. `url`: the client wants addresses, no bytes."""

    action: Literal["generations", "edits", "variations"] = "generations"
    prompt: str = ""
    n: int = 1
    size: str = ""
    quality: str = ""
    url: bool = False


class Speak(msgspec.Struct, frozen=True, kw_only=True):
    """A text to be spoken. `format` is the client's word for the sound it wants, "" for the server's own choice."""

    text: str
    format: str = ""


class Transcribe(msgspec.Struct, frozen=True, kw_only=True):
    """Sound to be written down, in its own language or in English."""

    action: Literal["transcriptions", "translations"] = "transcriptions"


Matter = Embed | Rerank | Depict | Speak | Transcribe | None


class Vector(msgspec.Struct, frozen=True):
    """One input's vector: numbers, or little-endian float32 as base64."""

    values: Sequence[float] | str
    index: int


class Ranked(msgspec.Struct, frozen=True):
    """One document's place in the order: its index in the request. `document` as upstream gave it back."""

    index: int
    score: float
    document: str | Tree | None = None


class Handed(msgspec.Struct, frozen=True):
    """Some of an answer that is handed on as it comes: so many bytes of it."""

    size: int

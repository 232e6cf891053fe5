"""A vocabulary of word pieces as an encoder of tiktoken's: Gemma's, which counts as Gemini's own does.

Measured on recorded prompts and answers: where nothing is hidden, the sum is upstream's to the token. The pieces are
data of the package (`data/gemma/NOTICE` says whose), never from the network. Loading takes 0.6 s and 100 MB.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from newapi_proxy.errors import OurError

if TYPE_CHECKING:
    import tiktoken

FILE: Final = Path(__file__).parent / "data" / "gemma" / "pieces.gz"
DIGEST: Final = "c4f2cd8871717e0c457633f3f50b61886d9340452b2bc72949c91ea031c2c281"
_RUN: Final = 31  # line breaks, tabs or spaces that are one token at most
_TAGS: Final = [
    *("table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("blockquote", "strong", "em", "b", "i", "u", "s", "sub", "sup", "code", "a", "html", "body", "img", "span"),
    *("bbox", "ul", "li", "div", "iframe", "footer"),
]
_TAG: Final = f"</?(?:{'|'.join(_TAGS)})>"
# Words with the space before them. What is a token as a whole comes first; nothing else is cut before the merges.
_PATTERN: Final = rf"{_TAG}|\n{{1,{_RUN}}}|\t{{1,{_RUN}}}| {{2,{_RUN}}}| ?(?:(?!{_TAG})[^ \n\t])+| "


def load(file: Path = FILE) -> tiktoken.Encoding:
    """The encoder. Raises OurError when the file is missing or damaged."""
    import tiktoken

    return tiktoken.Encoding(
        "gemma3", pat_str=_PATTERN, mergeable_ranks=_ranks(unpacked(file, DIGEST).split("\n")), special_tokens={}
    )


def unpacked(file: Path, digest: str) -> str:
    """A packed file's text, checked by its SHA-256. Raises OurError naming the file."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise OurError(
            f"The tokenizer's vocabulary cannot be read: {file} ({error.strerror}). Reinstall the package.",
            code="tokenizer_unavailable",
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise OurError(
            f"The tokenizer's vocabulary is damaged: {file} does not have SHA-256 {digest}. Reinstall the package.",
            code="tokenizer_damaged",
        )
    return gzip.decompress(data).decode()


def _ranks(pieces: list[str]) -> dict[bytes, int]:
    """Pieces by the order in which they are merged, out of bytes: first into characters, then as the vocabulary says.

    A character that the vocabulary lacks falls into its bytes.
    """
    letters = [piece.encode() for piece in pieces if len(piece) == 1]
    begun = sorted({letter[:size] for letter in letters for size in range(2, len(letter))})
    blanks = [blank * count for blank in (b"\n", b"\t", b" ") for count in range(2, _RUN + 1)]
    tags = [f"<{slash}{name}>".encode() for slash in ("", "/") for name in _TAGS]
    words = (piece.encode() for piece in pieces if len(piece) > 1)
    order = [*(bytes((one,)) for one in range(256)), *begun, *letters, *blanks, *tags, *words]
    return {piece: rank for rank, piece in enumerate(dict.fromkeys(order))}

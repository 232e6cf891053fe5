"""Vocabularies of word pieces as encoders of tiktoken's: Gemma's, which counts as Gemini's own does, and Tekken.

Measured on recorded prompts and answers: where nothing is hidden, the sum is upstream's to the token. The pieces are
data of the package (`data/*/NOTICE` say whose), never from the network. Loading takes 0.6 s and 100 MB, or half.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path
from typing import TYPE_CHECKING, Final

from newapi_proxy.errors import OurError

if TYPE_CHECKING:
    import tiktoken

FILE: Final = Path(__file__).parent / "data" / "gemma" / "pieces.gz"
DIGEST: Final = "c4f2cd8871717e0c457633f3f50b61886d9340452b2bc72949c91ea031c2c281"
RANKED: Final = FILE.parents[1] / "tekken" / "pieces.xz"
RANKED_DIGEST: Final = "97f8dbed2ed4afd596ce55f7bd2d0db93099b527989af310def812ae37daa093"
_CUT: Final = (  # words with what is before them, digits one by one, marks, breaks, blanks
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
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


def ranked(file: Path = RANKED) -> tiktoken.Encoding:
    """The encoder whose pieces are all there, each with its length before it. Raises OurError likewise."""
    import tiktoken

    data = lzma.decompress(_checked(file, RANKED_DIGEST))
    ranks: dict[bytes, int] = {}
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        ranks[data[at + 1 : end]] = len(ranks)
        at = end
    return tiktoken.Encoding("tekken", pat_str=_CUT, mergeable_ranks=ranks, special_tokens={})


def unpacked(file: Path, digest: str) -> str:
    """A packed file's text, checked by its SHA-256. Raises OurError naming the file."""
    return gzip.decompress(_checked(file, digest)).decode()


def _checked(file: Path, digest: str) -> bytes:
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
    return data


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

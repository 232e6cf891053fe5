"""Tokenizers: which encoding a model needs, and the rank files, never from the network.

Source: provider-translation E.1, E.6. tiktoken is imported and its tables are loaded on first use: both take about
125 MB and 0.4 s. Nothing is ever downloaded: a file that is missing or wrong is an error, and it stays where it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from newapi_proxy.billing import tiling, vocabulary
from newapi_proxy.billing.tiling import Generation
from newapi_proxy.errors import OurError

if TYPE_CHECKING:
    import tiktoken

Merged = Literal["o200k_base", "cl100k_base", "gemma3", "tekken"]  # what tiktoken encodes
Encoding = Merged | Generation
DIRECTORY: Final = Path(__file__).parent / "data" / "tiktoken"
PIECE: Final = 100_000  # characters without a break that are encoded; the rest of such a run is extrapolated
SLICE: Final = 1_000_000  # characters handed to the encoder at once: its list of tokens is made under the GIL
_VARIABLE: Final = "TIKTOKEN_CACHE_DIR"
_FILES: Final[dict[str, tuple[str, str]]] = {  # name in tiktoken's cache, SHA-256
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
# Anchored at a run's beginning: else a run just too short is tried again from each of its characters.
_CUT: Final = re.compile(r"(?<=\S) ")  # no token reaches across this place
_LOADED: Final[dict[Merged, tiktoken.Encoding]] = {}
_LOADING: Final = threading.Lock()


_CL100K: Final = re.compile(
    r"gpt-4(-|$)|gpt-3\.?5|davinci-002|babbage-002|text-embedding-(ada-002|3-)|text-davinci-00[23]|code-"
)
_MAKERS: Final = re.compile(r"^(?:[a-z][a-z0-9]*\.)+(?=[a-z])")  # "openai.", "us.anthropic."
_WORD_PIECES: Final = re.compile(r"gemini|gemma|learnlm")
_TILED: Final = "claude"
OLDER: Final = r"mixtral|mistral-7b|mathstral|codestral-(2405|mamba)|mistral-((large|small|medium|tiny)-2[34]|embed)"
_RANKED: Final = re.compile(rf"^(?!.*({OLDER})).*(mistral|ministral|codestral|devstral|magistral|pixtral)")
_KNOWN: Final = re.compile(_CL100K.pattern + r"|gpt-|chatgpt-|o\d")


def bare(model: str) -> str:
    """The name without fine-tuning and provider prefixes, in lower case: openai/gpt-4o, us.openai.gpt-4o → gpt-4o."""
    name = model.lower().removeprefix("ft:")
    return _MAKERS.sub("", name.rpartition("/")[2].partition(":")[0])


def encoding(model: str) -> Encoding:
    """The encoding's name. The two oldest families (text-davinci, code) have one of their own: cl100k comes close."""
    name = bare(model)
    if _WORD_PIECES.search(name):
        return "gemma3"
    if _RANKED.search(name):
        return "tekken"
    if _TILED in name:
        return tiling.generation(name)
    return "cl100k_base" if _CL100K.match(name) else "o200k_base"


def words(numbers: Sequence[int], model: str) -> str | None:
    """The text that these tokens of the model's are; None where its encoding is not known, or where they are none."""
    name = encoding(model)
    if not _KNOWN.match(bare(model)) or name == "claude3" or name == "claude5":
        return None
    try:
        return load(name).decode(list(numbers))
    except (KeyError, OverflowError):
        return None


def loaded(model: str = "") -> bool:
    """Whether the tables that a model needs are in memory."""
    needed = encoding(model)
    return (needed in _LOADED or tiling.loaded(needed)) and all(name in _LOADED for name in _FILES)


def warm() -> None:
    """Loads both of tiktoken's own tables; the others wait for the first model that needs them.

    Raises OurError when a file is missing or wrong. Takes 0.4 s: not on the event loop.
    """
    load("o200k_base")
    load("cl100k_base")


def load(name: Merged) -> tiktoken.Encoding:
    """The encoder, from memory or its checked file. Raises OurError."""
    found = _LOADED.get(name)
    if found is not None:
        return found
    with _LOADING:
        if name in _LOADED:
            return _LOADED[name]
        if name == "gemma3" or name == "tekken":
            _LOADED[name] = vocabulary.load() if name == "gemma3" else vocabulary.ranked()
        else:
            directory = Path(os.environ.setdefault(_VARIABLE, str(DIRECTORY)))
            verify(name, directory)
            import tiktoken

            _LOADED[name] = tiktoken.get_encoding(name)
    return _LOADED[name]


def verify(name: Merged, directory: Path) -> None:
    """Checks the rank file before tiktoken sees it, which would delete a wrong one and go to the network.

    Raises OurError naming the file and what is wrong with it.
    """
    file, digest = _FILES[name]
    path = directory / file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OurError(
            f"The table of tokenizer {name} cannot be read: {path} ({error.strerror}). Unset {_VARIABLE} to use the "
            "one in the package.",
            code="tokenizer_unavailable",
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise OurError(
            f"The table of tokenizer {name} is damaged: {path} does not have SHA-256 {digest}. Reinstall the package, "
            f"or unset {_VARIABLE}.",
            code="tokenizer_damaged",
        )


def tokens(text: str, name: Encoding) -> int:
    """How many tokens a text is; special tokens in it count as the text they are."""
    if name == "claude3" or name == "claude5":
        return tiling.load(name).count(text)
    encoder = load(name)
    if len(text) <= PIECE:
        return len(encoder.encode(text, disallowed_special=()))
    total = position = 0
    for start, end in _long_runs(text):
        total += _sliced(encoder, text, position, start)
        sample = len(encoder.encode(text[start : start + PIECE], disallowed_special=()))
        total += -(-sample * (end - start) // PIECE)
        position = end
    return total + _sliced(encoder, text, position, len(text))


def _sliced(encoder: tiktoken.Encoding, text: str, position: int, end: int) -> int:
    """The tokens of a part of the text, encoded in slices that are cut where the sum stays the same."""
    total = 0
    while position < end:
        cut = _CUT.search(text, position + SLICE, end) if end - position > SLICE else None
        stop = cut.start() if cut is not None else end
        total += len(encoder.encode(text[position:stop], disallowed_special=()))
        position = stop
    return total


def _long_runs(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each run of more than PIECE characters without a change between space and no space.

    Looks at PIECE characters at a time, at each once: a long run reaches over the edge of two such pieces, so only the
    runs at the edges matter. One regular expression over the whole text would try each long word from each character.
    """
    begun, blank = 0, text[:1].isspace()  # the run that is open at the edge, and its kind
    for position in range(0, len(text), PIECE):
        piece = text[position : position + PIECE]
        head, tail = _edges(piece)
        if piece[0].isspace() == blank and head == len(piece):
            continue
        end = position + head if piece[0].isspace() == blank else position
        if end - begun > PIECE:
            yield begun, end
        begun, blank = position + len(piece) - tail, piece[-1].isspace()
    if len(text) - begun > PIECE:
        yield begun, len(text)


def _edges(piece: str) -> tuple[int, int]:
    """How long the first and the last run of a text are that is not empty."""
    size = len(piece)
    head = size - len(piece.lstrip()) if piece[0].isspace() else len(piece.split(maxsplit=1)[0])
    tail = size - len(piece.rstrip()) if piece[-1].isspace() else len(piece.rsplit(maxsplit=1)[-1])
    return head, tail

"""The usage record every provider is normalised to, and its arithmetic.

Source: provider-translation A.0.3. `prompt` holds all input, cached and cache-written tokens included; `completion` all
output, reasoning included. The rest are parts of these two. Numbers from upstream are untrusted: read them through
`counted`, which refuses what no provider can mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, Literal

import msgspec

Source = Literal["upstream", "counted", "mixed", "none"]
MOST: Final = 100_000_000  # tokens in one request; above is absurd (fault U27), the largest context windows are 1e7


class Pieces(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for or got by the piece: pictures made, characters spoken, sound by its length.

    Who serves such a route sets `Ask.pieces`, which is held, and where less or more came `Usage.pieces`, which is
    charged; the relay does the rest. Only one kind is set. Pictures: how many (0 came: nothing is charged), `size` and
    `quality` as the client asked, "" where it did not. Characters: Unicode characters of the text. Milliseconds: of
    sound; `billing.sound` finds them. Tokens that upstream states stand in the same `Usage` as a chat's: they are
    charged where the model has a price by the token only.
    """

    pictures: int = 0
    size: str = ""
    quality: str = ""
    characters: int = 0
    milliseconds: int = 0

    @property
    def seconds(self) -> int:
        """Seconds begun: a length is charged by them."""
        return -(-self.milliseconds // 1000)

    @property
    def count(self) -> int:
        """How many: pictures, characters or seconds. 0: nothing came."""
        return self.pictures or self.characters or self.seconds


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one request.

    `cache_write` are 5-minute (or unspecified) cache writes, `cache_write_1h` the 1-hour ones. `others` are
    sub-inferences billed beside this one, each at its own model's price (Anthropic compaction, advisor). `calls`: how
    often a price per call is due, where the answer says it (searches); None: as asked. `pieces`: what came on routes
    that sell pictures, speech or sound; None on all others, and where as much came as was asked.
    `cache_told`: what upstream told as read from the cache where that is more than the whole prompt; shown by formats
    that do not add it up, never billed.
    """

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_told: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio_in: int = 0
    image_in: int = 0
    reasoning: int = 0
    audio_out: int = 0
    image_out: int = 0
    accepted_prediction: int = 0
    rejected_prediction: int = 0
    server_tools: Mapping[str, int] = {}
    others: tuple[tuple[str, Usage], ...] = ()
    calls: int | Fraction | None = None
    pieces: Pieces | None = None
    source: Source = "upstream"

    @property
    def plain_input(self) -> int:
        """Input that is neither cached nor cache-written: Anthropic's `input_tokens`."""
        return max(0, self.prompt - self.cache_read - self.cache_write - self.cache_write_1h)

    @property
    def cache_shown(self) -> int:
        """Cached input as upstream told it."""
        return max(self.cache_read, self.cache_told)

    @property
    def empty(self) -> bool:
        """Nothing was used: nothing to bill."""
        return not (self.prompt or self.completion or self.server_tools or self.others) and (
            self.pieces is None or not self.pieces.count
        )

    @property
    def entered(self) -> int:
        """What the usage log shows as prompt tokens: these, or the pieces where no token was counted."""
        if self.prompt or self.pieces is None:
            return self.prompt
        return self.pieces.count


NOTHING: Final = Usage(source="none")


def counted(value: Any) -> int | None:
    """A token count from upstream, or None where it is no count: negative, absurd, text, NaN, a bool (demand B5).

    Whole floats are taken (some gateways send 12.0).
    """
    if type(value) is int:
        return value if 0 <= value <= MOST else None
    if type(value) is float and value.is_integer():
        return int(value) if 0 <= value <= MOST else None
    return None


def clamped(usage: Usage) -> Usage:
    """The record with parts that fit their wholes: no part above prompt or completion, so no price term is negative."""
    if not (
        usage.cache_read
        or usage.cache_write
        or usage.cache_write_1h
        or usage.audio_in
        or usage.image_in
        or usage.audio_out
        or usage.image_out
    ):
        return usage
    read = min(usage.cache_read, usage.prompt)
    write = min(usage.cache_write, usage.prompt - read)
    hour = min(usage.cache_write_1h, usage.prompt - read - write)
    audio = min(usage.audio_in, usage.prompt - read - write - hour)
    image = min(usage.image_in, usage.prompt - read - write - hour - audio)
    audio_out = min(usage.audio_out, usage.completion)
    image_out = min(usage.image_out, usage.completion - audio_out)
    parts = (read, write, hour, audio, image, audio_out, image_out)
    if parts == (
        usage.cache_read,
        usage.cache_write,
        usage.cache_write_1h,
        usage.audio_in,
        usage.image_in,
        usage.audio_out,
        usage.image_out,
    ):
        return usage
    return msgspec.structs.replace(
        usage,
        cache_read=read,
        cache_write=write,
        cache_write_1h=hour,
        audio_in=audio,
        image_in=image,
        audio_out=audio_out,
        image_out=image_out,
    )

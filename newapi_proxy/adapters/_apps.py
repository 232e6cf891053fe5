"""Apps that somebody built on a provider's platform: what they decide themselves, and what they are told in words.

Such an app has its model, its parameters and its tools; a client brings a conversation and files. Knows no platform's
wire; `whose` is the platform's name for messages. Pure. Source: provider-translation A.0.4, B.9.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from newapi_proxy.adapters.base import Reader, Target
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Format, Media, Reasoning, Refusal, Text, ToolCall, ToolResult
from newapi_proxy.ir.events import Ended, Event, Failed
from newapi_proxy.wire import sse, tree

FILLER: Final = "."  # a query that must be there and has nothing to say
NOBODY: Final = "api-user"  # the inherited name of a user whom nobody names
_SUFFIXES: Final = {"image/jpeg": "jpg", "image/svg+xml": "svg", "text/plain": "txt", "audio/mpeg": "mp3"}
_MAGIC: Final = (
    ("iVBOR", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lG", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBER", "application/pdf"),
)

# Where the formats keep what an app decides by itself; the first name that the client's body has is reported.
_STEERED: Final[dict[str, tuple[str, ...]]] = {
    "max_tokens": ("max_completion_tokens", "max_tokens", "max_output_tokens", "generationConfig.maxOutputTokens"),
    "temperature": ("temperature", "generationConfig.temperature"),
    "top_p": ("top_p", "generationConfig.topP"),
    "top_k": ("top_k", "generationConfig.topK"),
    "stop": ("stop", "stop_sequences", "generationConfig.stopSequences"),
    "thinking": (
        "reasoning_effort",
        "reasoning",
        "thinking",
        "output_config.effort",
        "generationConfig.thinkingConfig",
    ),
    "service_tier": ("service_tier", "serviceTier"),
    "parallel_tools": ("parallel_tool_calls", "tool_choice"),
}
_LOGPROBS: Final = ("logprobs", "top_logprobs", "responseLogprobs", "generationConfig.responseLogprobs")


# An app's answer is one text, and what it may do was decided by whoever built it.
def refuse(ask: Ask, whose: str) -> None:
    """Raises Unsupported for what changes the shape of the answer: an app gives one text and calls its own tools."""
    if ask.tools:
        path = ask.tools[0].path or "tools"
        raise Unsupported(f"{whose} apps bring their own tools; none can be given ({ask.tools[0].name}).", path)
    if ask.controls.n != 1:
        raise Unsupported(f"{whose} gives one answer per request (n).", "n")
    for name in _LOGPROBS:
        if ask.controls.steering.get(name):
            raise Unsupported(f"{whose} gives no log probabilities ({name}).", name)
    modalities = ask.controls.steering.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise Unsupported(f"{whose} answers in text only (modalities).", "modalities")


def dropped(ask: Ask) -> tuple[str, ...]:
    """The paths of what only steers, sorted: the app decides all of it."""
    controls = ask.controls
    found = [_path(ask, names) for field, names in _STEERED.items() if getattr(controls, field) not in (None, ())]
    found += [
        name
        for name, value in controls.steering.items()
        if value is not None and value is not False and name != "modalities"
    ]
    for turn in ask.turns:
        found += [
            f"{part.path.removesuffix('.image_url')}.image_url.detail"
            for part in turn.parts
            if isinstance(part, Media) and part.detail is not None
        ]
        if any(isinstance(part, Reasoning) for part in turn.parts):
            found.append(f"{turn.path}.reasoning_content" if turn.path else "reasoning_content")
    return tuple(sorted({*found, *ask.unknown}))


def _path(ask: Ask, names: tuple[str, ...]) -> str:
    return next((name for name in names if tree.find(ask.tree, name) is not tree.MISSING), names[0])


def texts(parts: tuple[Any, ...], whose: str) -> Iterator[str]:
    """The texts of a message, in their order. Raises Unsupported for calls of a client's tools and their results."""
    for part in parts:
        match part:
            case Text(text=text) | Refusal(text=text):
                yield text
            case Media(text=str(text)):
                yield text
            case ToolCall(path=path) | ToolResult(path=path):
                raise Unsupported(f"{whose} apps take no tool calls of others.", path, "unsupported_content")


def wish(wanted: Format | None) -> str:
    """The words that ask for JSON; "" where none is wanted."""
    if wanted is None:
        return ""
    words = "Answer with one JSON object and nothing else: no text around it, no Markdown fence."
    if wanted.schema:
        words += f" The object must fit this JSON Schema:\n{tree.dumps(wanted.schema)}"
    return words


def user(ask: Ask, to: Target) -> str:
    """Whom the platform knows: the client's own name for its user, else a stable one for the key that asks."""
    named = "".join(letter for letter in ask.controls.user or "" if letter.isprintable())
    return named or to.caller or NOBODY


def unstreamed(body: tree.Document, reader: Reader) -> list[Event]:
    """The events of a stream that came whole, for a client that wants none. What is no stream yields `Failed`."""
    decoder = sse.Decoder()
    frames = [*decoder.feed(body.raw), *decoder.close()]
    if not any(isinstance(frame.tree, dict) for frame in frames):
        return [Failed(UpstreamFailure("The upstream's answer cannot be read."))]
    events = [event for frame in frames for event in reader.read(frame)] + list(reader.close())
    return [event for event in events if not isinstance(event, Ended)]


def uploadable(part: Media) -> bool:
    """Whether the medium must be uploaded first: it is there as bytes only."""
    return part.file_id is None and part.url is None and part.data is not None


def multipart(part: Media, fields: Mapping[str, str]) -> tuple[str, bytes]:
    """The content type and body of an upload: the fields, then `file`. Raises Unsupported for broken base64."""
    try:
        data = base64.b64decode(part.data or "", validate=False)
    except (binascii.Error, ValueError):
        raise Unsupported("This content is no valid base64.", part.path, "unsupported_content") from None
    kind = media_type(part)
    name = part.filename or f"{part.kind}.{_suffix(kind)}"
    # Of the content, so that equal uploads are equal bytes; nobody can write a text that holds its own digest.
    mark = f"form-{hashlib.sha256(data).hexdigest()[:32]}"
    plain = (f'--{mark}\r\nContent-Disposition: form-data; name="{one}"\r\n\r\n{fields[one]}\r\n' for one in fields)
    head = (
        f"{''.join(plain)}"
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{_quoted(name)}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    return f"multipart/form-data; boundary={mark}", head.encode() + data + f"\r\n--{mark}--\r\n".encode()


def media_type(part: Media) -> str:
    """The medium's type as the client named it, else by its first bytes; printable, without parameters."""
    named = (part.media_type or "").partition(";")[0].strip().lower()
    if named and named != "application/octet-stream" and named.isascii() and named.isprintable():
        return named
    data = part.data or ""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "application/octet-stream")


def _suffix(kind: str) -> str:
    return _SUFFIXES.get(kind) or "".join(c for c in kind.rpartition("/")[2] if c.isalnum()) or "bin"


# Names come from clients: a quote or a line end would begin a header of theirs.
def _quoted(name: str) -> str:
    """A file name inside quotes of a header, as browsers write it."""
    clean = "".join(c if c.isprintable() else "_" for c in name[-200:])
    return clean.replace("%", "%25").replace('"', "%22")

"""Forms of several parts: read from where their bytes lie, written anew with other fields; files stay where they are.

Knows framing, no field's meaning. Bounds: parts, heads, and the text of all fields together; a file has none but its
source's. Source: provider-translation A.5, reliability §5.2 C15.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec

from newapi_proxy.errors import ClientError
from newapi_proxy.wire import tree

MOST_PARTS: Final = 256
MOST_HEAD: Final = 16 * 1024  # bytes of one part's head
MOST_TEXT: Final = 4 * 1024 * 1024  # bytes of all fields together
WINDOW: Final = 64 * 1024  # bytes that are looked at once
_TYPE: Final = re.compile(r"multipart/form-data\s*;.*?\bboundary=(?:\"([^\"]{1,200})\"|([^\s;\"]{1,200}))", re.I)
_PARAMETER: Final = re.compile(r";\s*(filename\*?|name)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^;\s]+))", re.I)
_BREAKS: Final = {'"': "%22", "\r": "%0D", "\n": "%0A"}


class Source(Protocol):
    """Bytes that lie somewhere: in memory, or in a file of ours."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, at: int, size: int) -> bytes:
        """So many from there, fewer at the end."""
        ...


class Held(msgspec.Struct, frozen=True):
    """A Source in memory."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def read(self, at: int, size: int) -> bytes:
        """See Source."""
        return self.data[at : at + size]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A part with a file name. `head` are its lines as the client wrote them, `at` and `size` its place in `source`."""

    name: str
    filename: str
    media_type: str
    head: bytes
    source: Source
    at: int
    size: int

    def read(self, at: int = 0, size: int | None = None) -> bytes:
        """Its bytes: all of them, or so many from there."""
        rest = max(0, self.size - at)
        return self.source.read(self.at + at, rest if size is None else min(size, rest))


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A form as it came. `fields`: text by name, a list where a name comes twice or ends in []."""

    fields: dict[str, Any]
    files: tuple[File, ...]
    boundary: bytes
    size: int

    def file(self, *names: str) -> File | None:
        """The first file under one of these names."""
        return next((file for file in self.files if file.name in names), None)


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A form to be sent: the fields first, then the files. May be written any number of times.

    Values that are no text are written as JSON; a list is a part each, None none at all.
    """

    fields: Mapping[str, Any]
    files: tuple[File, ...]
    boundary: bytes

    @property
    def content_type(self) -> str:
        """The header that goes with it."""
        return f'multipart/form-data; boundary="{self.boundary.decode()}"'

    def __len__(self) -> int:
        files = sum(len(self._opened(file.head)) + file.size + 2 for file in self.files)
        return len(self._text()) + files + len(self._end())

    def pieces(self, size: int) -> Iterator[bytes]:
        """Its bytes, at most so many at once of a file."""
        yield self._text()
        for file in self.files:
            yield self._opened(file.head)
            for at in range(0, file.size, size):
                yield file.read(at, size)
            yield b"\r\n"
        yield self._end()

    def _text(self) -> bytes:
        out = []
        for name, value in self.fields.items():
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    text = one if isinstance(one, str) else tree.dumps(one)
                    head = b'Content-Disposition: form-data; name="' + _quoted(name) + b'"\r\n'
                    out.append(self._opened(head) + text.encode() + b"\r\n")
        return b"".join(out)

    def _opened(self, head: bytes) -> bytes:
        return b"--" + self.boundary + b"\r\n" + head + b"\r\n"

    def _end(self) -> bytes:
        return b"--" + self.boundary + b"--\r\n"


def _quoted(text: str) -> bytes:
    return "".join(_BREAKS.get(char, char) for char in text).encode()


def head(name: str, filename: str, media_type: str) -> bytes:
    """The lines in front of a file of our own making."""
    disposition = (
        b'Content-Disposition: form-data; name="' + _quoted(name) + b'"; filename="' + _quoted(filename) + b'"'
    )
    return disposition + b"\r\nContent-Type: " + _quoted(media_type) + b"\r\n"


def boundary(content_type: str) -> bytes | None:
    """What parts the form of this content type, None where it is none. Raises ClientError where it does not say."""
    if not content_type.lower().lstrip().startswith("multipart/"):
        return None
    found = _TYPE.search(content_type)
    text = (found[1] or found[2]) if found is not None else ""
    if not text.isascii() or not text.isprintable() or not text:
        raise _broken("its content type names no boundary")
    return text.encode()


def read(source: Source, boundary: bytes) -> Form:
    """The form. Raises ClientError 400 `invalid_multipart` for what is none, or more than one may be."""
    fields: dict[str, Any] = {}
    files: list[File] = []
    room = MOST_TEXT
    for number, (at, end) in enumerate(_parts(source, boundary)):
        if number >= MOST_PARTS:
            raise _broken(f"it has more than {MOST_PARTS} parts")
        lines, start = _head(source, at, end)
        name, filename = _named(lines)
        if filename is not None:
            media_type = _media_type(lines)
            file = File(
                name=name,
                filename=filename,
                media_type=media_type,
                head=lines,
                source=source,
                at=start,
                size=end - start,
            )
            files.append(file)
            continue
        room -= end - start
        if room < 0:
            raise _broken(f"its fields are larger than {MOST_TEXT} bytes")
        _put(fields, name, source.read(start, end - start))
    return Form(fields=fields, files=tuple(files), boundary=boundary, size=len(source))


def _put(fields: dict[str, Any], name: str, data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ClientError(f"{name} is not UTF-8 text.", code="invalid_multipart", param=name) from None
    if name in fields or name.endswith("[]"):
        known = fields.get(name, [])
        fields[name] = [*(known if isinstance(known, list) else [known]), text]
    else:
        fields[name] = text


def _parts(source: Source, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each part between its delimiters, head included."""
    opening, between = b"--" + boundary, b"\r\n--" + boundary
    at = 0 if source.read(0, len(opening)) == opening else _find(source, between, 0)
    if at < 0:
        raise _broken("it does not begin with its boundary")
    at += len(opening) if at == 0 else len(between)
    while True:
        after = source.read(at, 256)
        if after.startswith(b"--"):
            return
        blank = len(after) - len(after.lstrip(b" \t"))
        if after[blank : blank + 2] != b"\r\n":
            raise _broken("a boundary is followed by something else than a line's end")
        start = at + blank + 2
        end = _find(source, between, start - 2)  # a part without anything has its delimiter at once
        if end < 0:
            raise _broken("it ends before its last boundary")
        yield start, max(start, end)
        at = end + len(between)


def _find(source: Source, wanted: bytes, at: int) -> int:
    """Where the bytes stand at or behind a place, -1 nowhere; looks at a window a time."""
    size = len(source)
    while at < size:
        window = source.read(at, WINDOW + len(wanted))
        found = window.find(wanted)
        if found >= 0:
            return at + found
        at += WINDOW
    return -1


def _head(source: Source, at: int, end: int) -> tuple[bytes, int]:
    """A part's lines, and where its content begins."""
    begun = source.read(at, min(MOST_HEAD, end - at))
    if begun.startswith(b"\r\n"):
        return b"", at + 2
    blank = begun.find(b"\r\n\r\n")
    if blank < 0:
        raise _broken(f"a part has no head of at most {MOST_HEAD} bytes")
    return begun[: blank + 2], at + blank + 4


def _named(lines: bytes) -> tuple[str, str | None]:
    """A part's name, and its file name where it has one."""
    text = lines.decode("utf-8", "replace")
    line = next((one for one in text.split("\r\n") if one.lower().startswith("content-disposition:")), "")
    found = {name.lower(): _unescaped(quoted) if quoted else bare for name, quoted, bare in _PARAMETER.findall(line)}
    if "name" not in found:
        raise _broken("a part has no name")
    return found["name"], found.get("filename", found.get("filename*"))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _media_type(lines: bytes) -> str:
    for line in lines.split(b"\r\n"):
        if line.lower().startswith(b"content-type:"):
            return line[13:].strip().decode("latin-1").lower()
    return ""


def _broken(why: str) -> ClientError:
    return ClientError(f"The form cannot be read: {why}.", code="invalid_multipart")

"""Forms: what is read of them wherever a read ends, what is refused, and what is written again."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.errors import ClientError
from newapi_proxy.wire import multipart
from newapi_proxy.wire.multipart import Form, Held, Upload

B = b"--x--"  # a boundary that looks like an end
SOUND = bytes(range(256)) * 8 + b"\r\n--x-\r\n"


def part(head: str, data: bytes, boundary: bytes = B) -> bytes:
    """One part."""
    return b"--" + boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


def field(name: str, value: str) -> bytes:
    """A text."""
    return part(f'Content-Disposition: form-data; name="{name}"', value.encode())


def sound(data: bytes = SOUND) -> bytes:
    """A file."""
    return part('Content-Disposition: form-data; name="file"; filename="a b.mp3"\r\nContent-Type: Audio/MPEG', data)


END = b"--" + B + b"--\r\n"
WHOLE = b"prologue\r\n" + field("model", "m") + sound() + field("g[]", "w") + field("n", "1") + field("n", "2") + END


def read(data: bytes) -> Form:
    """The form of these bytes."""
    return multipart.read(Held(data), B)


def test_fields_and_files() -> None:
    """Fields are text by name, lists where a name repeats or says so; files are found, not read."""
    form = read(WHOLE)
    assert form.fields == {"model": "m", "g[]": ["w"], "n": ["1", "2"]}
    file = form.file("image", "file")
    assert file is not None
    assert (file.name, file.filename, file.media_type, file.size) == ("file", "a b.mp3", "audio/mpeg", len(SOUND))
    assert file.read() == SOUND
    assert file.read(10, 5) == SOUND[10:15]
    assert file.read(file.size - 2, 100) == SOUND[-2:]
    assert form.file("mask") is None


@pytest.mark.parametrize("less", range(-8, 400, 3))
def test_a_boundary_between_two_windows(less: int) -> None:
    """Wherever in a boundary one look ends and the next begins, it is found."""
    data = bytes(multipart.WINDOW - less)
    form = read(sound(data) + field("n", "1") + END)
    assert form.fields == {"n": "1"}
    assert form.files[0].read() == data


def test_written_again() -> None:
    """Fields as they are now, then the files, byte by byte as they were; the length is told beforehand."""
    form = read(WHOLE)
    upload = Upload(
        fields={**form.fields, "model": "other", "k": 1, "flag": True, "gone": None, 'q"\r\n': "é"},
        files=form.files,
        boundary=form.boundary,
    )
    pieces = list(upload.pieces(100))
    data = b"".join(pieces)
    assert max(map(len, pieces)) < 1000
    assert len(data) == len(upload)
    again = multipart.read(Held(data), multipart.boundary(upload.content_type) or b"")
    assert again.fields == {
        "model": "other",
        "g[]": ["w"],
        "n": ["1", "2"],
        "k": "1",
        "flag": "true",
        "q%22%0D%0A": "é",
    }
    assert [(one.head, one.read()) for one in again.files] == [(one.head, one.read()) for one in form.files]
    assert b"".join(upload.pieces(7)) == data


@given(st.lists(st.tuples(st.text("abc[]", min_size=1, max_size=3), st.text(max_size=20)), max_size=5))
def test_reading_what_was_written(pairs: list[tuple[str, str]]) -> None:
    """What is written is read as the same fields."""
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        if "--" + B.decode() not in value:
            fields.setdefault(name, []).append(value)
    form = read(b"".join(Upload(fields=fields, files=(), boundary=B).pieces(10)))
    told = {name: value if isinstance(value, list) else [value] for name, value in form.fields.items()}
    assert told == fields


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing",
        WHOLE[:-20],
        field("a", "b"),
        b"--" + B + b"x\r\n",
        part("X: y", b"z") + END,
        b"--" + B + b"\r\n" + b"a: b\r\n" * 5000 + END,
        part('Content-Disposition: form-data; name="a"', b"\xff") + END,
        field("a", "b") * (multipart.MOST_PARTS + 1) + END,
        field("a", "b" * 3_000_000) * 2 + END,
    ],
    ids=["empty", "none", "cut", "no end", "no line", "no name", "long head", "no text", "many", "large"],
)
def test_broken_forms(data: bytes) -> None:
    """What is no form, or more than one may be, is the client's fault and said so."""
    with pytest.raises(ClientError) as caught:
        read(data)
    assert (caught.value.status, caught.value.code) == (400, "invalid_multipart")


@given(st.binary(max_size=300), st.integers(0, len(WHOLE)))
def test_garbage(noise: bytes, at: int) -> None:
    """Any bytes are a form or a declared error."""
    for data in (noise, WHOLE[:at] + noise + WHOLE[at:], b"--" + B + noise):
        with suppress(ClientError):
            assert read(data).size == len(data)


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', b"a b"),
        ("multipart/form-data;boundary=----WebKit123", b"----WebKit123"),
        ("application/json", None),
        ("", None),
    ],
)
def test_boundaries(kind: str, boundary: bytes | None) -> None:
    """The content type says what parts a form, or that it is none."""
    assert multipart.boundary(kind) == boundary


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x", "multipart/"]
)
def test_no_boundary(kind: str) -> None:
    """A form without a boundary is refused (C15)."""
    with pytest.raises(ClientError):
        multipart.boundary(kind)

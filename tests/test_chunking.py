"""Every cut of a stream gives the client the same bytes."""

from __future__ import annotations

import pytest

from tests.fakes.golden import Golden, folders, streamed

STREAMS = [(one, name) for one in folders() if one.streamed and one.case.status == 200 for name in one.case.clients]
TEXTS = [(one, name) for one, name in STREAMS if not one.binary]
IDS = [f"{one.name}-{name}" for one, name in STREAMS]


@pytest.mark.parametrize(("golden", "name"), STREAMS, ids=IDS)
def test_byte_by_byte(golden: Golden, name: str) -> None:
    """One byte per read changes nothing."""
    data = golden.upstream
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert streamed(golden.pipe(name), pieces) == streamed(golden.pipe(name), [data])


@pytest.mark.parametrize(("golden", "name"), STREAMS, ids=IDS)
def test_one_cut_anywhere(golden: Golden, name: str) -> None:
    """One cut, at each position in turn, changes nothing."""
    data = golden.upstream
    whole = streamed(golden.pipe(name), [data])
    for at in range(1, len(data)):
        assert streamed(golden.pipe(name), [data[:at], data[at:]]) == whole, f"cut at {at}"


@pytest.mark.parametrize(("golden", "name"), TEXTS, ids=[f"{one.name}-{name}" for one, name in TEXTS])
def test_other_line_ends(golden: Golden, name: str) -> None:
    """CRLF line ends upstream make the same events; the client's stream still ends well."""
    data = golden.upstream.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    crlf, plain = golden.pipe(name), golden.pipe(name)
    told = streamed(crlf, [data])
    streamed(plain, [golden.upstream])
    assert crlf.heard.usage == plain.heard.usage
    assert told.endswith((b"\n\n", b"\r\n\r\n", b"]\n"))  # an array's end for clients of that form

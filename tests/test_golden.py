"""Golden folders: what goes out, what clients get and what is billed, for every recorded case of every provider."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from newapi_proxy.ir.usage import NOTHING, Usage
from tests.fakes.golden import REGOLD, Golden, folders, pretty

CASES = folders()
ANSWERS = [(one, name) for one in CASES for name in one.case.clients]


def test_there_are_cases() -> None:
    """The walk finds folders."""
    assert CASES


@pytest.mark.parametrize("golden", CASES, ids=lambda one: one.name)
def test_outgoing(golden: Golden) -> None:
    """The provider is asked exactly this."""
    sent = golden.outgoing()
    got = {"url": sent.url, "headers": dict(sent.headers), "dropped": list(sent.dropped), "body": sent.body}
    path = golden.folder / "outgoing.json"
    if REGOLD:
        path.write_bytes(pretty(got))
    assert got == orjson.loads(path.read_bytes())


@pytest.mark.parametrize(("golden", "name"), ANSWERS, ids=[f"{one.name}-{name}" for one, name in ANSWERS])
def test_client(golden: Golden, name: str) -> None:
    """A client of this surface gets exactly these bytes."""
    got = golden.client(name)
    path = golden.kept(name)
    if path.suffix == ".json":
        got = pretty(orjson.loads(got))
    if REGOLD:
        path.write_bytes(got)
    assert got == path.read_bytes()


@pytest.mark.parametrize("golden", CASES, ids=lambda one: one.name)
def test_usage(golden: Golden) -> None:
    """Upstream's usage is understood as this."""
    got = _told(golden.usage())
    path = golden.folder / "usage.json"
    if REGOLD:
        path.write_bytes(pretty(got))
    assert got == orjson.loads(path.read_bytes())


def _told(usage: Usage | None) -> dict[str, Any]:
    """The fields that say something."""
    if usage is None:
        return {}
    plain, nothing = msgspec.to_builtins(usage), msgspec.to_builtins(NOTHING)
    return {name: value for name, value in plain.items() if value != nothing[name]}

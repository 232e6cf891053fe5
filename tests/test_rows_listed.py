"""Every listed row has a test that names it, in every format that can say it and that this version serves.

`tests/rows/listed.txt` is the list, `later.yaml` what no route serves yet, `differences.yaml` what is told otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.web.app import not_implemented
from newapi_proxy.web.relay_routes import routes
from tests.fakes.inbound import FORMATS, LETTERS
from tests.fakes.mentions import ids, mentions

FOLDER: Final = Path(__file__).parent / "rows"
PROVIDERS: Final = {
    "ANTH": "anthropic",
    "AZUR": "azure",
    "BEDR": "bedrock",
    "CLFL": "cloudflare",
    "COHE": "cohere",
    "CUST": "custom",
    "DEEP": "deepseek",
    "DIFY": "dify",
    "GEMI": "gemini",
    "GROQ": "groq",
    "JINA": "jina",
    "MIST": "mistral",
    "OLLA": "ollama",
    "OPEN": "openai",
    "ORTR": "openrouter",
    "VERT": "vertex",
    "XAI": "xai",
    "YI": "lingyiwanwu",
    "ZHIP": "zhipu",
}
EVERYBODY: Final = ("CORE", "TOKN")  # no single provider's


class Row(msgspec.Struct, frozen=True):
    """A row; `verdicts` has a letter for each of the four formats, or is `*`."""

    id: str
    verdicts: str
    title: str

    @property
    def family(self) -> str:
        """The id's middle part."""
        return self.id.split("-")[1]

    @property
    def letters(self) -> tuple[str, ...]:
        """The formats that can say it."""
        return tuple(letter for letter, verdict in zip(LETTERS, self.verdicts, strict=False) if verdict in "LTDE")


@functools.cache
def listed() -> tuple[Row, ...]:
    """The list."""
    lines = (FOLDER / "listed.txt").read_text(encoding="utf-8").splitlines()
    return tuple(Row(*line.split(maxsplit=2)) for line in lines if line and not line.startswith("#"))


def table(name: str) -> Mapping[str, Any]:
    """One of the two files beside the list."""
    found = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


LATER: Final = table("later.yaml")
DIFFERENT: Final = table("differences.yaml")
NAMED: Final = functools.cache(mentions)


def test_the_list_is_in_order() -> None:
    """Every line is whole, every id stands there once, each has a verdict and a title."""
    rows = listed()
    assert len({row.id for row in rows}) == len(rows) > 450
    for row in rows:
        assert row.family in PROVIDERS or row.family in EVERYBODY
        assert row.verdicts == "*" or (len(row.verdicts) == len(LETTERS) and set(row.verdicts) <= set("LTDE-"))
        assert row.title


@pytest.mark.parametrize("family", [*EVERYBODY, *PROVIDERS])
def test_every_row_is_tested(family: str) -> None:
    """A row without a test, or without one in a format that can say it, fails here by its name."""
    assert family in EVERYBODY or PROVIDERS[family] in ADAPTERS
    missing = []
    for row in listed():
        if row.family != family or row.id in LATER:
            continue
        found = NAMED().get(row.id)
        lacking = [letter for letter in row.letters if letter in FORMATS and letter not in (found or ())]
        if found is None or lacking:
            missing.append(f"{row.id} {','.join(lacking) or '*'} {row.title}")
    assert not missing, "\n".join(["no test names", *missing])


def test_later_rows_have_no_route() -> None:
    """What is put off is really not served; who serves it takes it off the list."""
    for row, told in LATER.items():
        assert row in {one.id for one in listed()}
        assert told["reason"]
        served = [route for route in routes() if route.pattern == told["route"]]
        assert all(action is not_implemented for route in served for action in route.actions.values())


@pytest.mark.parametrize("row", sorted(DIFFERENT))
def test_differences_have_reasons(row: str) -> None:
    """What is answered otherwise is a row, and says what is done instead and why."""
    assert row in {one.id for one in listed()}
    assert set(DIFFERENT[row]["formats"]) <= set(LETTERS)
    assert DIFFERENT[row]["ours"]
    assert DIFFERENT[row]["reason"]


def test_no_test_names_an_unknown_row() -> None:
    """A mistyped id is no proof of anything."""
    assert not set(NAMED()) - {row.id for row in listed()}


def test_short_forms_of_ids() -> None:
    """Lists and ranges count for each of their rows, formats behind them for all."""
    found = dict(ids("T-ANTH-064 to 066, 082 and T-CORE-001 (OC, AM): text"))
    assert sorted(found) == ["T-ANTH-064", "T-ANTH-065", "T-ANTH-066", "T-ANTH-082", "T-CORE-001"]
    assert found["T-CORE-001"] == {"OC", "AM"}
    assert found["T-ANTH-082"] is None

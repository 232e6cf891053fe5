"""`redeem`, as a person calls it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from newapi_proxy.cli import main
from newapi_proxy.store import db

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `redeem` on a database of its own: exit code, stdout, stderr."""
    config = tmp_path / "config.yaml"
    config.write_text("database: sqlite:///newapi.db\ntimezone: Europe/Berlin\n")
    db.upgrade("sqlite:///newapi.db", tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["redeem", "-c", str(config), *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_codes_are_made_as_new_api_makes_them(run: Run, tmp_path: Path) -> None:
    """32 hex digits each, usable, with their worth and their end; shown whole once they are asked for."""
    code, out, _ = run("add", "gift", "--quota", "$5", "--count", "3", "--expires", "2030-01-31")
    codes = out.split()
    assert (code, len(codes)) == (0, 3)
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in codes)
    with sqlite3.connect(tmp_path / "newapi.db") as raw:
        rows = raw.execute("SELECT key, status, name, quota, expired_time, deleted_at FROM redemptions").fetchall()
    raw.close()
    assert rows == [(one, 1, "gift", 2_500_000, 1_896_130_799, None) for one in codes]
    assert codes[0] not in run("list")[1]
    assert codes[0] in run("show", "gift")[1]


def test_codes_are_switched_and_deleted_but_not_once_used(run: Run, tmp_path: Path) -> None:
    """By name all of them, by id one; a used one stays used."""
    run("add", "gift", "--quota", "1000", "--count", "2")
    with sqlite3.connect(tmp_path / "newapi.db") as raw:
        raw.execute("UPDATE redemptions SET status = 3, used_user_id = 7 WHERE id = 2")
    raw.close()
    assert run("disable", "gift")[1] == "1 of 2 changed\n"
    states = [(one["status"], one["used_by"]) for one in orjson.loads(run("list", "--format", "json")[1])]
    assert states == [("disabled", None), ("used", 7)]
    assert run("enable", "1")[1] == "1 of 1 changed\n"
    assert run("rm", "1")[0] == 0
    assert [one["id"] for one in orjson.loads(run("list", "--format", "json")[1])] == [2]


@pytest.mark.parametrize(
    "words", [("show", "nobody"), ("add", "x", "--quota", "0"), ("add", "x", "--quota", "5", "--count", "0")]
)
def test_what_cannot_be_done_is_said(run: Run, words: tuple[str, ...]) -> None:
    """Exit code 1 and a sentence."""
    code, _, err = run(*words)
    assert code == 1
    assert err

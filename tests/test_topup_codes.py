"""Codes of `newapi-proxy redeem` redeemed over HTTP: once, by whoever is first, for an account or a key of ours."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.process import ROOT as HERE
from tests.fakes.process import Daemon
from tests.fakes.till import ADA, BEN, KEYS, Till, kept, selling

Start = Callable[..., Daemon]
PATH = "/api/user/topup"
PORTAL = "    redeem: true\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """One daemon of a configuration for all of these tests."""
    with kept(tmp_path_factory.mktemp("till")) as start:
        yield start


def codes(till: Till, *words: str) -> list[str]:
    """What the command makes beside the running daemon."""
    run = subprocess.run(
        [sys.executable, "-m", "newapi_proxy", "redeem", "add", *words, "-c", str(till.daemon.config)],
        cwd=till.daemon.config.parent,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


async def test_scenario_18(daemon: Start) -> None:
    """A code used twice: the second time it is told that it was used; the balance has risen once."""
    async with selling(daemon, PORTAL) as till:
        (key,) = await asyncio.to_thread(codes, till, "gift", "--quota", "$2")
        assert (await till.post(PATH, {"key": key})).tree == {"success": True, "message": "", "data": 1_000_000}
        second = {"success": False, "message": "兑换失败，该兑换码已被使用"}
        for by in (ADA, BEN):
            assert (await till.post(PATH, {"key": key}, by)).tree == second
        assert (till.quota(), till.quota(8)) == (1_500_000, 500_000)
        (row,) = till.rows("SELECT * FROM redemptions")
        assert (row["status"], row["used_user_id"]) == (3, 7)
        assert row["redeemed_time"] > 1_700_000_000
        (told,) = till.told()
        assert told["content"] == f"通过兑换码充值 ＄2.000000 额度，兑换码ID {row['id']}"
        assert key not in str(till.lines)


async def test_a_burst(daemon: Start) -> None:
    """Twenty requests of two users for one code: one success, and one face value in both balances together (T-16)."""
    async with selling(daemon, PORTAL) as till:
        (key,) = await asyncio.to_thread(codes, till, "gift", "--quota", "$2")
        asked = (till.post(PATH, {"key": key}, by) for by in (ADA, BEN) * 10)
        answers = [answer.tree for answer in await asyncio.gather(*asked)]
        assert sum(answer["success"] for answer in answers) == 1
        assert till.quota() + till.quota(8) == 2_000_000
        assert len(till.told()) == 1


async def test_codes_that_are_refused(daemon: Start) -> None:
    """None, unknown, expired, disabled and deleted ones; each in New API's words, and nothing moves."""
    async with selling(daemon, PORTAL) as till:
        keys = await asyncio.to_thread(codes, till, "old", "--quota", "$2", "--count", "3", "--expires", "2020-01-31")
        till.run("UPDATE redemptions SET deleted_at = '2026-01-01' WHERE key = ?", keys[0])
        till.run("UPDATE redemptions SET status = 2 WHERE key = ?", keys[1])
        words = ("无效的兑换码", "该兑换码已被使用", "该兑换码已过期")
        for key, why in zip(keys, words, strict=True):
            assert (await till.post(PATH, {"key": key})).tree == {"success": False, "message": f"兑换失败，{why}"}
        for key in ("0" * 32, "' OR 1=1 --", "ä", "x" * 3000, "\0", keys[2][:-1]):
            assert (await till.post(PATH, {"key": key})).tree["message"] == "兑换失败，无效的兑换码"
        for body in ({}, {"key": ""}, {"key": "  "}, {"key": 5}, {"key": None}):
            assert (await till.post(PATH, body)).tree == {"success": False, "message": "未提供兑换码"}
        assert (await till.post(PATH, b"{")).tree == {"success": False, "message": "参数错误"}
        assert (await till.post(PATH, b"x" * 20_000)).status == 413
        assert (await till.post(PATH, {"key": keys[0]}, "")).status == 401
        assert (till.quota(), till.told()) == (500_000, [])


async def test_what_a_key_redeems(daemon: Start) -> None:
    """A user's key redeems for its user, one of the file for itself, at once usable."""
    async with selling(daemon, PORTAL, keys=True) as till:
        for_user, for_key = await asyncio.to_thread(codes, till, "gift", "--quota", "$2", "--count", "2")
        assert (await till.post(PATH, {"key": f" {for_user} "}, f"Bearer sk-{KEYS[0][2]}")).tree["success"] is True
        assert (till.quota(), till.left("key9")) == (1_500_000, 0)
        till.run("UPDATE tokens SET remain_quota = 10 WHERE name = 'yaml'")
        assert await till.chat("sk-yaml") == 403
        assert (await till.post(PATH, {"key": for_key}, "Bearer sk-yaml")).tree["data"] == 1_000_000
        assert await till.chat("sk-yaml") == 200
        assert till.left("yaml") == 1_000_010 - 50_000
        refused = await till.post(PATH, {"key": for_key}, "Bearer sk-free")
        assert (refused.status, refused.tree["success"]) == (403, False)


async def test_too_many_questions(daemon: Start) -> None:
    """One address may ask so often and no more: nobody tries codes by the thousand."""
    async with selling(daemon, PORTAL) as till:
        statuses = [(await till.post(PATH, {"key": f"{number:032x}"})).status for number in range(181)]
        assert (statuses[:180], statuses[180]) == ([200] * 180, 429)

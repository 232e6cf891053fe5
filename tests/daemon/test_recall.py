"""Limits across a kill: what was served before counts on, and no slot of the dead process is in use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.daemon.talk import ECHO, ask
from tests.fakes.process import Daemon

LIMITED = {
    "token": ECHO.replace("key: sk-demo}", "key: sk-demo, limits: {rpd: 3, concurrency: 1}}"),
    "group": ECHO + "groups: {default: {limits: {rpm: 1000, rpd: 3}}}\n",
    "channel": ECHO.replace("models: [echo]}", "models: [echo], limits: {rpd: 3}}"),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_a_kill_gives_nobody_the_day_once_more(daemon: Callable[..., Daemon], limit: str) -> None:
    """Three requests a day are three, though the process dies between them."""
    one = daemon(LIMITED[limit])
    assert [ask(one.url)[0] for _ in range(2)] == [200, 200]
    one.kill()
    one.start()
    assert ask(one.url)[0] == 200
    status, headers, _ = ask(one.url)
    assert (status, int(headers["retry-after"]) > 80_000) == (429, True)

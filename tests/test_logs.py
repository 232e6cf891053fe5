"""Reading the usage log, on every engine."""

from __future__ import annotations

from sqlalchemy import Connection, insert

from newapi_proxy.store import logs
from newapi_proxy.store.schema import channels

AT = 1_900_000_800  # a whole hour


def entry(at: int, quota: int, *, type: int = logs.CONSUME, channel: int = 1, name: str = "") -> logs.Entry:
    """A row of the log."""
    tokens = {"prompt_tokens": 3, "completion_tokens": 2}
    return logs.Entry(
        user_id=1, created_at=at, type=type, token_name="t", model_name="m", quota=quota, channel_id=channel,
        channel_name=name, **tokens,
    )  # fmt: skip


def test_spent(conn: Connection) -> None:
    """Charges less refunds in quarters of an hour, by the channel's present name or the one that was noted."""
    conn.execute(insert(channels).values(id=1, key="k", name="now"))
    logs.add(conn, [entry(AT, 10), entry(AT + 899, 5), entry(AT + 900, 7), entry(AT, 100, type=logs.TOP_UP)])
    logs.add(conn, [entry(AT + 1, 4, type=logs.REFUND), entry(AT, 1, channel=9, name="gone"), entry(AT + 5000, 1)])
    spent = logs.spent(conn, AT, AT + 5000)
    found = {(one.channel, one.at): (one.requests, one.quota, one.prompt_tokens) for one in spent}
    assert found == {("now", AT): (2, 11, 9), ("now", AT + 900): (1, 7, 3), ("gone", AT): (1, 1, 3)}

"""The operator's page: the same sums as `newapi-proxy usage`, the state of channels and holds. Read only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection

from newapi_proxy import metrics
from newapi_proxy.accounts import sums
from newapi_proxy.billing import records
from newapi_proxy.snapshot import Channel
from newapi_proxy.store import logs, resting
from newapi_proxy.web import holders, portal
from newapi_proxy.web.browser import Shown
from newapi_proxy.web.pages import overview as view
from newapi_proxy.web.pages.words import say
from newapi_proxy.web.portal import Guest

HOLDS: Final = 50
_ATTEMPTS: Final = "newapi_attempts_total"
_GOOD: Final = "ok"
_RELOADED: Final = "newapi_config_reload_ok"


async def dashboard(guest: Guest) -> Shown:
    """Everybody's use, and how this daemon is."""
    portal.operator(guest)
    days, now, zone, house = holders.period(guest), guest.at, guest.zone, guest.edge.house
    since = sums.begin(days, now, zone)

    def read(conn: Connection) -> tuple[list[logs.Spent], records.Holds, list[resting.Rest]]:
        return logs.spent(conn, since, now + 1), records.holds(conn, HOLDS), resting.load(conn)

    spent, holds, rests = await house.db.survey(read)
    states, reasons = house.health.states(), {one.channel: one.reason for one in rests}
    served = [_channel(one, states.get(one.name, ""), reasons) for one in guest.snapshot.channels]
    off = [_channel(one, say("channel_off"), reasons) for one in guest.snapshot.parked]
    process = view.Process(metrics.inflight(), metrics.bugs(), bool(metrics.snapshot()[_RELOADED]))
    return guest.page(
        say("dashboard"),
        view.now(process, holds, zone),
        view.channels([*served, *off]),
        view.spent(spent, days, sums.dates(since, now, zone), zone),
        view.search(),
    )


def _channel(channel: Channel, held: str, reasons: Mapping[str, str]) -> view.Channel:
    """`held`: in words why it does not serve, "" where it does."""
    counted = metrics.counted(_ATTEMPTS).items()
    tried = {outcome: int(count) for (name, outcome), count in counted if name == channel.name}
    good = tried.pop(_GOOD, 0)
    return view.Channel(
        name=channel.name,
        state=held or say("channel_closed"),
        serves=not held,
        priority=channel.priority,
        models=len(channel.models),
        good=good,
        failed=sum(tried.values()),
        reason=reasons.get(channel.name, ""),
    )


async def search(guest: Guest) -> Shown:
    """To the page of the request that is asked for."""
    portal.operator(guest)
    return guest.away(f"requests/{quote(guest.asked('id').strip() or '-', safe='')}")

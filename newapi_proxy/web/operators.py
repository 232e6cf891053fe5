"""The operator's page: the same sums as `newapi-proxy usage`, the state of channels and holds. Read only.

A thread reads and writes the markup, as in `holders`.
"""

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
from newapi_proxy.web.pages.markup import Html, joined
from newapi_proxy.web.pages.words import say
from newapi_proxy.web.portal import Guest
from newapi_proxy.web.surveys import Surveys

HOLDS: Final = 50
_ATTEMPTS: Final = "newapi_attempts_total"
_GOOD: Final = "ok"
_RELOADED: Final = "newapi_config_reload_ok"


async def dashboard(surveys: Surveys, guest: Guest) -> Shown:
    """Everybody's use, and how this daemon is."""
    portal.operator(guest)
    days, now, zone, house = holders.period(guest), guest.at, guest.zone, guest.edge.house
    since = sums.begin(days, now, zone)

    states, process = house.health.states(), _process()
    channels = [(one, states.get(one.name, "")) for one in guest.snapshot.channels]
    channels += [(one, say("channel_off")) for one in guest.snapshot.parked]

    def work(conn: Connection) -> Html:
        reasons = {one.channel: one.reason for one in resting.load(conn)}
        return joined(
            view.now(process, records.holds(conn, HOLDS), zone),
            view.channels([_channel(one, held, reasons) for one, held in channels]),
            view.spent(logs.spent(conn, since, now + 1), days, sums.dates(since, now, zone), zone),
            view.search(),
        )

    return guest.page(say("dashboard"), await surveys.read(house.db, work, ""))


def _process() -> view.Process:
    return view.Process(metrics.inflight(), metrics.bugs(), bool(metrics.snapshot()[_RELOADED]))


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

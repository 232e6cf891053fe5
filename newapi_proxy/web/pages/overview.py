"""What the operator sees: who spent what, which channels serve, what runs. Nothing can be changed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from newapi_proxy.accounts import sums
from newapi_proxy.billing.records import Holds
from newapi_proxy.store.logs import Spent
from newapi_proxy.web.pages import chart, usage
from newapi_proxy.web.pages.layout import Column, table
from newapi_proxy.web.pages.markup import Content, Html, element, joined
from newapi_proxy.web.pages.words import moment, money, number, say

ROWS: Final = 50  # of one table; the command lists the rest
_BY: Final = ("token", "model", "channel")


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as it is now. `state` in words; attempts since the start of this process; `reason` of its last rest."""

    name: str
    state: str
    serves: bool
    priority: int
    models: int
    good: int
    failed: int
    reason: str


class Process(msgspec.Struct, frozen=True):
    """This process: requests being served, bugs, whether the last reload was taken."""

    running: int
    bugs: int
    reloaded: bool


def now(process: Process, holds: Holds, zone: ZoneInfo) -> Html:
    """What runs."""
    reload = say("reload_good" if process.reloaded else "reload_bad")
    told = (("running", number(process.running)), ("bugs", number(process.bugs)), ("reload_ok", reload))
    tiles = [element("div", element("b", fact), element("span", say(name)), class_="tile") for name, fact in told]
    found: list[Content] = [element("div", tiles, class_="tiles"), element("h2", say("holds"))]
    if not holds.count:
        return joined(found, element("p", say("holds_none")))
    columns = (
        Column(say("request")),
        Column(say("token")),
        Column(say("model")),
        Column(say("amount"), True),
        Column(say("since")),
    )
    rows = [
        (usage.link(one.request_id), one.token, one.model, money(one.units), moment(one.at, zone))
        for one in holds.oldest
    ]
    lead = say("holds_lead", count=number(holds.count), amount=money(holds.units))
    return joined(found, element("p", lead), table(columns, rows, say("holds")))


def channels(found: Sequence[Channel]) -> Html:
    """Which channels serve, and which do not."""
    head = element("h2", say("channels"))
    if not found:
        return joined(head, element("p", say("channels_none")))
    columns = (
        Column(say("channel")),
        Column(say("channel_state")),
        Column(say("channel_priority"), True),
        Column(say("channel_models"), True),
        Column(say("channel_ok"), True),
        Column(say("channel_errors"), True),
        Column(say("channel_reason")),
    )
    return joined(head, table(columns, [_channel(one) for one in found], say("channels")))


def _channel(one: Channel) -> tuple[Content, ...]:
    state = element("span", one.state, class_="well" if one.serves else "ill")
    counts = (one.priority, number(one.models), number(one.good), number(one.failed))
    return (one.name, state, *counts, one.reason)


def spent(found: Sequence[Spent], period: int, days: Sequence[str], zone: ZoneInfo) -> Html:
    """The period's spending, by each of the ways to look at it."""
    head = joined(element("h2", say("spent"), id="spent"), usage.tabs("dashboard", usage.Asked(period)))
    if not found:
        return joined(head, element("p", say("usage_none")))
    by_day = sums.summed(found, ("day", "model"), zone)
    drawn = chart.bars(days, {(row["day"], row["model"]): row["quota"] for row in by_day})
    tables = [_summed(name, sums.summed(found, (name,), zone)) for name in _BY]
    daily = _summed("day", sums.summed(found, ("day",), zone)[::-1])
    return joined(head, drawn, tables, daily)


def _summed(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    caption = say(f"by_{name}")
    told = [(row[name] or say("nobody"), *usage.sums(row)) for row in rows[:ROWS]]
    total = {key: sum(row[key] for row in rows) for key in sums.SUMS}
    foot = (say("total"), *usage.sums(total))
    more = element("p", say("more_rows", count=number(len(rows) - ROWS)), class_="small") if len(rows) > ROWS else None
    found = table((Column(say(name)), *usage.SUMS), told, caption, foot)
    return joined(element("h3", caption), usage.folded(found, caption, len(told)), more)


def search() -> Html:
    """The way to one request's page."""
    entry = element("input", id="request", name="id", required=True, maxlength=128, autocomplete="off")
    label = element("label", say("request_search"), for_="request")
    button = element("button", say("show"), type="submit")
    return element("form", label, element("div", entry, button, class_="line"), method="get", action="requests")

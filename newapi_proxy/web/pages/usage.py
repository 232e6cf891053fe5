"""What the holder of a key sees: what is left, what binds the key, what was used, what models cost, one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec

from newapi_proxy.accounts.offers import Offer
from newapi_proxy.snapshot import Token
from newapi_proxy.store import logs
from newapi_proxy.store.windows import Ceiling
from newapi_proxy.web.pages import chart
from newapi_proxy.web.pages.layout import Column, facts, table
from newapi_proxy.web.pages.markup import NOTHING, Content, Html, element, joined
from newapi_proxy.web.pages.words import moment, money, number, say

MOST: Final = 1000  # rows of sums in one table
OPEN: Final = 12  # rows of sums that are shown without being asked for
PERIODS: Final = (1, 7, 30, 90)
_WITH_MODEL: Final = (logs.CONSUME, logs.REFUND)
_PRICES: Final = ("input", "output", "cache_read")


class Key(msgspec.Struct, frozen=True):
    """A key with what the report on it says; `ratio` its group's, as text; `state` one of `say`'s."""

    token: Token
    ratio: str
    state: str
    report: Mapping[str, Any]


class Purse(msgspec.Struct, frozen=True):
    """Units of an account."""

    left: int
    used: int


class Asked(msgspec.Struct, frozen=True):
    """What is looked at: a period of so many days, and the number of one of several keys, or 0."""

    period: int
    key: int = 0

    def place(self, path: str, **more: int) -> str:
        """Where the same is to be seen, but for what is said otherwise."""
        given = ({"key": self.key} if self.key else {}) | {"days": self.period} | more
        return f"{path}?" + "&".join(f"{name}={value}" for name, value in given.items())


class Usage(msgspec.Struct, frozen=True):
    """What was used in a period: `rows` as `sums.summed` has them by day and model; `days` every day of it."""

    days: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


class Recent(msgspec.Struct, frozen=True):
    """Rows of the log, the newest first; `place` of the page from 1; whether there are older ones; by more keys than
    one?"""

    rows: Sequence[logs.Entry]
    place: int
    more: bool
    several: bool


def keys(found: Sequence[Key], purse: Purse | None, zone: ZoneInfo, count: int) -> Html:
    """The balance of the account, and each key; there may be more of them."""
    tiles = _tiles((say("account_balance"), purse.left), (say("account_used"), purse.used)) if purse else NOTHING
    more = element("p", say("more_keys", count=number(count - len(found)))) if count > len(found) else NOTHING
    return joined(tiles, [_key(one, purse is not None, zone, alone=count == 1) for one in found], more)


def _tiles(*told: tuple[str, Content]) -> Html:
    shown = ((name, money(fact) if isinstance(fact, int) else fact) for name, fact in told)
    return element(
        "div",
        [element("div", element("b", fact), element("span", name), class_="tile") for name, fact in shown],
        class_="tiles",
    )


def _key(one: Key, shared: bool, zone: ZoneInfo, *, alone: bool) -> Html:
    """`shared`: an account pays, whose balance stands above; `alone`: no other key is shown."""
    report = one.report
    left: Content = report["total_available"]
    if report["unlimited_quota"]:
        left = say("state_active") if shared else say("unlimited")
    tiles = _tiles((say("balance"), left), (say("used"), report["total_used"]))
    name: Content = f"{say('key_name')} {one.token.name}"
    told = element("h2", name if alone else element("a", name, href=f"usage?key={one.token.account.token_id}"))
    return element(
        "section", told, tiles, facts(_facts(one, zone)), _budgets(report.get("budgets") or (), zone), class_="card"
    )


def _facts(one: Key, zone: ZoneInfo) -> Iterator[tuple[str, Content]]:
    token, expires = one.token, one.report["expires_at"]
    yield say("state"), say(one.state)
    yield say("group"), say("group_ratio", group=token.group, ratio=one.ratio) if one.ratio != "1" else token.group
    yield say("expires"), moment(expires, zone) if expires else say("expires_never")
    limits = [text for ceiling in token.ceilings for text in _limits(ceiling)]
    if limits:
        yield say("limits"), "; ".join(limits)
    if token.allow_ips:
        yield say("addresses"), ", ".join(str(one) for one in token.allow_ips)


def _limits(ceiling: Ceiling) -> Iterator[str]:
    numbers = [("concurrency", ceiling.slots)] if ceiling.slots is not None else []
    for name, most in [*numbers, *((rate.name, rate.most) for rate in ceiling.rates)]:
        text = say(f"limit_{name}", most=number(most))
        yield say("limit_of_group", limit=text) if ceiling.scope == "group" else text


def _budgets(budgets: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> Html:
    if not budgets:
        return NOTHING
    columns = (
        Column(say("budget")),
        Column(say("used"), True),
        Column(say("budget_left"), True),
        Column(say("budget_resets")),
    )
    rows = [
        (
            say("budget_amount", amount=money(one["amount"]), every=say(f"every_{one['every']}")),
            money(one["used"]),
            money(one["left"]),
            moment(one["resets_at"], zone),
        )
        for one in budgets
    ]
    return table(columns, rows, say("budgets"))


def tabs(path: str, shown: Asked) -> Html:
    """The periods to choose from."""
    links = [element("li", _tab(path, shown, days)) for days in PERIODS]
    return element("ul", links, class_="tabs", aria_label=say("period"))


def _tab(path: str, shown: Asked, days: int) -> Html:
    here = "page" if days == shown.period else None
    return element("a", say(f"days_{days}"), href=shown.place(path, days=days), aria_current=here)


def used(usage: Usage, shown: Asked) -> Html:
    """The period's chart and table, and the way to its rows."""
    head = joined(element("h2", say("usage"), id="used"), tabs("usage", shown))
    if not usage.rows:
        return joined(head, element("p", say("usage_none")))
    spent = {(row["day"], row["model"]): row["quota"] for row in usage.rows}
    columns = (Column(say("day")), Column(say("model")), *SUMS)
    rows = [(row["day"], row["model"], *sums(row)) for row in usage.rows[: -MOST - 1 : -1]]
    whole = {name: sum(row[name] for row in usage.rows) for name in _SUMMED}
    more = [element("p", element("a", say("download"), href=shown.place("usage.csv")))]
    if len(usage.rows) > MOST:
        more.append(element("p", say("rows_left", count=number(len(usage.rows) - MOST)), class_="small"))
    found = table(columns, rows, say("usage_table"), (say("total"), "", *sums(whole)))
    return joined(head, chart.bars(usage.days, spent), folded(found, say("usage_table"), len(rows)), more)


def folded(found: Html, name: str, rows: int) -> Html:
    """A table that is long, folded until somebody wants it."""
    if rows <= OPEN:
        return found
    return element("details", element("summary", f"{name} ({number(rows)})"), found)


_SUMMED: Final = ("requests", "prompt_tokens", "completion_tokens", "quota")
SUMS: Final = (
    Column(say("requests"), True),
    Column(say("prompt_tokens"), True),
    Column(say("completion_tokens"), True),
    Column(say("amount"), True),
)


def sums(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures of a row of sums, as the columns `SUMS` have them."""
    counts = (number(row[name]) for name in ("requests", "prompt_tokens", "completion_tokens"))
    return (*counts, money(row["quota"]))


def recent(found: Recent, shown: Asked, zone: ZoneInfo) -> Html:
    """The last requests, a page of them."""
    head = element("h2", say("last_requests"), id="requests")
    if not found.rows:
        return joined(head, element("p", say("requests_none")))
    columns = [
        Column(say("time")),
        Column(say("model")),
        Column(say("tokens_in_out"), True),
        Column(say("amount"), True),
    ]
    columns += [Column(say("key_name"))] if found.several else []
    columns.append(Column(say("request")))
    rows = [_request(row, found.several, zone) for row in found.rows]
    links = []
    if found.place > 1:
        links.append(
            element("a", say("newer"), href=shown.place("usage", page=found.place - 1) + "#requests", rel="prev")
        )
    if found.more:
        links.append(
            element("a", say("older"), href=shown.place("usage", page=found.place + 1) + "#requests", rel="next")
        )
    lead = element("p", say("last_requests_lead", zone=str(zone)), class_="small")
    return joined(head, lead, table(columns, rows, say("last_requests")), element("p", links, class_="pages"))


def link(id: str) -> Html:
    """A request's id, which leads to its page."""
    return element("a", id, href=f"requests/{quote(id, safe='')}", class_="code")


def _request(row: logs.Entry, several: bool, zone: ZoneInfo) -> tuple[Content, ...]:
    request = link(row.request_id) if row.request_id else ""
    what: Content = row.model_name
    if row.type not in _WITH_MODEL:
        what = row.content or say(f"kind_{row.type}" if row.type in (1, 3) else "kind_4")
    elif row.type == logs.REFUND:
        what = f"{row.model_name} ({say('kind_6')})"
    tokens = f"{number(row.prompt_tokens)} / {number(row.completion_tokens)}" if row.type == logs.CONSUME else ""
    amount = money(row.quota if row.type == logs.CONSUME else -row.quota) if row.type != logs.MANAGE else ""
    cells: list[Content] = [moment(row.created_at, zone), what, tokens, amount]
    if several:
        cells.append(row.token_name)
    return (*cells, request)


def offered(found: Sequence[Offer], *, patterns: bool) -> Html:
    """What may be used, and what it costs."""
    head = element("h2", say("models"), id="models")
    if not found:
        return joined(head, element("p", say("models_none")))
    lead = [element("p", say("models_lead"), " ", say("models_lead_units"), class_="small")]
    if patterns:
        lead.append(element("p", say("models_patterns"), class_="small"))
    columns = (
        Column(say("model")),
        Column(say("price_input"), True),
        Column(say("price_output"), True),
        Column(say("price_cache"), True),
        Column(say("price_other"), prose=True),
    )
    return joined(head, lead, table(columns, [_offer(one) for one in found], say("models")))


def _offer(one: Offer) -> tuple[Content, ...]:
    others = [say("price_per", amount=amount, unit=unit) for amount, unit in one.others]
    for above, rates in one.above:
        told = ", ".join(f"{say(_RATES[name])} ${rates[name]}" for name in _PRICES if name in rates)
        others.append(say("price_above", tokens=number(above), rates=told))
    other = "; ".join(others) if one.priced else say("price_none")
    return (one.model, *(f"${one.rates[name]}" if name in one.rates else "" for name in _PRICES), other)


_RATES: Final = dict(zip(_PRICES, ("price_input", "price_output", "price_cache"), strict=True))


def request(told: Sequence[tuple[str, str]], steps: Sequence[str], attempts: Sequence[Mapping[str, Any]]) -> Html:
    """One request: what is known of it, how its amount came about, and for the operator what was tried."""
    found = [facts((name, element("span", text, class_="code")) for name, text in told)]
    if steps:
        lines = [element("li", line) for line in steps]
        found += [element("h2", say("explained")), element("ol", lines, class_="steps")]
    if attempts:
        columns = [Column(say(f"attempt_{name}"), name == "ms") for name in ("channel", "status", "error", "ms")]
        rows = [[str(one.get(name) or "") for name in ("channel", "status", "error", "ms")] for one in attempts]
        found += [element("h2", say("attempts")), table(columns, rows, say("attempts"))]
    return joined(found, element("p", element("a", say("back"), href="./")))

"""What the holder of a key, or of several, asks of the pages: all of it from the reports that other programs read, too.

Figures of a period may read much of the log and fill long tables: a thread reads, adds up and writes the markup; what
the snapshot knows is asked before. Another's request is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection

from newapi_proxy.accounts import explaining, offers, reports, sums
from newapi_proxy.billing import records, refunds
from newapi_proxy.billing.charge import usd
from newapi_proxy.errors import ClientError
from newapi_proxy.snapshot import Token
from newapi_proxy.store import logs, standing
from newapi_proxy.web import portal
from newapi_proxy.web.browser import Shown
from newapi_proxy.web.pages import usage as view
from newapi_proxy.web.pages.markup import Html, joined
from newapi_proxy.web.pages.words import moment, say
from newapi_proxy.web.portal import Account, Guest, KeyHolder, Operator
from newapi_proxy.web.surveys import Surveys
from newapi_proxy.wire import sheet as csv

ROWS: Final = 50  # requests of one page
MOST_KEYS: Final = 50  # that are shown one by one
MOST_PAGES: Final = 200
MOST_LINES: Final = 20_000  # of a download; the newest
PERIOD: Final = 30
_HEAD: Final = ("time", "request_id", "key", "type", "model", "prompt_tokens", "completion_tokens", "usd", "quota")
_KINDS: Final = {logs.CONSUME: "charge", logs.REFUND: "refund"}


async def usage(surveys: Surveys, guest: Guest) -> Shown:
    """Keys, a period's use, the last requests, prices."""
    visitor, days, place = portal.holder(guest), period(guest), _place(guest)
    tokens, now, zone = chosen(guest, visitor), guest.at, guest.zone
    since, ids = sums.begin(days, now, zone), [one.account.token_id for one in tokens]
    whose = visitor.user.id if isinstance(visitor, Account) else _payer(visitor.token)
    known, shown = [_known(guest, one) for one in tokens[:MOST_KEYS]], view.Asked(days, _named(visitor, tokens))
    alone = tokens[0] if len(tokens) == 1 else None
    offered = offers.offers(guest.snapshot, alone) if alone is not None else []
    patterns = alone is not None and offers.patterns(guest.snapshot, alone)

    def work(conn: Connection) -> Html:
        found = [_key(conn, one) for one in known]
        purse = view.Purse(*standing.of_account(conn, whose)) if whose else None
        spent = sums.summed(logs.spent(conn, since, now + 1, ids), ("day", "model"), zone)
        rows = logs.page(conn, ids, ((place - 1) * ROWS, ROWS + 1))
        return joined(
            view.keys(found, purse, zone, len(tokens)),
            view.used(view.Usage(sums.dates(since, now, zone), spent), shown),
            view.recent(
                view.Recent(rows[:ROWS], place, len(rows) > ROWS and place < MOST_PAGES, alone is None), shown, zone
            ),
            None if alone is None else view.offered(offered, patterns=patterns),
        )

    told = await surveys.read(guest.edge.house.db, work, _whose(visitor))
    return guest.page(say("your_keys" if alone is None else "your_key"), told)


def chosen(guest: Guest, visitor: KeyHolder | Account) -> Sequence[Token]:
    """The visitor's keys, or the one of them that is asked for."""
    match visitor:
        case KeyHolder(token):
            return (token,)
        case Account(_, tokens):
            asked = guest.asked("key")
            return [one for one in tokens if str(one.account.token_id) == asked] or tokens


def _named(visitor: KeyHolder | Account, tokens: Sequence[Token]) -> int:
    """The number of the key that one of several was narrowed to, 0 for none."""
    narrowed = isinstance(visitor, Account) and len(tokens) < len(visitor.tokens)
    return tokens[0].account.token_id if narrowed else 0


def _whose(visitor: KeyHolder | Account) -> str:
    return visitor.digest if isinstance(visitor, KeyHolder) else str(visitor.user.id)


def _all(visitor: KeyHolder | Account) -> Sequence[Token]:
    return (visitor.token,) if isinstance(visitor, KeyHolder) else visitor.tokens


def _payer(token: Token) -> int:
    """The account whose balance a key spends, 0 where it has none but its own."""
    return token.account.user_id if token.account.user_limited else 0


class _Known(msgspec.Struct, frozen=True):
    """What the snapshot says of a key: its group's ratio, its state, the windows of its budgets."""

    token: Token
    ratio: str
    state: str
    windows: reports.Windows


def _known(guest: Guest, token: Token) -> _Known:
    windows = guest.snapshot.windows(token, guest.at) if token.budgets else ()
    return _Known(token, f"{guest.snapshot.group_ratio(token.group):f}", _state(token, guest.at), windows)


def _key(conn: Connection, one: _Known) -> view.Key:
    return view.Key(one.token, one.ratio, one.state, reports.token_usage(conn, one.token, one.windows)["data"])


def _state(token: Token, at: int) -> str:
    if not token.enabled or not token.user_enabled:
        return "state_disabled"
    if token.expired or (token.expires is not None and token.expires < at):
        return "state_expired"
    return "state_drained" if token.drained else "state_active"


def period(guest: Guest) -> int:
    """The days that are asked for."""
    text = guest.asked("days")
    return int(text) if text in {str(days) for days in view.PERIODS} else PERIOD


def _place(guest: Guest) -> int:
    text = guest.asked("page")
    return min(MOST_PAGES, max(1, int(text))) if text.isdecimal() and len(text) < 6 else 1


async def sheet(surveys: Surveys, guest: Guest) -> Shown:
    """A period's charges and refunds as CSV."""
    visitor, days, now, zone = portal.holder(guest), period(guest), guest.at, guest.zone
    since, ids = sums.begin(days, now, zone), [one.account.token_id for one in chosen(guest, visitor)]

    def work(conn: Connection) -> bytes:
        found = logs.between(conn, ids, since, now + 1, MOST_LINES)
        return csv.text(_HEAD, (_line(row, zone) for row in found)).encode()

    data = await surveys.read(guest.edge.house.db, work, _whose(visitor))
    headers = (
        ("Content-Type", "text/csv; charset=utf-8"),
        ("Content-Disposition", f'attachment; filename="usage-{days}d.csv"'),
    )
    return Shown(body=data, headers=headers)


def _line(row: logs.Entry, zone: ZoneInfo) -> tuple[str, ...]:
    back = row.type == logs.REFUND
    tokens = (str(row.prompt_tokens), str(row.completion_tokens))
    amounts = (f"{'-' if back else ''}{usd(row.quota)}", str(-row.quota if back else row.quota))
    when = moment(row.created_at, zone)
    return (when, row.request_id, row.token_name, _KINDS[row.type], row.model_name, *tokens, *amounts)


async def request(guest: Guest) -> Shown:
    """One request as the ledger has it; the operator sees everybody's, and what was tried."""
    all_of_it = isinstance(guest.visitor, Operator)
    mine = () if all_of_it else {one.account.token_id for one in _all(portal.holder(guest))}
    id, zone = guest.call.tail, guest.zone

    def read(conn: Connection) -> tuple[records.Record | None, records.Record | None]:
        return records.explain(conn, id), records.explain(conn, f"{refunds.MARK}{id}")

    record, back = await guest.edge.house.db.read(read)
    if record is None or not (all_of_it or record.token_id in mine):
        raise ClientError(say("request_gone"), status=404, kind="not_found", code="request_unknown")
    detail = explaining.detail(record)
    told = list(explaining.facts(record, detail, zone, own=not all_of_it))
    if back is not None:
        told.append(("refund", explaining.back(back, zone)))
    attempts = detail.get("attempts") or () if all_of_it else ()
    return guest.page(say("request_title"), view.request(told, explaining.steps(record, detail), attempts))

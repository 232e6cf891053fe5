"""Allowances that come back: which window a moment lies in, and what of a window is held or spent.

Calendars are arithmetic; the counters are moved by the ledger alone, inside its transactions. A window begins at the
first moment of its first day in the configured time zone and ends where the next one begins, whatever the clocks of
that zone do. A hold belongs to the window in which it was made. Source: user-demands B8, reliability RF22.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, Literal

import msgspec
from sqlalchemy import Connection, and_, or_, select
from sqlalchemy import text as sql

from newapi_proxy.store.row import number, words
from newapi_proxy.store.rows import INT, TEXT, inserting, updating
from newapi_proxy.store.schema import proxy_budgets

Every = Literal["day", "week", "month"]
Key = tuple[int, str, int]  # token, every, starts
_ZERO: Final = sql("0")
_DAY: Final = timedelta(days=1)
MOST_TOLD: Final = 1024
_EVERY: Final[Mapping[str, Every]] = {"day": "day", "week": "week", "month": "month"}


class Window(msgspec.Struct, frozen=True):
    """One window of a budget: unix seconds, and the quota units that may be spent in it."""

    every: Every
    starts: int
    ends: int
    amount: int


_TOLD: Final[dict[int, tuple[Sequence[Window], str]]] = {}  # by identity: a key's requests share their windows


def window(every: Every, at: int, amount: int, zone: tzinfo) -> Window:
    """The window that holds the moment."""
    day = _first_day(every, datetime.fromtimestamp(at, zone).date())
    starts, ends = _midnight(day, zone), _midnight(_next(every, day), zone)
    while at >= ends:  # a clock that was put back over midnight shows the old date once more
        day = _next(every, day)
        starts, ends = ends, _midnight(_next(every, day), zone)
    return Window(every, starts, ends, amount)


def _first_day(every: Every, day: date) -> date:
    match every:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)


def _next(every: Every, day: date) -> date:
    match every:
        case "day":
            return day + _DAY
        case "week":
            return day + 7 * _DAY
        case "month":
            return (day.replace(day=28) + 4 * _DAY).replace(day=1)


def _midnight(day: date, zone: tzinfo) -> int:
    """The first moment of a day; where the clocks skip midnight, or the whole day, the moment at which they do."""
    naive = datetime(day.year, day.month, day.day)
    first = int(naive.replace(tzinfo=zone).timestamp())
    if datetime.fromtimestamp(first, zone).replace(tzinfo=None) == naive:
        return first
    low, high = int(naive.replace(tzinfo=zone, fold=1).timestamp()), first
    while low < high:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).replace(tzinfo=None) >= naive:
            high = middle
        else:
            low = middle + 1
    return low


def told(windows: Sequence[Window]) -> str:
    """The windows as a row of the ledger names them."""
    known = _TOLD.get(id(windows))
    if known is None or known[0] is not windows:
        if len(_TOLD) >= MOST_TOLD:
            _TOLD.clear()
        known = _TOLD[id(windows)] = windows, "".join(f"{one.every}:{one.starts}," for one in windows)
    return known[1]


def forget() -> None:
    """After a reload: nothing will come any more with the windows of before, which would only be kept."""
    _TOLD.clear()


def read(text: str) -> tuple[Window, ...]:
    """The windows that such a text names; what it does not say (`ends`, `amount`) is 0."""
    found = []
    for piece in text.split(","):
        every, _, starts = piece.partition(":")
        if every in _EVERY:
            found.append(Window(_EVERY[every], number(starts), 0, 0))
    return tuple(found)


def moment(at: int) -> str:
    """Unix seconds for people."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Moves:
    """Units by window, added up: no statement names a row twice."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        # by the windows' identity: a key's requests share them, and hashing them costs more than all the rest
        self._asked: dict[tuple[int, int], tuple[int, Sequence[Window], int]] = {}

    def add(self, token_id: int, windows: Sequence[Window], units: int) -> None:
        """So many units more, or less, in each of the windows."""
        if units:
            key = (token_id, id(windows))
            before = self._asked.get(key)
            self._asked[key] = (token_id, windows, units if before is None else units + before[2])

    def run(self, conn: Connection) -> bool:
        """Moves the counters; whether each was there and had room for what is added."""
        if not self._asked:
            return True
        rows = [(*key, units, most) for key, (units, most) in sorted(self._sums().items())]
        return _MOVE.run(conn, rows) == len(rows)

    def begin(self, conn: Connection) -> None:
        """Makes counters that are not there yet."""
        _BEGIN.run(conn, [(*key, 0) for key in sorted(self._sums())])

    def _sums(self) -> dict[Key, tuple[int, int]]:
        """Units by counter, and the least that its window may hold of all that were told."""
        sums: dict[Key, tuple[int, int]] = {}
        for token_id, windows, units in self._asked.values():
            for one in windows:
                key = (token_id, one.every, one.starts)
                before, most = sums.get(key, (0, one.amount))
                sums[key] = before + units, min(most, one.amount)
        return sums


_BEGIN: Final = inserting(proxy_budgets, "token_id", "every", "starts", "used", once=True)
_MOVE: Final = updating(
    proxy_budgets,
    {"token": INT, "every": TEXT, "starts": INT, "units": INT, "most": INT},
    lambda given: {"used": proxy_budgets.c.used + given.units},
    lambda given: and_(
        proxy_budgets.c.token_id == given.token,
        proxy_budgets.c.every == given.every,
        proxy_budgets.c.starts == given.starts,
        or_(given.units <= _ZERO, proxy_budgets.c.used + given.units <= given.most),
    ),
)


def take(conn: Connection, token_id: int, window: Window, units: int) -> bool:
    """Takes units of one window, if it has them."""
    moves = Moves()
    moves.add(token_id, (window,), units)
    if moves.run(conn):
        return True
    moves.begin(conn)
    return moves.run(conn)


def used(conn: Connection, token_id: int, window: Window) -> int:
    """What of a window is held or spent. Locks the row where the engine can."""
    asked = select(proxy_budgets.c.used).where(
        proxy_budgets.c.token_id == token_id,
        proxy_budgets.c.every == window.every,
        proxy_budgets.c.starts == window.starts,
    )
    return number(conn.execute(asked.with_for_update()).scalar())


def everything(conn: Connection, token_id: int | None = None) -> Mapping[Key, int]:
    """Every counter, or those of one key, for whoever adds them up or tells them."""
    asked = select(proxy_budgets)
    rows = conn.execute(asked if token_id is None else asked.where(proxy_budgets.c.token_id == token_id))
    return {(number(row.token_id), words(row.every), number(row.starts)): number(row.used) for row in rows}

"""Limits counted for all processes in the database, where there is no Redis: slower, and as exact.

A subject is a row with its windows and slots as JSON; who writes has the turn (`processes`), so no two meet in between.
The counting is `windows.Window`'s, by the database's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from newapi_proxy.errors import ClientError, OurError
from newapi_proxy.store import processes, shared, subjects
from newapi_proxy.store.db import Database
from newapi_proxy.store.shared import Refused, Row, Step
from newapi_proxy.store.windows import Entry, Window
from newapi_proxy.wire import tree


class _Ask(msgspec.Struct, frozen=True):
    """What one grant wants."""

    grant: str
    rows: Sequence[Row]


class Tabled:
    """The place in a database. `errors` as `shared.Place` has it."""

    errors: Final = (OurError, TimeoutError)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, grant: str, rows: Sequence[Row]) -> Refused | list[str]:
        async with asyncio.timeout(shared.TIMEOUT):
            return await self._database.write(_take, _Ask(grant, rows))

    async def give(self, steps: Sequence[Step]) -> None:
        async with asyncio.timeout(shared.TIMEOUT):
            await self._database.write(_give, steps)

    async def back(self) -> None:
        """Nobody listens here."""

    async def close(self) -> None:
        """The database is its opener's."""


class _Subject:
    """One row: slots by grant with the end of their lease, windows by limit."""

    def __init__(self, text: str) -> None:
        self.slots: dict[str, float] = {}
        self.windows: dict[str, Window] = {}
        try:
            found: Any = tree.lenient(text.encode() or b"{}")
            self.windows = {name: _window(*parts) for name, parts in found["windows"].items()}
            self.slots = dict(found["slots"])
        except (ClientError, LookupError, TypeError, ValueError, AttributeError):
            return  # a new row, or somebody else's writing: it begins anew

    def text(self) -> str:
        """The row's JSON, "" where nothing is left in it."""
        windows = {
            name: (one.seconds, [(entry.began, entry.until, entry.amount) for entry in one.entries])
            for name, one in self.windows.items()
            if one.entries
        }
        return tree.dumps({"slots": self.slots, "windows": windows}) if windows or self.slots else ""

    def forget(self, now: float) -> None:
        """Drops what has left and whose lease is over."""
        self.slots = {grant: until for grant, until in self.slots.items() if until > now}
        for one in self.windows.values():
            one.forget(now)


def _window(seconds: float, entries: Sequence[tuple[float, float, int]]) -> Window:
    made = Window(seconds)
    for began, until, amount in entries:
        entry = Entry(until, amount)
        entry.began = began
        made.entries.append(entry)
        made.total += amount
    return made


class _Subjects:
    """The rows that a batch touches: each read once, written once."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._known: dict[str, _Subject] = {}
        self._rows: set[str] = set()
        self.now = processes.moment(conn)

    def get(self, subject: str) -> _Subject:
        """A subject, empty where there is no row."""
        id = subjects.named(subject)
        if id not in self._known:
            text = subjects.load(self._conn, id)
            if text is not None:
                self._rows.add(id)
            self._known[id] = _Subject(text or "")
            self._known[id].forget(self.now)
        return self._known[id]

    def write(self) -> None:
        """Writes all back; what is empty has no row."""
        subjects.save(self._conn, {id: one.text() for id, one in self._known.items()}, frozenset(self._rows))


def _take(conn: Connection, asks: Sequence[_Ask]) -> list[Refused | list[str]]:
    known = _Subjects(conn)
    found = [_taken(known, one) for one in asks]
    known.write()
    return found


def _taken(known: _Subjects, ask: _Ask) -> Refused | list[str]:
    now = known.now
    refused: Refused | None = None
    for place, (id, slots, rates) in enumerate(ask.rows):
        one = known.get(id)
        waits = {name: _of(one.windows, name, seconds).wait(now, most, part) for name, seconds, most, part in rates}
        if 0 <= slots <= len(one.slots):
            waits = {"concurrency": 1.0} | waits
        for limit, wait in waits.items():
            if wait > (refused.wait if refused is not None else 0.0):
                refused = Refused(place, limit, wait)
    if refused is not None:
        return refused
    names: list[str] = []
    for id, slots, rates in ask.rows:
        one = known.get(id)
        if slots >= 0:
            one.slots[ask.grant] = now + shared.LEASE
        names += [repr(_of(one.windows, name, seconds).add(now, part).began) for name, seconds, _, part in rates]
    return names


def _of(windows: dict[str, Window], name: str, seconds: float) -> Window:
    return windows.setdefault(name, Window(seconds))


def _give(conn: Connection, batches: Sequence[Sequence[Step]]) -> list[None]:
    known = _Subjects(conn)
    for steps in batches:
        for step in steps:
            _given(known, step)
    known.write()
    return [None] * len(batches)


def _given(known: _Subjects, step: Step) -> None:
    one = known.get(step[1])
    match step:
        case ("keep", _, grant):
            one.slots[grant] = known.now + shared.LEASE
        case ("free", _, grant):
            one.slots.pop(grant, None)
        case ("change", _, limit, name, by) if limit in one.windows:
            window = one.windows[limit]
            for entry in window.entries:
                if repr(entry.began) == name:
                    window.change(known.now, entry, by)
                    return

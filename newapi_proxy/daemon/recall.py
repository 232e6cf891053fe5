"""What limits had taken before this process began, read from the log: a restart gives nobody the day once more.

Only what was charged has a row there; a failed request is not counted again. The windows of a channel's single keys
begin anew, as no row says which key it was. Where Redis keeps the windows they outlive the process anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from newapi_proxy.relay.house import House
from newapi_proxy.snapshot import Snapshot
from newapi_proxy.store import logs
from newapi_proxy.store.windows import EXACT, Ceiling, Memory

Subject = tuple[str, int | str]


async def recall(house: House, memory: Memory) -> None:
    """Fills the windows that the configuration's limits need."""
    wanted = dict(_ceilings(house.snapshot))
    spans = {rate.seconds for ceiling in wanted.values() for rate in ceiling.rates}
    now = house.clock.wall()
    for span in spans:
        since, step = int(now - span), max(1, int(span) // EXACT)
        found = await house.db.read(partial(logs.past, since=since, step=step))
        for subject, rows in _sorted(found, now).items():
            if subject in wanted:
                memory.recall(wanted[subject], span, rows)


def _sorted(found: Iterable[logs.Past], now: float) -> dict[Subject, list[tuple[float, int, int]]]:
    """What each subject has taken: seconds ago, requests, tokens. A row's second may have been nearly over."""
    past: dict[Subject, list[tuple[float, int, int]]] = {}
    for row in found:
        subjects: tuple[Subject, ...] = ("token", row.token_id), ("group", row.group), ("channel", row.channel_id)
        for subject in subjects:
            past.setdefault(subject, []).append((now - row.at - 1, row.requests, row.tokens))
    return past


def _ceilings(snapshot: Snapshot) -> Iterator[tuple[Subject, Ceiling]]:
    """Every ceiling with rates that the log can tell of, by whom it is about."""
    for token in snapshot.tokens.values():
        for one in token.ceilings:
            yield ("token", token.account.token_id) if one.scope == "token" else ("group", one.name), one
    for channel in snapshot.channels:
        for one in channel.ceilings[0] if channel.ceilings else ():
            if one.scope == "channel":
                yield ("channel", channel.id), one

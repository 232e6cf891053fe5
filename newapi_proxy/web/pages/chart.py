"""Bars of days, stacked by name, as an inline picture. Pure; says nothing that the table beside it does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from newapi_proxy.web.pages.markup import Content, Html, element
from newapi_proxy.web.pages.words import money, say

SHOWN: Final = 6  # names with a colour of their own; the others share one
_HEIGHT: Final = 100
_STEP: Final = 10  # width of a day, with the gap
_BAR: Final = 8


def bars(days: Sequence[str], spent: Mapping[tuple[str, str], int]) -> Html:
    """`spent`: quota units by (day, name). A day that gave more back than it took has no bar."""
    sums: dict[str, int] = {}
    for (_, name), units in spent.items():
        sums[name] = sums.get(name, 0) + units
    names = sorted(sums, key=lambda name: (-sums[name], name))
    places = {name: min(place, SHOWN) for place, name in enumerate(names)}
    piles = {day: [0] * (SHOWN + 1) for day in days}
    for (day, name), units in spent.items():
        if day in piles:
            piles[day][places[name]] += max(0, units)
    most = max((sum(pile) for pile in piles.values()), default=0)
    drawn = [_pile(place, day, piles[day], most) for place, day in enumerate(days)] if most else []
    label = say("usage_chart", total=money(sum(sums.values())))
    box = f"0 0 {_STEP * len(days)} {_HEIGHT}"
    picture = element(
        "svg", drawn, viewBox=box, preserveAspectRatio="none", role="img", aria_label=label, class_="bars"
    )
    ends = element("div", element("span", days[0]), element("span", days[-1]), class_="ends") if days else None
    return element(
        "figure",
        element("figcaption", label),
        element("div", money(most), class_="most"),
        picture,
        ends,
        _legend(names),
    )


def _pile(place: int, day: str, pile: Sequence[int], most: int) -> Html:
    found, top = [], float(_HEIGHT)
    for colour, units in enumerate(pile):
        if units:
            height = _HEIGHT * units / most
            top -= height
            at = {"x": str(_STEP * place + 1), "y": f"{top:.2f}", "height": f"{height:.2f}"}
            found.append(element("rect", width=str(_BAR), class_=f"c{colour}", **at))
    return element("g", element("title", f"{day}: {money(sum(pile))}"), found)


def _legend(names: Sequence[str]) -> Html:
    told: list[Content] = [_entry(name, place) for place, name in enumerate(names[:SHOWN])]
    if len(names) > SHOWN:
        told.append(_entry(say("others"), SHOWN))
    return element("ul", told, class_="legend")


def _entry(name: str, place: int) -> Html:
    return element("li", element("span", class_=f"swatch c{place}"), name)

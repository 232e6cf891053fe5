"""From the rounds' numbers to medians, ratios and a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Rounds = Mapping[str, Mapping[str, Sequence[float]]]  # subject → measure → one number a round

LOWER_IS_BETTER = ("CPU", "KiB", "RSS", "p50", "p99")


def added(rounds: dict[str, dict[str, list[float]]]) -> None:
    """Turns each proxy's p50 and p99 into what it adds to the direct way of the same round; the direct way stays."""
    direct = rounds.get("direct", {})
    for name, measures in rounds.items():
        for measure in ("p50 us", "p99 us"):
            if name != "direct" and measure in measures and measure in direct:
                pairs = zip(measures.pop(measure), direct[measure], strict=True)
                measures[f"added {measure}"] = [mine - plain for mine, plain in pairs]


def result(rounds: Rounds, first: str = "daemon", second: str = "bare") -> list[dict[str, Any]]:
    """One row a measure: medians of both, the median of the rounds' ratios, and their spread."""
    rows = []
    for measure, mine in rounds.get(first, {}).items():
        theirs = rounds.get(second, {}).get(measure, ())
        row: dict[str, Any] = {"measure": measure, first: statistics.median(mine), second: None, "ratio": None}
        if theirs:
            ratios = [one / other for one, other in zip(mine, theirs, strict=True) if other]
            row |= {
                second: statistics.median(theirs),
                "ratio": statistics.median(ratios) if ratios else None,
                "spread": [min(ratios), max(ratios)] if ratios else None,
            }
        rows.append(row)
    return rows


def table(
    rows: Sequence[Mapping[str, Any]],
    direct: Mapping[str, Sequence[float]],
    first: str = "daemon",
    second: str = "bare",
) -> str:
    """The rows as aligned text."""
    lines = [("", first, second, f"{first}/{second}", "spread over rounds")]
    for row in rows:
        spread = "{:.2f} - {:.2f}".format(*row["spread"]) if row.get("spread") else ""
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
        lines.append((row["measure"], _number(row[first]), _number(row[second]), ratio, spread))
    for measure, numbers in direct.items():
        lines.append((f"(direct {measure})", "", _number(statistics.median(numbers)), "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
    return "  ".join(cells)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

"""A text as a code to scan, for what people take over to their phone. Pure; the code itself is `segno`'s."""

from __future__ import annotations

from typing import Final

from newapi_proxy.web.pages.markup import Html, element

LONGEST: Final = 1024  # characters: far above a payment's link, and still read by any phone
_QUIET: Final = 4  # light modules around the code


def picture(text: str, label: str) -> Html | None:
    """The code as a picture, None where the text is empty or too long for one."""
    import segno  # few portals sell by a code: not before one does

    if not 0 < len(text) <= LONGEST:
        return None
    rows = segno.make_qr(text, error="m", mode="byte", encoding="utf-8", boost_error=False).matrix
    size = len(rows) + 2 * _QUIET
    dark = ((x + _QUIET, y + _QUIET) for y, row in enumerate(rows) for x, on in enumerate(row) if on)
    path = element("path", d="".join(f"M{x} {y}h1v1h-1z" for x, y in dark))
    box = f"0 0 {size} {size}"
    edges = "crispEdges"
    return element("svg", path, viewBox=box, role="img", aria_label=label, class_="scan", shape_rendering=edges)

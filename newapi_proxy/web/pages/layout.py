"""What all pages share: their frame, tables, messages. Links are relative to the base, wherever a proxy puts us."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from newapi_proxy.web.pages.markup import NOTHING, Content, Html, element, joined
from newapi_proxy.web.pages.words import say

__all__ = ["STYLE", "Column", "Content", "Frame", "error", "facts", "message", "page", "post", "table"]
STYLE: Final = Path(__file__).with_name("style.css").read_bytes()
_VERSION: Final = sha256(STYLE).hexdigest()[:12]


class Frame(msgspec.Struct, frozen=True):
    """`title` of the service, `base` in front of our paths, `name` of who is signed in, "" for nobody, the pages that
    are there for them, and the one that this is."""

    title: str
    base: str
    name: str = ""
    links: tuple[str, ...] = ()
    here: str = ""


class Column(msgspec.Struct, frozen=True):
    """A column: its head's word, and whether it holds figures, or prose that may be broken into lines."""

    head: str
    figures: bool = False
    prose: bool = False

    @property
    def kind(self) -> str | None:
        """The class of its cells."""
        return "figure" if self.figures else "prose" if self.prose else None


def page(frame: Frame, title: str, *content: Content) -> str:
    """A whole document, but for its type."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} – {frame.title}"),
        element("base", href=f"{frame.base}/"),
        element("link", rel="stylesheet", href=f"pages/style.css?v={_VERSION}"),
        element("link", rel="icon", href="data:,"),
    )
    main = element("main", element("h1", title), *content)
    return element("html", head, element("body", _top(frame), main), lang="en")


def _top(frame: Frame) -> Html:
    links = [
        element("a", say(f"nav_{name}"), href=name, aria_current="page" if name == frame.here else None)
        for name in frame.links
    ]
    nav = element("nav", links, aria_label=say("nav_label")) if links else NOTHING
    leave = NOTHING
    if frame.name:
        who = element("span", say("signed_in_as", name=frame.name), class_="who")
        leave = post("logout", who, element("button", say("sign_out"), type="submit", class_="plain"), class_="leave")
    return element("header", element("a", frame.title, href="./", class_="home"), nav, leave)


def post(action: str, *content: Content, class_: str | None = None) -> Html:
    """A form that changes something."""
    return element("form", *content, method="post", action=action, class_=class_)


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Content]], caption: str, foot: Sequence[Content] = ()
) -> Html:
    """A table that scrolls sideways by itself where the page is narrow; the first cell of a row is its head."""
    heads = [element("th", one.head, scope="col", class_=one.kind) for one in columns]
    found = [_row(columns, row) for row in rows]
    last = element("tfoot", _row(columns, foot)) if foot else NOTHING
    whole = element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", element("tr", heads)),
        element("tbody", found),
        last,
    )
    return element("div", whole, class_="wide", tabindex=0, role="region", aria_label=caption)


def _row(columns: Sequence[Column], cells: Sequence[Content]) -> Html:
    found = []
    for place, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        scope = None if place else "row"
        found.append(element("td" if place else "th", cell, scope=scope, class_=column.kind))
    return element("tr", found)


def facts(pairs: Iterable[tuple[str, Content]]) -> Html:
    """Names and what is known under them."""
    return element("dl", [joined(element("dt", name), element("dd", fact)) for name, fact in pairs])


def message(text: str, *, wrong: bool = False) -> Html:
    """A line that tells what has happened."""
    return element("p", text, class_="wrong" if wrong else "good", role="alert" if wrong else "status")


def error(text: str, status: int, request_id: str) -> Html:
    """What went wrong, in words, with what the operator needs to find it."""
    where = f"{say('error_status', status=status)} · {say('error_request', id=request_id)}"
    back = element("p", element("a", say("back"), href="./"))
    return joined(message(text, wrong=True), element("p", where, class_="small"), back)

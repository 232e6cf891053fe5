"""HTML out of plain values: the one place where text is escaped.

`Html` is markup already; every other text is escaped when it becomes part of an element. So a name that somebody chose
is text wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

_VOID: Final = frozenset({"base", "br", "hr", "input", "link", "meta"})


class Html(str):
    """Text that is markup."""

    __slots__ = ()


Content = str | int | Iterable["Content"] | None
Value = str | int | float | bool | None
NOTHING: Final = Html("")


def element(name: str, /, *content: Content, **attributes: Value) -> Html:
    """An element. An attribute's name may end in an underscore (`class_`), and its others are hyphens; one that is None
    or False is left out, True has no value."""
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{told}>")
    return Html(f"<{name}{told}>{joined(*content)}</{name}>")


def joined(*content: Content) -> Html:
    """Contents one after the other."""
    return Html("".join(_content(one) for one in content))


def _content(one: Content) -> str:
    match one:
        case None:
            return ""
        case Html():
            return one
        case str() | int():
            return escape(_printed(str(one)))
        case _:
            return joined(*one)


def _attribute(name: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(_printed(str(value)))}"'


def _printed(text: str) -> str:
    """The text without what no document may hold."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)

"""The pages' parts: markup escapes everything, every text is there once and used, charts and figures say what is so."""

from __future__ import annotations

import ast
import re
from html.parser import HTMLParser
from string import Formatter
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.web.pages import chart
from newapi_proxy.web.pages.layout import STYLE, Column, Frame, page, table
from newapi_proxy.web.pages.markup import Html, element, joined
from newapi_proxy.web.pages.words import WORDS, money, say
from tests import laws

BUILT: Final = {"nav_", "every_", "days_", "limit_", "kind_", "state_", "attempt_", "by_", "price_", "channel_"}


class Reader(HTMLParser):
    """What a browser makes of markup: the elements, their attributes, the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One element."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Text."""
        self.said += data


@given(st.text(), st.text())
def test_every_text_is_text(content: str, value: str) -> None:
    """Whatever stands in a content or a value makes no element and leaves no attribute."""
    read = Reader(element("p", content, title=value, class_="x"))
    assert read.tags == ["p"]
    assert [name for name, _ in read.attributes] == ["title", "class"]
    clean = "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in content)
    assert read.said == clean


def test_attributes_and_contents() -> None:
    """Names are HTML's, what is not there is left out, markup is not escaped again, nested lists are flat."""
    one = element("input", name="a", for_="b", aria_label="c", required=True, hidden=False, value=None)
    assert one == '<input name="a" for="b" aria-label="c" required>'
    assert joined(["<", [Html("<br>"), None]], 1) == "&lt;<br>1"
    assert element("a", element("b", "x & y")) == "<a><b>x &amp; y</b></a>"


def test_a_page_is_whole() -> None:
    """A page says its language, its title and its base, which holds what a proxy puts in front."""
    text = page(Frame("A & B", "/llm", "ada", ("usage",)), "T<", "x")
    assert text.startswith('<html lang="en"><head><meta charset="utf-8">')
    assert "<title>T&lt; – A &amp; B</title>" in text
    assert '<base href="/llm/">' in text
    assert not re.search(r'(href|action|src)="/(?!llm/")', text)


def test_tables_have_heads() -> None:
    """A table has a name, heads for its columns and its rows, and as many cells as columns."""
    text = table((Column("a"), Column("b", figures=True)), [("x", 1)], "Name", ("total", 1))
    assert '<caption class="unseen">Name</caption>' in text
    assert text.count('scope="col"') == 2
    assert text.count('scope="row"') == 2


def test_no_style_stands_in_markup() -> None:
    """The policy of the pages allows neither style nor script in markup, and every class has its rule."""
    style = STYLE.decode()
    for module in laws.modules():
        if not module.name.startswith("web.pages."):
            continue
        assert not re.search(r"\bstyle=|\bonclick|\bon[a-z]+=", module.text)
        for name in re.findall(r'class_=f?"([a-z][a-z -]*)', module.text):
            assert all(f".{one}" in style for one in name.split()), name


def test_every_text_is_said() -> None:
    """No text is missing, none is left over, and what is filled in is what is given."""
    said: set[str] = set()
    for module in laws.modules():
        if not module.name.startswith("web."):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
            if isinstance(node, ast.Call) and laws.called(node) == "say" and isinstance(node.args[0], ast.Constant):
                key = node.args[0].value
                wanted = {name for _, name, _, _ in Formatter().parse(WORDS[key]) if name}
                assert {one.arg for one in node.keywords} == wanted, key
    left = {key for key in WORDS if key not in said and not key.startswith(tuple(BUILT))}
    assert left == set()


def test_money() -> None:
    """Amounts are exact and short: two digits at least, no zeros behind them, a sign that is a minus."""
    for units, text in {
        0: "$0.00", 1: "$0.000002", 500_000: "$1.00", 550_000: "$1.10", -1_234_567_500_000: "−$2,469,135.00",
        5_000_025: "$10.00005",
    }.items():  # fmt: skip
        assert money(units) == text


def test_bars() -> None:
    """Heights are shares of the highest day, days without spending have none, small names share the last colour."""
    days = ["2027-01-01", "2027-01-02", "2027-01-03"]
    spent = {("2027-01-01", f"m{n}"): 1000 * n for n in range(1, 9)} | {
        ("2027-01-03", "m8"): 18_000,
        ("2027-01-02", "m1"): -5,
    }
    text = chart.bars(days, spent)
    heights = [float(one) for one in re.findall(r' height="([\d.]+)"', text)]
    assert abs(sum(heights) - 150) < 0.1
    assert text.count("<g>") == 3
    assert text.count('class="swatch') == 7
    assert say("others") in text
    assert "−" not in chart.bars(days, {})

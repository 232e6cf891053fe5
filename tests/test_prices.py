"""Price tables: precedence, patterns, defaults, the built-in rows, the command that shows them."""

from __future__ import annotations

import argparse
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.billing import builtin
from newapi_proxy.billing.matching import EXACT, Names
from newapi_proxy.billing.prices import MOST_KNOWN, SCALE, Price, book, exact
from newapi_proxy.cli import prices as command


def rates(price: Price | None, *fields: str) -> tuple[str, ...]:
    assert price is not None
    return tuple(price.usd[field] for field in fields)


def test_an_exact_name_beats_every_pattern() -> None:
    """The built-in exact row wins over the file's pattern."""
    prices = book({"gpt-4o*": {"input": 99}})
    assert rates(prices.find("gpt-4o"), "input") == ("2.5",)
    assert rates(prices.find("gpt-4o-unheard-of"), "input") == ("99",)


def test_more_literal_characters_win() -> None:
    """Of two patterns the one with more literal characters speaks."""
    prices = book({"my-*": {"input": 1}, "my-model-*": {"input": 2}, "*-x": {"input": 3}})
    assert rates(prices.find("my-model-x"), "input") == ("2",)
    assert rates(prices.find("my-x"), "input") == ("1",)
    assert rates(prices.find("your-x"), "input") == ("3",)


def test_the_file_beats_the_built_in_table_at_the_same_rank() -> None:
    """An exact name of the file replaces the built-in row; `prices` wins over `ratios`."""
    prices = book({"gpt-4o": {"input": 7, "output": 8}}, {"model_ratio": {"gpt-4o": 1, "gpt-4o-mini": 3}})
    found = prices.find("gpt-4o")
    assert found is not None
    assert (found.source, rates(found, "input", "output")) == ("prices", ("7", "8"))
    mini = prices.find("gpt-4o-mini")
    assert mini is not None
    assert (mini.source, rates(mini, "input")) == ("ratios", ("6",))


def test_a_star_prices_only_what_nothing_else_does() -> None:
    """The bare star comes after the requested and the mapped name."""
    prices = book({"*": {"input": 1, "output": 2}})
    assert rates(prices.find("alias", "gpt-4o"), "input") == ("2.5",)
    assert rates(prices.find("alias", "nobody-knows-it"), "input", "output") == ("1", "2")


def test_the_requested_name_comes_before_the_mapped_one() -> None:
    """Decision 16: the mapped name's price counts only where the requested one has none."""
    prices = book({"alias": {"input": 1}})
    assert rates(prices.find("alias", "gpt-4o"), "input") == ("1",)
    assert rates(prices.find("other", "gpt-4o"), "input") == ("2.5",)


def test_a_model_without_a_price_has_none() -> None:
    """The built-in table's fall-back for unknown names prices nothing (demand B6)."""
    assert book().find("nobody-knows-it") is None
    assert "*" not in builtin.rows()
    assert book({"half": {}}).find("half") is None


def test_a_row_of_parts_changes_parts_only() -> None:
    """A row without an input price stands on the built-in one; where there is none, it is no price: nothing is free."""
    prices = book({"gpt-4o": {"cache_read": 2}, "gpt-4o-mini": {"output": 3}, "odd": {"cache_read": 2}})
    assert rates(prices.find("gpt-4o"), "input", "output", "cache_read") == ("2.5", "10", "2")
    assert rates(prices.find("gpt-4o-mini"), "input", "output") == ("0.15", "3")
    assert prices.find("odd") is None
    assert rates(book({"new": {"output": 3}}).find("new"), "input", "output") == ("3", "3")


def test_a_price_like_another_models() -> None:
    """An alias costs what its model does, tiers and pieces too, through other aliases; without one it has no price."""
    tiers = [{"above": 10, "input": 2}]
    prices = book({"a": {"like": "b"}, "b": {"like": "c"}, "c": {"input": 1, "image": 3, "tiers": tiers}})
    found, origin = prices.sold("a"), prices.sold("c")
    assert found is not None
    assert origin is not None
    assert (found.usd, found.version_key, found.at(11).usd) == (origin.usd, origin.version_key, origin.at(11).usd)
    assert rates(book({"mine": {"like": "gpt-4o"}}).find("mine"), "output", "cache_read") == ("10", "1.25")
    assert book({"a": {"like": "b"}, "b": {"like": "a"}, "c": {"like": "nobody-knows-it"}}).find("a") is None


def test_zero_is_a_price() -> None:
    """A model that costs nothing is priced, and free."""
    for row in ({"input": 0}, {"call": 0}):
        found = book({"gratis": row}).find("gratis")
        assert found is not None
        assert found.free


def test_the_corrected_rows_hold() -> None:
    """The completion prices that the inherited table has wrong (relay-and-billing 8)."""
    prices = book()
    wanted = {
        "gpt-4.1": ("2", "8"),
        "gpt-4.1-mini-2025-04-14": ("0.4", "1.6"),
        "o4-mini": ("1.1", "4.4"),
        "gpt-3.5-turbo": ("0.5", "1.5"),
        "gpt-4-0125-preview": ("10", "30"),
        "deepseek-chat": ("0.27", "1.08"),
        "deepseek-reasoner": ("0.55", "2.2"),
        "gemini-2.5-flash": ("0.3", "2.5"),
        "llama-3-sonar-large-32k-chat": ("1", "1"),
    }
    assert {name: rates(prices.find(name), "input", "output") for name in wanted} == wanted
    assert rates(prices.find("gemini-2.5-flash-lite-preview-06-17-thinking-1024"), "input") == ("0.1",)


def test_every_built_in_row_makes_a_price() -> None:
    """No row is broken, none is negative, and none costs nothing but those known to be free."""
    prices = book()
    free = set()
    for name in builtin.rows():
        found = prices.find(name)
        assert found is not None, name
        assert all(getattr(found, field) >= 0 for field in builtin.FIELDS[:-1])
        if found.free:
            free.add(name)
    assert free == {"glm-4-flash", "mj_custom_zoom", "mj_inpaint", "omni-moderation-*"}


@pytest.mark.parametrize(
    ("model", "read", "write", "hour"),
    [
        ("claude-new", "0.4", "5", "8"),
        ("gemini-new", "1", "5", "8"),
        ("deepseek-new", "0.4", "5", "8"),
        ("unheard-of", "4", "5", "8"),
    ],
)
def test_cache_prices_have_defaults(model: str, read: str, write: str, hour: str) -> None:
    """Where no table says: reads by family, else the full price; writes 1.25 and 2.0 times input (A.0.3)."""
    found = book({model: {"input": 4, "output": 8}}).find(model)
    assert rates(found, "cache_read", "cache_write", "cache_write_1h") == (read, write, hour)


def test_a_file_price_keeps_the_built_in_proportions() -> None:
    """A changed input price keeps what the table knows of the model: output times 4, cached half."""
    assert rates(book({"gpt-4o": {"input": 5}}).find("gpt-4o"), "output", "cache_read") == ("20", "2.5")


def test_ratios_speak_new_apis_terms() -> None:
    """Ratio 1 is 2 USD per million; completion, cache and sound ratios multiply it; a price per call wins."""
    ratios = {
        "model_ratio": {"m": 1.25, "c": 1},
        "model_price": {"c": 0.04},
        "completion_ratio": {"m": 4},
        "cache_ratio": {"m": 0.5},
        "create_cache_ratio": {"m": 2},
        "image_ratio": {"m": 3},
        "audio_ratio": {"m": 16},
        "audio_completion_ratio": {"m": 2},
    }
    prices = book(None, ratios)
    fields = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "image_in", "audio_in", "audio_out")
    assert rates(prices.find("m"), *fields) == ("2.5", "10", "1.25", "5", "8", "7.5", "40", "80")
    assert rates(prices.find("c"), "call") == ("0.04",)


def test_a_ratio_of_the_file_corrects_a_built_in_row() -> None:
    """The file's completion ratio for a model that only the table prices is taken; a pattern's is not."""
    assert rates(book(None, {"completion_ratio": {"grok-2": 5}}).find("grok-2"), "input", "output") == ("2", "10")
    assert rates(book(None, {"completion_ratio": {"*": 5}}).find("gpt-4o"), "output") == ("10",)


def test_floats_count_as_written() -> None:
    """0.1 means one tenth, whatever its binary form."""
    assert exact(0.1) == Fraction(1, 10)
    assert exact(Decimal("0.30")) == Fraction(3, 10)
    found = book({"m": {"input": 0.1}}).find("m")
    assert found is not None
    assert found.input == SCALE // 20


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "much"])
def test_a_wrong_number_is_refused(value: object) -> None:
    """A negative, endless or worded price never becomes a book."""
    with pytest.raises(ValueError, match=r"price or ratio|negative"):
        book({"m": {"input": value}})


def test_tools_have_prices_of_their_own() -> None:
    """A tool is found by name, by the model it served, and never through the models' patterns."""
    prices = book({"*": {"call": 5}, "tool:mine": {"call": 1}})
    assert rates(prices.find("tool:web_search:gpt-4o"), "call") == ("0.01",)
    assert rates(prices.find("tool:web_search_preview:gpt-4o-mini"), "call") == ("0.025",)
    assert rates(prices.find("tool:mine:gpt-4o"), "call") == ("1",)
    assert prices.find("tool:unheard-of:gpt-4o") is None


def test_the_version_of_the_tables_changes_with_them_only() -> None:
    """Equal tables have equal versions whatever their order; any changed number changes it."""
    one = book({"a": {"input": 1}, "b": {"input": 2}}, None, {"vip": 0.8})
    same = book({"b": {"input": 2}, "a": {"input": 1}}, None, {"vip": Decimal("0.8")})
    assert one.version == same.version
    others = [book({"a": {"input": 1}}), book(), book(None, {"model_ratio": {"a": 1}}), book(None, None, {"vip": 1})]
    assert len({one.version, *(other.version for other in others)}) == 5


def version(row: dict[str, object], **more: dict[str, object]) -> str:
    found = book({"a": row, **more}).sold("a")
    assert found is not None
    return found.version_key


def test_the_version_of_a_price_changes_with_its_rates_only() -> None:
    """The same price has the same version, whatever else the tables say; any other rate, piece or tier another."""
    tiers = [{"above": 10, "input": 2}]
    rows: list[dict[str, object]] = [
        *({"input": 1}, {"input": 2}, {"input": 1, "cache_read": 0.5}, {"input": 1, "tiers": tiers}, {"call": 1}),
        *({"image": 1}, {"image": 1, "images": {"hd": 2}}, {"characters": 1}, {"minute": 1}),
    ]
    assert version({"input": 1}) == version({"input": 1.0, "output": 1}, b={"input": 9})
    assert len({version(row) for row in rows}) == len(rows)


def test_the_memo_is_bounded() -> None:
    """Names that clients invent do not fill the memory."""
    prices = book({"*": {"input": 1}})
    for number in range(MOST_KNOWN + 10):
        prices.find(f"name-{number}")
    assert len(prices._memo) <= MOST_KNOWN
    assert prices.find("x") is prices.find("x")


def test_an_unknown_group_counts_once() -> None:
    """A group that no table names has the ratio 1."""
    prices = book(None, None, {"vip": 0.8})
    assert (prices.ratio("vip"), prices.ratio("other")) == (Fraction(4, 5), Fraction(1))


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", max_size=8))
def test_patterns_match_like_a_simple_matcher(pattern: str, name: str) -> None:
    """The compiled pattern agrees with a plain recursive one."""

    def fits(rest: str, text: str) -> bool:
        if not rest:
            return not text
        if rest[0] == "*":
            return fits(rest[1:], text) or (bool(text) and fits(rest, text[1:]))
        return bool(text) and rest[0] == text[0] and fits(rest[1:], text[1:])

    found = Names([pattern]).best(name)
    assert (found is not None) == fits(pattern, name)
    if found is not None and "*" not in pattern:
        assert found == (EXACT, pattern)


def arguments(*words: str, config: Path | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", "--config")
    command.configure(parser)
    return parser.parse_args([*(("-c", str(config)) if config else ()), *words])


def changed(old: dict[str, object], new: dict[str, object]) -> list[str]:
    return [change.text for change in command.changes(book(old), book(new))]


def test_diff_names_every_change() -> None:
    """Added, removed and changed prices each have a line; more than double is marked."""
    lines = changed(
        {"a": {"input": 1}, "b": {"input": 1, "output": 2}, "c": {"input": 1}},
        {"b": {"input": 1.5, "output": 9}, "c": {"input": 1}, "d": {"call": 0.5}},
    )
    assert lines[0] == "- a  $1 in, $1 out per million"
    assert "~ b  input: $1 -> $1.5" in lines
    assert "! b  output: $2 -> $9" in lines
    assert "+ d  $0.5 per call" in lines
    assert not any(" c " in line for line in lines)


def test_diff_sees_pieces_tiers_and_groups() -> None:
    """What is sold by the piece, what long prompts cost and what groups pay is compared too."""
    old, new = [{"above": 9, "input": 2}], [{"above": 9, "input": 3}]
    lines = changed({"a": {"input": 1, "tiers": old}}, {"a": {"input": 1, "tiers": new}})
    assert "~ a  input above 9: $2 -> $3" in lines
    assert changed({"a": {"image": 1}}, {"a": {"image": 1, "images": {"hd": 3}}}) == ["! a  image hd: none -> $3"]
    groups = list(command.changes(book(None, None, {"vip": 1}), book(None, None, {"vip": 0.4})))
    assert [(change.text, change.jump) for change in groups] == [("! group vip  ratio: 1 -> 0.4", True)]


def test_diff_of_nothing_is_empty() -> None:
    """Equal tables have nothing to tell."""
    assert changed({"a": {"input": 1}}, {"a": {"input": 1}}) == []


def test_a_jump_must_be_confirmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than doubled is exit 1 with its number told, unless --yes; a doubled price is none (demand B7)."""
    old, double, more = (tmp_path / f"{name}.yaml" for name in ("old", "double", "more"))
    for file, price in ((old, 1), (double, 2), (more, 2.5)):
        file.write_text(f"prices: {{mine: {{input: {price}, output: 3}}}}\n")
    assert command.run(arguments("diff", str(old), config=old)) == 0
    assert capsys.readouterr().out == "nothing changes\n"
    assert command.run(arguments("diff", str(double), config=old)) == 0
    assert command.run(arguments("diff", str(more), config=old)) == 1
    out, err = capsys.readouterr()
    assert "! mine  input: $1 -> $2.5" in out
    assert "more than doubled or halved (marked !): --yes if that is meant" in err
    assert command.run(arguments("diff", str(more), "--yes", config=old)) == 0


def test_show_says_where_a_price_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a configuration the built-in table speaks; an unpriced model is exit 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEWAPI_PROXY_CONFIG", raising=False)
    assert command.run(arguments("show", "gpt-4o")) == 0
    out = capsys.readouterr().out
    assert "gpt-4o: built-in, by that name" in out
    assert "cache_read      $1.25 per million tokens" in out
    assert command.run(arguments("show", "nobody-knows-it")) == 1
    assert command.run(arguments("list", "mj_im*")) == 0
    assert capsys.readouterr().out == "mj_imagine  $0.1 per call  (built-in)\n"
    assert command.run(arguments("list", "tts-1")) == 0
    wanted = "tts-1  $15 in, $15 out per million, $15 per million characters  (built-in)\n"
    assert capsys.readouterr().out == wanted


def test_a_configuration_that_is_not_there_is_exit_2(tmp_path: Path) -> None:
    """A named file must exist."""
    assert command.run(arguments("show", "gpt-4o", config=tmp_path / "none.yaml")) == 2


def test_the_configuration_speaks_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` and `diff` read the file that `serve` would."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("prices:\n  mine: {input: 1, output: 2}\n")
    new.write_text("prices:\n  mine: {input: 1, output: 3}\n")
    assert command.run(arguments("show", "mine", config=old)) == 0
    assert "mine: prices, by that name" in capsys.readouterr().out
    assert command.run(arguments("diff", str(new), config=old)) == 0
    assert "~ mine  output: $2 -> $3" in capsys.readouterr().out

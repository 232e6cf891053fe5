"""The arithmetic of a charge and of a hold: vectors, exactness, hostile usage, sums."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.billing import builtin
from newapi_proxy.billing.charge import UNSEEN, Charge, amount, charge, hold_amount, told, usd
from newapi_proxy.billing.pieces import priced as covers
from newapi_proxy.billing.prices import SCALE, Price, book
from newapi_proxy.ir.ask import Ask, Controls, Media, Text, Tool, ToolResult, Turn
from newapi_proxy.ir.usage import Pieces, Usage

ONE = Decimal(1)


def priced(row: dict[str, Any] | None = None, name: str = "m", **ratios: Any) -> Price:
    found = book({name: row} if row else None, {table: {name: value} for table, value in ratios.items()}).sold(name)
    assert found is not None
    return found


def units(usage: Usage, price: Price, ratio: Decimal = ONE) -> int:
    return charge(usage, price, ratio).units


def test_worked_vectors_of_the_contract() -> None:
    """Relay-and-billing 5.14, where exact arithmetic gives the same."""
    gpt4o = priced(name="gpt-4o", model_ratio=2.5, completion_ratio=4)
    assert units(Usage(prompt=1000, completion=200), gpt4o) == 4500
    assert units(Usage(prompt=1000, completion=200), gpt4o, Decimal("0.8")) == 3600
    mini = priced(name="gpt-4o-mini", model_ratio=0.075, completion_ratio=4)
    assert units(Usage(prompt=3, completion=1), mini) == 1
    assert units(Usage(prompt=1), priced(name="text-embedding-3-small", model_ratio=0.01)) == 1
    cached = priced(name="gpt-4o", model_ratio=1.25, completion_ratio=4, cache_ratio=0.5)
    assert units(Usage(prompt=1000, completion=200, cache_read=400), cached) == 2000


def test_the_vector_that_rounding_twice_makes_smaller() -> None:
    """gpt-3.5-turbo-0613, 10 and 7 tokens: the reference rounds twice and says 14; exactly it is 14.5, so 15."""
    found = book().find("gpt-3.5-turbo-0613")
    assert found is not None
    assert units(Usage(prompt=10, completion=7), found) == 15


def test_claude_costs_the_same_through_every_surface() -> None:
    """100 in, 1000 read, 200 written, 50 out are 1050 units: all input is inside `prompt`, so nothing goes negative."""
    sonnet = priced(name="claude-x", model_ratio=1.5, completion_ratio=5, cache_ratio=0.1)
    assert units(Usage(prompt=1300, completion=50, cache_read=1000, cache_write=200), sonnet) == 1050


def drawn(count: int, size: str = "", quality: str = "") -> Usage:
    return Usage(pieces=Pieces(pictures=count, size=size, quality=quality), source="counted")


def spoken(text: str) -> Usage:
    return Usage(pieces=Pieces(characters=len(text)), source="counted")


def heard(milliseconds: int, **counts: int) -> Usage:
    return Usage(pieces=Pieces(milliseconds=milliseconds), source="upstream" if counts else "counted", **counts)


def test_picture_vectors() -> None:
    """Relay-and-billing 5.14: size, quality and number multiply the price of a picture."""
    dalle = book().sold("dall-e-3")
    assert dalle is not None
    assert units(drawn(1, "1024x1024", "standard"), dalle) == 20_000
    assert units(drawn(2, "1792x1024", "hd"), dalle) == 120_000
    assert units(drawn(1, "1024x1024", "hd"), dalle) == 40_000
    assert units(drawn(1, "256x256"), priced(model_ratio=8)) == 4000
    assert units(drawn(1), priced(model_ratio=16)) == 20_000


def test_pictures_cost_by_size_and_quality_as_the_row_says() -> None:
    """The most exact name wins, then the size, then the quality; the rest has the row's price and multipliers."""
    named = {"1024x1024": 0.02, "high": 0.1, "1536x1024 high": 0.25}
    found = priced({"image": 0.04, "images": named})
    assert units(drawn(1, "1536x1024", "high"), found) == 125_000
    assert units(drawn(3, "1024x1024", "high"), found) == 30_000
    assert units(drawn(1, "1536x1024", "medium"), found) == 20_000
    assert units(drawn(1, "1024x1536", "high"), found) == 50_000
    assert units(drawn(1, "512x512"), found) == 9_000
    assert units(drawn(1, "512x512"), priced({"images": named})) == 125_000


def test_only_pictures_that_came_cost() -> None:
    """None came: nothing is charged, whatever the form of the price; tokens that upstream counted are charged."""
    for row in ({"image": 1}, {"call": 1}, {"input": 1}):
        assert units(drawn(0), priced(row)) == 0
    tokens = Usage(prompt=50, completion=4160, image_out=4160, pieces=Pieces(pictures=1, quality="high"))
    assert units(tokens, priced({"input": 5, "output": 10, "image_output": 40})) == 125 + 83_200
    assert units(tokens, priced({"input": 5, "image": 0.04})) == 20_000


def test_speech_costs_by_its_characters() -> None:
    """USD per million characters; New API's `tts` models price a character as a token; a call price is one price."""
    assert units(spoken("x" * 1000), priced({"characters": 15})) == 7500
    found = book().sold("tts-1")
    assert found is not None
    assert units(spoken("grüße"), found) == 38  # 37.5
    assert units(spoken("x" * 1000), priced({"call": 0.002})) == 1000
    assert units(spoken("x" * 1000), priced({"input": 2})) == 1000
    assert units(Usage(prompt=250, pieces=Pieces(characters=1000)), priced({"input": 2})) == 250


def test_sound_costs_by_its_length() -> None:
    """By the second begun; a token price counts a thousand tokens a minute (relay-and-billing 5.10)."""
    assert units(heard(30_000), priced({"minute": 0.006})) == 1500
    assert units(heard(29_001), priced({"minute": 0.006})) == 1500
    assert units(heard(30_000), priced({"second": 0.0001})) == 1500
    whisper = book().sold("whisper-1")
    assert whisper is not None
    assert [units(heard(ms), whisper) for ms in (1000, 30_000, 61_200)] == [17 * 15, 500 * 15, 1033 * 15]
    assert units(heard(30_000, prompt=10, audio_in=8, completion=4), priced({"input": 2, "output": 4})) == 18


def test_a_price_by_the_piece_covers_only_its_kind() -> None:
    """A chat at a price per picture is refused, and so is speech; with a token price beside it both run."""
    only = priced({"image": 0.04})
    assert not only.general
    assert covers(drawn(1).pieces or Pieces(), only)
    assert not covers(Pieces(characters=5), only)
    assert covers(Pieces(characters=5), priced({"image": 0.04, "input": 1}))


@pytest.mark.parametrize(
    ("pieces", "row", "units_held"),
    [
        (Pieces(pictures=2, size="1792x1024", quality="hd"), {"image": 0.04}, 80_000),
        (Pieces(characters=1000), {"characters": 15}, 7500),
        (Pieces(characters=1000), {"input": 2}, 1000),
        (Pieces(milliseconds=30_000), {"minute": 0.006}, 1500),
        (Pieces(milliseconds=30_000), {"input": 2}, 500),
        (Pieces(pictures=1, size="1024x1024", quality="low"), {"input": 5, "image_output": 40}, 5460),
        (Pieces(pictures=1, size="1024x1536"), {"input": 5, "image_output": 40}, 124_820),
        (Pieces(milliseconds=1), {"minute": 0}, 0),
    ],
)
def test_pieces_are_held_before(pieces: Pieces, row: dict[str, Any], units_held: int) -> None:
    """What is asked for is held as it will be charged, tokens of pictures at the most that they can be."""
    ask = msgspec.structs.replace(asked(10**7), pieces=pieces, texts="a cat on a mat")
    assert hold_amount(ask, priced(row), ONE) == units_held


def test_what_is_counted_here_is_only_text() -> None:
    """Counted tokens price a text to be spoken; pictures and sound cost as the reference has it, not their prompt."""
    found = priced({"input": 2})
    assert units(Usage(prompt=250, pieces=Pieces(characters=1000), source="counted"), found) == 250
    assert units(Usage(prompt=250, pieces=Pieces(milliseconds=60_000), source="counted"), found) == 1000
    assert units(Usage(prompt=250, pieces=Pieces(pictures=1), source="counted"), found) == 1250


def test_long_prompts_have_their_tier() -> None:
    """Above its bound the whole request has the tier's rates; what a tier leaves out rises as its input does."""
    row = {"input": 1.25, "output": 10, "tiers": [{"above": 200_000, "input": 2.5, "output": 15}]}
    found = priced(row, cache_ratio=0.1)
    assert units(Usage(prompt=200_000, completion=100), found) == 125_000 + 500
    assert units(Usage(prompt=200_001, completion=100), found) == 250_001 + 750
    assert units(Usage(prompt=300_000, cache_read=300_000), found) == 37_500
    two = priced({"input": 1, "tiers": [{"above": 10, "input": 2}, {"above": 100, "input": 3}]})
    assert [units(Usage(prompt=count), two) for count in (10, 100, 101)] == [5, 100, 152]
    made = charge(Usage(prompt=101), two, ONE)
    assert told(made.steps)[0] == "more than 100 tokens of prompt: that tier's rates"
    assert hold_amount(asked(3 * 200_010, 100), found, ONE) == -(-(200_011 * 125 + 100 * 750) // 100)


def test_steps_explain_the_sum() -> None:
    """Each count, its price, the group's ratio and the rounding stand in the steps, and read as sentences."""
    found = book().find("gpt-4o")
    assert found is not None
    made = charge(Usage(prompt=1001, completion=200, cache_read=400), found, Decimal("0.8"))
    steps = [
        ("input", 601, "2.5", "751.25"),
        ("cache_read", 400, "1.25", "250"),
        ("output", 200, "10", "1000"),
        ("sum", 0, "", "2001.25"),
        ("group ratio", 0, "0.8", "1601"),
        ("charge", 0, "", "1601"),
    ]
    assert made == Charge(1601, "0.003202", steps, found.version_key)
    assert told(made.steps) == [
        "input: 601 tokens x $2.5 per million = 751.25 units",
        "cache_read: 400 tokens x $1.25 per million = 250 units",
        "output: 200 tokens x $10 per million = 1000 units",
        "sum: 2001.25 units",
        "group ratio: x 0.8 = 1601 units",
        "charge, rounded half up, at least 1 where anything was billable: 1601 units",
    ]


def test_half_a_unit_rounds_up_once() -> None:
    """Two terms of 0.25 units make a half, and that one unit."""
    found = priced({"input": 0.5, "output": 0.5})
    assert units(Usage(prompt=5, completion=1), found) == 2
    assert units(Usage(prompt=4, completion=1), found) == 1
    assert units(Usage(prompt=3, completion=3), found) == 2


def test_something_costs_at_least_one_unit() -> None:
    """The minimum holds where anything billable was used, and only there."""
    cheap = priced({"input": 0.000001, "output": 0})
    assert units(Usage(prompt=1), cheap) == 1
    assert units(Usage(completion=50), cheap) == 0
    assert units(Usage(), cheap) == 0
    assert units(Usage(prompt=1), priced({"input": 0})) == 0
    assert units(Usage(prompt=1000), cheap, Decimal(0)) == 0


def test_a_call_price_covers_the_request() -> None:
    """Tokens and sub-inferences are inside; server tools are not; a usage of no source costs nothing."""
    prices = book({"m": {"call": 0.002}})
    found = prices.find("m")
    assert found is not None
    assert units(Usage(prompt=10**6, completion=10**6, others=(("gpt-4o", Usage(prompt=10**6)),)), found) == 1000
    searched = charge(Usage(prompt=5, server_tools={"web_search_requests": 2}), found, ONE, prices.find)
    assert searched.units == 1000 + 2 * 5000
    assert units(Usage(source="none"), found) == 0


def test_sub_inferences_cost_their_own_models_price() -> None:
    """An advisor is billed at its model's price, one without a price at the request's."""
    prices = book({"m": {"input": 2, "output": 2}, "dear": {"input": 20, "output": 20}, "fixed": {"call": 0.002}})
    found = prices.find("m")
    assert found is not None
    others = (("dear", Usage(prompt=100)), ("unheard-of", Usage(prompt=100)), ("fixed", Usage(prompt=100)))
    made = charge(Usage(prompt=100, others=others), found, ONE, prices.find)
    assert made.units == 100 + 1000 + 100 + 1000
    assert [step[0] for step in made.steps[:3]] == ["input", "input of dear", "input of unheard-of"]
    assert charge(Usage(others=others[1:2]), found, ONE, None).units == 100


def test_a_tool_without_a_price_is_part_of_the_model() -> None:
    """Page fetches and unheard-of tools add nothing; negative counts of priced ones neither."""
    prices = book()
    found = prices.find("claude-sonnet-4-5")
    assert found is not None
    tools = {"web_fetch_requests": 3, "web_search_requests": -4}
    assert charge(Usage(prompt=100, server_tools=tools), found, ONE, prices.find).units == 150


FIELDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "audio_in", "audio_out", "image_in")


def independent(usage: Usage, row: dict[str, str], ratio: Decimal) -> int:
    """The same sum another way: USD as fractions, all parts by name, one rounding."""
    rate = {field: Fraction(row[field]) for field in FIELDS}
    rate["image_out"] = rate["output"]
    inside = usage.cache_read + usage.cache_write + usage.cache_write_1h + usage.audio_in + usage.image_in
    counts = {
        "input": usage.prompt - inside,
        "output": usage.completion - usage.audio_out - usage.image_out,
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write,
        "cache_write_1h": usage.cache_write_1h,
        "audio_in": usage.audio_in,
        "audio_out": usage.audio_out,
        "image_in": usage.image_in,
        "image_out": usage.image_out,
    }
    dollars = sum((count * rate[field] / 1_000_000 for field, count in counts.items()), Fraction(0))
    value = dollars * Fraction(ratio) * 500_000
    rounded = (value + Fraction(1, 2)).__floor__()
    return 1 if not rounded and value else rounded


def test_two_hundred_usages_equal_an_independent_sum() -> None:
    """Demand B4: every kind of token priced separately and summed once, to the unit."""
    chance = random.Random(20)
    configured = {"audio_in": "audio_input", "audio_out": "audio_output", "image_in": "image_input"}
    for _ in range(200):
        row = {field: str(Decimal(chance.randrange(0, 10**7)) / 10 ** chance.randrange(1, 7)) for field in FIELDS}
        parts = [chance.choice((0, chance.randrange(50_000))) for _ in range(5)]
        sounds = [chance.choice((0, chance.randrange(9_000))) for _ in range(2)]
        usage = Usage(
            prompt=sum(parts) + chance.randrange(100_000),
            completion=sum(sounds) + chance.randrange(20_000),
            cache_read=parts[0],
            cache_write=parts[1],
            cache_write_1h=parts[2],
            audio_in=parts[3],
            image_in=parts[4],
            audio_out=sounds[0],
            image_out=sounds[1],
            reasoning=chance.randrange(100),
        )
        ratio = Decimal(chance.choice(("1", "0.8", "1.37", "0.333333")))
        price = priced({configured.get(field, field): Decimal(value) for field, value in row.items()})
        assert units(usage, price, ratio) == independent(usage, row, ratio)


@given(
    st.integers(0, 50),
    st.sampled_from(("", "256x256", "512x512", "1024x1024", "1792x1024", "640x640")),
    st.sampled_from(("", "standard", "hd")),
    st.decimals("0", "9", places=4),
    st.sampled_from(("1", "0.8", "1.37")),
)
def test_pictures_equal_an_independent_sum(number: int, size: str, quality: str, usd: Decimal, ratio: str) -> None:
    """Number x size x quality x price x group, rounded once (relay-and-billing 5.9)."""
    times = {"256x256": Fraction("0.4"), "512x512": Fraction("0.45"), "1792x1024": Fraction(2)}.get(size, Fraction(1))
    if quality == "hd":
        times *= Fraction(3, 2) if size == "1792x1024" else 2
    exact = number * times * Fraction(usd) * 500_000 * Fraction(ratio)
    wanted = max((exact + Fraction(1, 2)).__floor__(), 1 if exact else 0)
    found = priced({"image": usd}, name="dall-e-3")
    assert units(drawn(number, size, quality), found, Decimal(ratio)) == wanted


counts = st.integers(0, 2_000_000)
wild = st.integers(-(2**70), 2**70)
USUAL = priced({"input": 2.5, "output": 10, "cache_read": 0.25, "cache_write": 3.125, "audio_input": 40})


@given(st.lists(wild, min_size=9, max_size=9))
def test_no_usage_ever_credits(numbers: list[int]) -> None:
    """Whatever upstream says, the charge is not negative (demand B5)."""
    names = ("prompt", "completion", "cache_read", "cache_write", "cache_write_1h")
    more = ("audio_in", "image_in", "audio_out", "image_out")
    hostile = Usage(**dict(zip((*names, *more), numbers, strict=True)))
    assert units(hostile, USUAL) >= 0


@given(counts, counts, counts, counts)
def test_more_tokens_never_cost_less(prompt: int, completion: int, more: int, read: int) -> None:
    """Monotone in prompt and completion; a cached token never costs more than a plain one here."""
    usage = Usage(prompt=prompt, completion=completion)
    base = units(usage, USUAL)
    assert units(Usage(prompt=prompt + more, completion=completion), USUAL) >= base
    assert units(Usage(prompt=prompt, completion=completion + more), USUAL) >= base
    assert units(Usage(prompt=prompt, completion=completion, cache_read=read), USUAL) <= base


@given(counts, counts, counts)
def test_the_steps_add_up(prompt: int, completion: int, read: int) -> None:
    """The lines before the charge sum to it, but for the rounding and the minimum."""
    made = charge(Usage(prompt=prompt, completion=completion, cache_read=read), USUAL, ONE)
    total = sum((Fraction(step[3]) for step in made.steps[:-1]), Fraction(0))
    assert made.units == max((total + Fraction(1, 2)).__floor__(), 1 if total else 0)


@given(st.integers(0, 10**15))
def test_usd_is_exact(value: int) -> None:
    """Six decimals hold every unit."""
    assert Fraction(usd(value)) == Fraction(value, 500_000)


def test_amounts_read_plainly() -> None:
    """No exponent, no trailing zeros."""
    assert (amount(0), amount(SCALE), amount(SCALE // 4), amount(1)) == ("0", "1", "0.25", "0." + "0" * 17 + "1")


def asked(size: int = 300, limit: int | None = None, n: int = 1, parts: tuple[Any, ...] = ()) -> Ask:
    turns = (Turn(role="user", parts=parts or (Text(text="hello"),)),)
    return Ask(dialect="x", model="m", tree={}, size=size, turns=turns, controls=Controls(max_tokens=limit, n=n))


def test_a_hold_is_bytes_and_limit() -> None:
    """A third of the bytes at the input price, the limit for each alternative at the output price."""
    found = priced({"input": 2, "output": 4})
    assert hold_amount(asked(300, 100), found, ONE) == 101 + 200
    assert hold_amount(asked(300, 100, 3), found, ONE) == 101 + 600
    assert hold_amount(asked(300), found, ONE) == 101 + 8192
    assert hold_amount(asked(300, 100), found, Decimal("0.5")) == 151


def test_tools_are_held_with_what_comes_with_them() -> None:
    """A provider puts its own words around tools, which the body's bytes do not show."""
    found = priced({"input": 2, "output": 0})
    tools = msgspec.structs.replace(asked(300, 0), tools=(Tool(name="now"),))
    assert hold_amount(tools, found, ONE) == hold_amount(asked(300, 0), found, ONE) + UNSEEN


def test_a_payload_is_held_as_a_picture() -> None:
    """A megabyte of base64 costs what a picture costs, wherever it stands."""
    found = priced({"input": 2, "output": 0})
    picture = Media(kind="image", data="A" * 1_000_000)
    plain = hold_amount(asked(300, 0), found, ONE)
    assert hold_amount(asked(1_000_300, 0, parts=(picture,)), found, ONE) == plain + 1600
    inside = ToolResult(id="1", parts=(picture,))
    assert hold_amount(asked(1_000_300, 0, parts=(inside,)), found, ONE) == plain + 1600


def test_a_call_price_is_held_exactly() -> None:
    """What a per-call model will cost is known before."""
    assert hold_amount(asked(10**6, 10**6, 5), priced({"call": 0.002}), Decimal("0.8")) == 800
    assert hold_amount(asked(), priced({"call": 0.002}), ONE, calls=3) == 3000


def test_only_free_models_hold_nothing() -> None:
    """A priced model holds at least one unit; one that costs nothing works with an empty balance (demand B6)."""
    assert hold_amount(asked(0, 0), priced({"input": 0.000001, "output": 0}), ONE) == 1
    assert hold_amount(asked(0, 0), priced({"input": 0, "output": 1}), ONE) == 1
    assert hold_amount(asked(), priced({"input": 0, "output": 0}), ONE) == 0


@given(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 8))
def test_holds_are_monotone(size: int, more: int, limit: int, longer: int, n: int) -> None:
    """A larger body, a higher limit, more alternatives never hold less."""
    base = hold_amount(asked(size, limit, n), USUAL, ONE)
    assert base >= 1
    assert hold_amount(asked(size + more, limit, n), USUAL, ONE) >= base
    assert hold_amount(asked(size, limit + longer, n), USUAL, ONE) >= base
    assert hold_amount(asked(size, limit, n + 1), USUAL, ONE) >= base


@pytest.mark.parametrize("name", sorted(builtin.rows())[::40])
def test_built_in_rows_charge_what_they_say(name: str) -> None:
    """A million tokens in cost the row's own number of dollars."""
    found = book().find(name)
    assert found is not None
    if found.call is None:
        made = units(Usage(prompt=10**6), found)
        assert abs(Fraction(made, 500_000) - Fraction(found.usd["input"])) <= Fraction(1, 10**6)

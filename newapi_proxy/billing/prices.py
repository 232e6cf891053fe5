"""What a model costs: the configuration's `prices` and `ratios` over the built-in table, composed into one `Price`.

Knows tables and precedence (interfaces 3, decisions 6 and 16), nothing of requests. All exact: fractions while
composing, whole numbers of 10^-18 quota units per token in the `Price`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import msgspec

from newapi_proxy.billing import builtin
from newapi_proxy.billing.matching import Names

SCALE: Final = 10**18  # parts of one quota unit: a rate of 1e-18 units a token still counts exactly
UNITS_PER_USD: Final = 500_000
PIECES: Final = ("image", "characters", "minute")  # sold by the piece: USD per picture, per million, per minute
IMAGE: Final = "image "  # before a size, a quality or both in a row's cells: "image 1024x1536 high"
TOOL: Final = "tool:"  # names of server tools in the tables: tool:web_search, tool:web_search:gpt-4o*
MOST_KNOWN: Final = 4096  # memoised look-ups: names come from requests, so the memo must not grow for ever

WRITE: Final = Fraction(5, 4)  # cache write over input, where no table says (provider-translation A.0.3)
HOUR: Final = Fraction(8, 5)  # 1-hour cache write over the 5-minute one: 2.0 over 1.25
# Cache read over input by words in the name, where no table says. Anything else pays the full price: a discount that
# nobody stated would be given at the operator's expense.
READ: Final = (("claude", Fraction(1, 10)), ("gemini-", Fraction(1, 4)), ("deepseek-", Fraction(1, 10)))

_TABLES: Final = (
    "completion_ratio",
    "cache_ratio",
    "create_cache_ratio",
    "image_ratio",
    "audio_ratio",
    "audio_completion_ratio",
)
_CONFIGURED: Final = {  # our field → what the configuration calls it
    **{field: field for field in builtin.FIELDS},
    "audio_in": "audio_input",
    "audio_out": "audio_output",
    "image_in": "image_input",
    "image_out": "image_output",
    "image": "image",
    "characters": "characters",
    "minute": "minute",
}
# What USD are for: how many, and in words. Everything else is by the million tokens.
_PER: Final = {
    "call": (1, "call"),
    "image": (1, "picture"),
    "characters": (1_000_000, "million characters"),
    "minute": (1, "minute"),
}
# Speech by the names that New API knows: their "tokens" are the text's characters (relay-and-billing 5.7.3, 5.10).
SPEECH: Final = "tts"
Sheet = dict[str, Fraction]
Tiers = tuple[tuple[int, Sheet], ...]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One model's price: rates in 10^-18 quota units per token, or `call` per request, which then is all.

    `image` per picture, `images` by size and quality, `characters` per character, `minute` per minute of sound: None
    where the model is not sold so. `tiers`: other rates above so many prompt tokens, the highest first.
    `name` is the name it was found for, `key` the row that gave it, `source` whose row it is (prices, ratios,
    built-in), `version_key` the same for the same rates, whenever and wherever. `usd` holds the rates as text for
    people: USD per million tokens or characters; `call`, `image` and `minute` for one.
    """

    name: str
    key: str
    source: str
    version_key: str
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio_in: int = 0
    audio_out: int = 0
    image_in: int = 0
    image_out: int = 0
    call: int | None = None
    image: int | None = None
    characters: int | None = None
    minute: int | None = None
    images: Mapping[str, int] = {}
    tiers: tuple[tuple[int, Price], ...] = ()
    usd: Mapping[str, str] = {}

    @property
    def free(self) -> bool:
        """Nothing that this price covers costs anything: usable with an empty balance (demand B6)."""
        if self.call is not None:
            return self.call == 0
        rates = any(getattr(self, field) for field in (*builtin.FIELDS[:-1], *PIECES)) or any(self.images.values())
        return not rates and all(tier.free for _, tier in self.tiers)

    @property
    def general(self) -> bool:
        """Whether it prices any request; else only pieces, and a chat must not run at no price."""
        return self.call is not None or "input" in self.usd

    def at(self, prompt: int) -> Price:
        """The rates for a prompt of so many tokens."""
        return next((tier for above, tier in self.tiers if prompt > above), self)


class _Found(msgspec.Struct, frozen=True):
    rank: int
    key: str
    source: str
    sheet: Sheet


def decimal_text(value: Fraction) -> str:
    """The fraction as decimal digits, at most 15 behind the point, no exponent."""
    whole, rest = divmod(round(value * 10**15), 10**15)
    return f"{whole}.{rest:015d}".rstrip("0").rstrip(".")


def units_of(field: str) -> str:
    """What the USD under this name in `Price.usd` are paid for: "million tokens", "picture" …"""
    return _per(field)[1]


def _per(field: str) -> tuple[int, str]:
    return _PER.get(field.partition(" ")[0], (1_000_000, "million tokens"))


def exact(value: Any) -> Fraction:
    """A number of the configuration as written: 0.1 means one tenth. Raises ValueError where it is no amount."""
    try:
        number = Fraction(Decimal(str(value)))
    except (ArithmeticError, ValueError):
        raise ValueError(f"{value!r} is no price or ratio") from None
    if number < 0:
        raise ValueError(f"{value!r} is negative")
    return number


class PriceBook:
    """Every price of one configuration. Immutable but for the memo of look-ups; shared by all requests.

    `tiers`: for names among `prices`, what is said of larger prompts.
    """

    __slots__ = ("_memo", "_ratios", "_sold", "_tables", "_tiers", "groups", "version")

    def __init__(
        self,
        prices: Mapping[str, Sheet],
        ratios: Mapping[str, Mapping[str, Fraction]],
        groups: Mapping[str, Fraction],
        tiers: Mapping[str, Tiers],
    ) -> None:
        self.groups = groups
        self._tiers = tiers
        self._ratios = {table: (Names(ratios.get(table, ())), ratios.get(table, {})) for table in _TABLES}
        calls = {name: {"call": value} for name, value in ratios.get("model_price", {}).items()}
        inputs = {name: {"input": value * 2} for name, value in ratios.get("model_ratio", {}).items()}
        self._tables: tuple[tuple[str, Names, Mapping[str, Sheet] | None], ...] = (
            ("prices", Names(prices), prices),
            ("ratios", Names(calls), calls),
            ("ratios", Names(inputs), inputs),
            ("built-in", _builtin_names(), None),
        )
        self.version = _digest(prices, ratios, groups, tiers)
        self._memo: dict[tuple[str, str | None], Price | None] = {}
        self._sold: dict[tuple[str, str | None], Price | None] = {}

    def find(self, requested: str, mapped: str | None = None) -> Price | None:
        """The price of the requested name if it has one, else of the mapped one; None: the request must be refused.

        A bare `*` prices only what nothing else does, so it is asked after both names. `tool:NAME:MODEL` finds a
        server tool's price per call, only among `tool:` keys. A price by the piece alone is none here.
        """
        try:
            return self._memo[requested, mapped]
        except KeyError:
            price = self.sold(requested, mapped)
        if len(self._memo) >= MOST_KNOWN:
            self._memo.clear()
        known = self._memo[requested, mapped] = price if price is not None and price.general else None
        return known

    def sold(self, requested: str, mapped: str | None = None) -> Price | None:
        """The same for a route that sells pictures, speech or sound, where a price by the piece is enough."""
        try:
            return self._sold[requested, mapped]
        except KeyError:
            pass
        if len(self._sold) >= MOST_KNOWN:
            self._sold.clear()
        price = self._sold[requested, mapped] = self._compose(requested, mapped)
        return price

    def ratio(self, group: str) -> Fraction:
        """The group's factor on every price; 1 for a group that no table names (relay-and-billing 5.1)."""
        return self.groups.get(group, Fraction(1))

    def names(self) -> list[str]:
        """Every key of every table, sorted: models, patterns, tools."""
        keys = set(builtin.rows())
        for _, _, sheets in self._tables:
            keys.update(sheets or ())
        return sorted(keys)

    def _compose(self, requested: str, mapped: str | None) -> Price | None:
        if requested.startswith(TOOL):
            found = self._best(requested) or self._best(TOOL + requested.split(":")[1])
            return self._price(requested, found) if found and "call" in found.sheet else None
        found = self._best(requested)
        if (found is None or found.rank == 0) and mapped is not None and mapped != requested:
            other = self._best(mapped)
            if other is not None and (found is None or other.rank > 0):
                return self._price(mapped, other)
        return self._price(requested, found) if found else None

    def _best(self, name: str) -> _Found | None:
        best: _Found | None = None
        for source, names, sheets in self._tables:
            match = names.best(name)
            if match is None or name.startswith(TOOL) != match[1].startswith(TOOL):
                continue
            if best is None or match[0] > best.rank:
                sheet = builtin.sheet(match[1]) if sheets is None else sheets[match[1]]
                if "call" in sheet or _sold_only(sheet) or _base(name, sheet) is not None:
                    best = _Found(match[0], match[1], source, sheet)
        return best

    def _price(self, name: str, found: _Found) -> Price:
        if "call" in found.sheet:
            return _made(name, found, {"call": found.sheet["call"]}, ())
        pieces = {field: rate for field, rate in found.sheet.items() if field in PIECES or field.startswith(IMAGE)}
        if _base(name, found.sheet) is None:
            return _made(name, found, pieces, ())
        rates = _Composition(self._ratios, name, found).rates() | pieces
        if "characters" not in rates and name.startswith(SPEECH):
            rates["characters"] = rates["input"]
        higher = self._tiers.get(found.key, ()) if found.source == "prices" else ()
        return _made(name, found, rates, tuple((above, _raised(rates, sheet)) for above, sheet in higher))


def _made(name: str, found: _Found, rates: Sheet, higher: Tiers) -> Price:
    scaled = {field: _scaled(rate * UNITS_PER_USD / _per(field)[0]) for field, rate in rates.items()}
    images = {field.removeprefix(IMAGE): rate for field, rate in scaled.items() if field.startswith(IMAGE)}
    said = repr((sorted(rates.items()), [(above, sorted(sheet.items())) for above, sheet in higher]))
    version = hashlib.sha256(said.encode()).hexdigest()[:12]
    tiers = tuple((above, _made(name, found, sheet, ())) for above, sheet in higher)
    return Price(
        name=name,
        key=found.key,
        source=found.source,
        version_key=version,
        usd={field: decimal_text(rate) for field, rate in rates.items()},
        images=images,
        tiers=tuple((above, msgspec.structs.replace(tier, version_key=version)) for above, tier in tiers),
        **{field: rate for field, rate in scaled.items() if not field.startswith(IMAGE)},
    )


def _raised(rates: Sheet, tier: Sheet) -> Sheet:
    """A tier's rates: what it leaves out rises as its input does."""
    factor = tier["input"] / rates["input"] if "input" in tier and rates["input"] else Fraction(1)
    return {
        field: tier[field] if field in tier else rate * (factor if field in builtin.FIELDS else 1)
        for field, rate in rates.items()
    }


class _Composition:
    """Fills the rates that a row leaves out: the file's ratios, the built-in row's proportions, then defaults."""

    __slots__ = ("_built", "_found", "_name", "_ratios")

    def __init__(self, ratios: Mapping[str, tuple[Names, Mapping[str, Fraction]]], name: str, found: _Found) -> None:
        self._ratios = ratios
        self._name = name
        self._found = found
        match = _builtin_names().best(name)
        self._built = (match[0], builtin.sheet(match[1])) if match else (-1, {})

    def rates(self) -> Sheet:
        """USD per million tokens, every field."""
        given = self._found.sheet
        base = _base(self._name, given)
        assert base is not None  # _best takes no row without one
        read = next((ratio for word, ratio in READ if word in self._name.lower()), Fraction(1))
        rates = {"input": base}
        rates["output"] = self._part("output", "completion_ratio", base, base)
        rates["cache_read"] = self._part("cache_read", "cache_ratio", base, base * read)
        rates["cache_write"] = self._part("cache_write", "create_cache_ratio", base, base * WRITE)
        rates["cache_write_1h"] = self._part("cache_write_1h", "", base, rates["cache_write"] * HOUR)
        rates["audio_in"] = self._part("audio_in", "audio_ratio", base, base)
        rates["audio_out"] = self._audio_out(rates)
        rates["image_in"] = self._part("image_in", "image_ratio", base, base)
        rates["image_out"] = self._part("image_out", "", base, rates["output"])
        return rates

    def _part(self, field: str, table: str, base: Fraction, default: Fraction) -> Fraction:
        if self._found.source == "prices" and field in self._found.sheet:
            return self._found.sheet[field]
        rank, ratio = self._file(table)
        built_rank, built = self._built
        if field in built and built.get("input") and built_rank > rank:
            return base * built[field] / built["input"]
        return default if ratio is None else base * ratio

    def _audio_out(self, rates: Sheet) -> Fraction:
        """In New API's tables output sound is input sound times a ratio; where none is stated, it costs as text."""
        if self._file("audio_completion_ratio")[1] is None and self._file("audio_ratio")[1] is None:
            return self._part("audio_out", "", rates["input"], rates["output"])
        return self._part("audio_out", "audio_completion_ratio", rates["audio_in"], rates["audio_in"])

    def _file(self, table: str) -> tuple[int, Fraction | None]:
        if not table:
            return -1, None
        names, values = self._ratios[table]
        match = names.best(self._name)
        return (match[0], values[match[1]]) if match else (-1, None)


def book(
    prices: Mapping[str, Any] | None = None, ratios: Any = None, groups: Mapping[str, Any] | None = None
) -> PriceBook:
    """A book from a configuration's tables.

    `prices`: name → an object or mapping with the fields of `config.model.Price`; `ratios`: an object or mapping with
    the tables of `config.model.Ratios`; `groups`: group → ratio. Numbers may be float, int, Decimal or text; a float
    counts as its shortest decimal. A row without any number is no price, nor is one that is `like` another model
    without a price. Raises ValueError on a negative or NaN.
    """
    sheets = {name: sheet for name, row in (prices or {}).items() if (sheet := _sheet(row))}
    tiers = {name: _tiers(row) for name, row in (prices or {}).items() if _field(row, "tiers")}
    tables = {
        table: {name: exact(value) for name, value in (_field(ratios, table) or {}).items()}
        for table in ("model_ratio", "model_price", *_TABLES)
    }
    shares = {group: exact(value) for group, value in (groups or {}).items()}
    likes = {name: like for name, row in (prices or {}).items() if (like := _field(row, "like"))}
    made = PriceBook(sheets, tables, shares, tiers)
    while found := {name: price for name, like in likes.items() if like not in likes and (price := made.sold(like))}:
        sheets |= {name: _copied(price) for name, price in found.items()}
        tiers |= {name: tuple((above, _copied(one)) for above, one in price.tiers) for name, price in found.items()}
        likes = {name: like for name, like in likes.items() if name not in found}
        made = PriceBook(sheets, tables, shares, tiers)
    return made


def _copied(price: Price) -> Sheet:
    """A price as the row that says all of it."""
    return {field: Fraction(rate) for field, rate in price.usd.items()}


def _base(name: str, sheet: Sheet) -> Fraction | None:
    """What input costs: as the row says, else as the built-in row does, else as the row's output does.

    None: the row prices only parts (cache, sound) of a model that nothing prices, so it is no price at all.
    """
    if "input" in sheet:
        return sheet["input"]
    match = _builtin_names().best(name)
    built = builtin.sheet(match[1]) if match else {}
    return built.get("input", sheet.get("output"))


@lru_cache(maxsize=1)
def _builtin_names() -> Names:
    return Names(builtin.rows())


def _sold_only(sheet: Sheet) -> bool:
    return any(field in PIECES or field.startswith(IMAGE) for field in sheet)


def _scaled(units: Fraction) -> int:
    return (2 * units.numerator * SCALE + units.denominator) // (2 * units.denominator)


def _field(row: Any, name: str) -> Any:
    return row.get(name) if isinstance(row, Mapping) else getattr(row, name, None)


def _sheet(row: Any) -> Sheet:
    given = {field: _field(row, name) for field, name in _CONFIGURED.items()}
    given |= {IMAGE + name: value for name, value in (_field(row, "images") or {}).items()}
    sheet = {field: exact(value) for field, value in given.items() if value is not None}
    second = _field(row, "second")
    return sheet if second is None else {**sheet, "minute": exact(second) * 60}


def _tiers(row: Any) -> Tiers:
    """The row's tiers, the highest first."""
    tiers = [(int(_field(tier, "above")), _sheet(tier)) for tier in _field(row, "tiers")]
    return tuple(sorted(tiers, key=lambda tier: -tier[0]))


def _digest(
    prices: Mapping[str, Sheet],
    ratios: Mapping[str, Mapping[str, Fraction]],
    groups: Mapping[str, Fraction],
    tiers: Mapping[str, Tiers],
) -> str:
    """12 hex digits that change when, and only when, some table says something else."""
    lines = [builtin.digest()]
    lines += [f"p {name} {field} {value}" for name, sheet in prices.items() for field, value in sheet.items()]
    lines += [f"r {table} {name} {value}" for table, values in ratios.items() for name, value in values.items()]
    lines += [f"t {name} {above} {sorted(sheet.items())}" for name, rows in tiers.items() for above, sheet in rows]
    lines += [f"g {group} {value}" for group, value in groups.items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]

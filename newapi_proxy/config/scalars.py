"""Single values: the text of a scalar as a value of one type.

Knows types and the sentences that say what is wrong with a text; nothing of mappings, paths or the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

from msgspec import inspect as mi

from newapi_proxy.config.nodes import Scalar

LARGEST: Final = 2**63 - 1

_INT: Final = re.compile(r"[-+]?\d+(?:_\d+)*", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_HEX: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_OCTAL: Final = re.compile(r"[-+]?0\d+", re.ASCII)
_BOOLS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_DIGITS: Final = 30  # more than any number here has; int() of endless digits is an error of its own


def read(kind: mi.Type, node: Scalar) -> Any:
    """The scalar as a value of the type. Raises ValueError with a sentence for people."""
    reader = _READERS.get(type(kind))
    if reader is None:
        raise ValueError(f"{node.shown} cannot stand here")
    return reader(kind, node)


def number(text: str, fractions: bool) -> int | float | str:
    """A bare number where the text is one, else the text itself."""
    if len(text) <= _DIGITS and _INT.fullmatch(text):
        return int(text)
    return float(text) if fractions and _FLOAT.fullmatch(text) else text


def foreign(node: Scalar) -> Any:
    """A value of no declared type, as YAML 1.2 and JSON read it: `yes` and `12:30` stay text, so do dates."""
    text = node.text
    match node.tag:
        case "null":
            return None
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "int" if _HEX.fullmatch(text):
            return int(text, 16)
        case "int" | "float" if len(text) <= _DIGITS and _INT.fullmatch(text) and not _OCTAL.fullmatch(text):
            return int(text)
        case "float" if text.lower().lstrip("+-") in (".inf", ".nan"):
            return math.inf
        case "float" | "int" if _FLOAT.fullmatch(text) and not _OCTAL.fullmatch(text):
            return float(text)
        case _:
            return text


def _bool(_: mi.Type, node: Scalar) -> bool:
    word = node.text.strip().lower()
    if word not in _BOOLS:
        raise ValueError(f"{node.shown} is neither true nor false")
    return _BOOLS[word]


def _int(kind: Any, node: Scalar) -> int:
    text = node.text.strip()
    if len(text) > _DIGITS or not _INT.fullmatch(text):
        raise ValueError(f"{node.shown} is no whole number")
    if abs(int(text)) > LARGEST:
        raise ValueError(f"{node.shown} is out of range")
    return int(_within(kind, int(text), node))


def _float(kind: Any, node: Scalar) -> float:
    text = node.text.strip()
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"{node.shown} is no number")
    if not math.isfinite(float(text)):
        raise ValueError(f"{node.shown} is out of range")
    return _within(kind, float(text), node)


def _within(kind: mi.IntType | mi.FloatType, value: float, node: Scalar) -> float:
    if kind.ge is not None and value < kind.ge:
        raise ValueError(f"{node.shown} is below {kind.ge}")
    if kind.gt is not None and value <= kind.gt:
        raise ValueError(f"{node.shown} is not above {kind.gt}")
    if kind.le is not None and value > kind.le:
        raise ValueError(f"{node.shown} is above {kind.le}")
    if kind.lt is not None and value >= kind.lt:
        raise ValueError(f"{node.shown} is not below {kind.lt}")
    return value


def _literal(kind: Any, node: Scalar) -> Any:
    for value in kind.values:
        if str(value) == node.text:
            return value
    raise ValueError(f"{node.shown} is none of {', '.join(str(one) for one in kind.values)}")


def _date(_: mi.Type, node: Scalar) -> date:
    text = node.text.strip()
    if not _DATE.fullmatch(text):
        raise ValueError(f"{node.shown} is no date such as 2027-12-31")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{node.shown} is no day of the calendar") from None


def _str(kind: Any, node: Scalar) -> str:
    if kind.min_length is not None and len(node.text) < kind.min_length:
        raise ValueError("is empty" if kind.min_length == 1 else f"is shorter than {kind.min_length} characters")
    if kind.max_length is not None and len(node.text) > kind.max_length:
        raise ValueError(f"is longer than {kind.max_length} characters")
    if kind.pattern is not None and not re.search(kind.pattern, node.text):
        raise ValueError(f"{node.shown} does not look like {kind.pattern}")
    return node.text


_READERS: Final[Mapping[type[mi.Type], Callable[[Any, Scalar], Any]]] = {
    mi.BoolType: _bool,
    mi.IntType: _int,
    mi.FloatType: _float,
    mi.LiteralType: _literal,
    mi.DateType: _date,
    mi.StrType: _str,
}

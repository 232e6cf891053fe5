"""Providers' errors to our terms: what a body says, what a status means, what a client may read.

Knows the shapes that error bodies come in and the table of provider-translation A.0.5 (decisions 10 and 26); knows no
provider by name. One that has codes of its own maps them to a status and comes here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Final

import msgspec

from newapi_proxy.adapters.base import Headers
from newapi_proxy.errors import Blame, Kind, UpstreamFailure
from newapi_proxy.secret import MASK
from newapi_proxy.wire import tree

DETAIL: Final = 300  # characters of an error page that go to the log
LONGEST_WAIT: Final = 3600.0  # seconds; no provider is believed beyond that
_LONGEST: Final = 4000  # characters of a message that go to the client

_OWN_VOICE: Final = re.compile(r'[{\["]|(data|event|id|retry):')  # the API's, which may quote a prompt
_CREDENTIALS: Final = re.compile(
    r"api[ _-]?key[^.]{0,40}(not valid|invalid|incorrect|expired)|(invalid|incorrect)[^.]{0,20}api[ _-]?key"
    r"|API_KEY_INVALID|credit balance|insufficient[ _](credit|balance)",
    re.I,
)
_POLICY: Final = re.compile(
    r"content_filter|content_policy|content policy|ResponsibleAI|data_inspection_failed|sensitive", re.I
)
_NO_CREDIT: Final = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")

# Linear in the message, each of them: who can make a provider quote him chooses what they are run on.
_SECRETS: Final = (
    re.compile(r"\b(?:https?|wss?|grpc)://[^\s\"'<>)\]}]+", re.I),
    re.compile(r"\bBearer\s+[^\s\"',]+", re.I),
    re.compile(r"(?<![A-Za-z0-9])sk[-_][-_.A-Za-z0-9*]{6,}"),
    re.compile(
        r"(?<![A-Za-z0-9])(?:(?:rk|pk|gsk|xai|r8|hf|fw|pplx|csk|nvapi|tgp)[-_]|AIza|ya29|AKIA|ASIA)[-_.A-Za-z0-9*]{16,}"
    ),
    re.compile(r"\b(?:org|proj|req|acct|user)[-_][A-Za-z0-9]{8,}\b"),
    re.compile(r"(?<![^\s@\"'<>(])[^\s@\"'<>(]++@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)+"),
    re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"),
    re.compile(r"\[[0-9A-Fa-f:]{3,}\](?::\d+)?"),
    re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I),
    re.compile(r"(?<![\w-])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{32,}(?![\w-])"),
)

_TOP: Final = re.compile(
    r"\.(?:com|ai|io|net|org|cn|dev|app|cloud|xyz|co|run|tech|top|internal|local|localdomain)\b(?::\d+)?(?:/[^\s\"'<>]*)?",
    re.I,
)
_BEFORE_HOSTS: Final = 6  # of the patterns above
_LETTERS: Final = "".join(map(chr, (*range(48, 58), *range(65, 91), *range(97, 123))))
_HOST: Final = f"{_LETTERS}-."
_SECRET: Final = f"{_LETTERS}-._*:/@=+%"  # what secrets and addresses are made of


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's error says in its own words. `extra`: fields of its error object that clients use."""

    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None
    status: int = 0  # a status that the body itself names
    extra: Mapping[str, Any] = {}


def scrubbed(message: str, most: int = _LONGEST) -> str:
    """The message without addresses, hosts, keys, organisations, mail addresses and request ids (demand R7).

    Of a longer one the first `most` characters, less the word in which they end: half a secret is not known as one.
    """
    if len(message) > most:
        message = message[:most].rstrip(_SECRET)
    for pattern in _SECRETS[:_BEFORE_HOSTS]:
        message = pattern.sub(MASK, message)
    message = _hosts_masked(message)
    for pattern in _SECRETS[_BEFORE_HOSTS:]:
        message = pattern.sub(MASK, message)
    return message


def _hosts_masked(message: str) -> str:
    """Without hosts of known top domains: found by their ends, from which their labels are read backwards."""
    pieces: list[str] = []
    last = 0
    for top in _TOP.finditer(message):
        before = message[last : top.start()]
        kept = before.rstrip(_HOST)
        host = before[len(kept) :]
        labels = host.rpartition("..")[2].lstrip("-.")
        if labels and labels[-1] != "-":
            pieces += [before[: len(before) - len(labels)], MASK]
        elif not (not before and pieces):  # no host, unless it goes on from the last one
            continue
        last = top.end()
    pieces.append(message[last:])
    return "".join(pieces)


def retry_after(headers: Headers) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after`, capped; None where there are none.

    A date counts from the answer's own `Date`, whatever this machine's clock says; without one it says nothing.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,30}(\.\d{1,6})?", text, re.ASCII):
            return min(float(text) / unit, LONGEST_WAIT)
    then, now = _moment(headers.get("retry-after")), _moment(headers.get("date"))
    return None if then is None or now is None else min(max(then - now, 0.0), LONGEST_WAIT)


def _moment(text: str | None) -> float | None:
    """An HTTP date as unix seconds; None for what is none."""
    try:
        parts = parsedate_tz(text or "")
        return None if parts is None or parts[9] is None else float(mktime_tz(parts))
    except (ValueError, OverflowError, IndexError):
        return None


def said(body: bytes) -> Said | None:
    """What an error body says; None where it is no JSON or speaks of no error."""
    return told(tree.lenient(body))


def told(value: Any) -> Said | None:
    """Like `said`, of parsed JSON: any of the shapes of provider-translation B.8."""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, dict):
        return _of_object(error, value)
    if isinstance(error, str) and error:
        return Said(message=error, type=_word(value.get("type")), code=_code(value), status=_named_status(value))
    message = _first_text(value)
    if not message:
        return None
    return Said(
        message=message,
        type=_word(value.get("type")),
        code=_code(value),
        param=_word(value.get("param")),
        status=_named_status(value),
    )


def normalise(status: int, told: Said | None, headers: Headers, body: bytes = b"") -> UpstreamFailure:
    """The failure for a provider's status and words; the log quotes a `body` that is no API's."""
    if told is None:
        return _wordless(status, headers, body)
    status_, kind, type_, code, blames = _meaning(status, told)
    failure = UpstreamFailure(
        scrubbed(told.message) or f"bad response status code {status}",
        status=status_,
        kind=kind,
        type=type_,
        code=code,
        param=told.param if status_ < 500 else None,
        retry_after=retry_after(headers),
        upstream_status=status,
        blames=blames,
        detail=_size(headers, body),  # not the words: a provider's message may quote the prompt
    )
    if told.extra and status_ < 500:
        failure.extra = told.extra
    return failure


def inband(told: Said) -> UpstreamFailure:
    """The failure for an error inside a 200, whole or streamed: the status is the one it names or means (demand R6)."""
    return normalise(told.status or _implied(told), told, {})


def _wordless(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    text = body[: DETAIL * 4].decode("utf-8", "replace").strip()[:DETAIL]
    status_, kind, type_, code, blames = _meaning(status, Said())
    if kind in ("bad_request", "not_found") and text.startswith("<"):  # some server in between, not the API's voice
        status_, kind, blames = 502, "upstream", "channel"
    return UpstreamFailure(
        f"bad response status code {status}",
        status=status_,
        kind=kind,
        type="upstream_error" if kind == "bad_request" else type_,
        code="bad_response" if kind in ("bad_request", "not_found", "upstream") else code,
        retry_after=retry_after(headers),
        upstream_status=status,
        blames=blames,
        detail=_page(status, text, body) or _size(headers, body),
    )


def _page(status: int, text: str, body: bytes) -> str:
    """What the log may quote: the page of some server in between, no half of a JSON error, which may quote a prompt."""
    if status < 400 or _OWN_VOICE.match(text) or tree.lenient(body) is not None:
        return ""
    return text


def _size(headers: Headers, body: bytes) -> str:
    return f"{len(body)} bytes of {headers.get('content-type', 'no type')[:80]}"


def _meaning(status: int, told: Said) -> tuple[int, Kind, str, str | int | None, Blame]:
    """Client status, kind, type, code and blame: the table of A.0.5."""
    if status in (401, 402, 403) or (status == 400 and _speaks(_CREDENTIALS, told)):
        return 502, "upstream_auth", "upstream_error", "upstream_credentials", "key"
    if status == 429:
        if told.code in _NO_CREDIT or told.type in _NO_CREDIT:  # the channel's account, not the caller's
            return 429, "rate_limit", "rate_limit_error", "rate_limit_exceeded", "key"
        return 429, "rate_limit", told.type or "rate_limit_error", _or(told.code, "rate_limit_exceeded"), "key"
    if status in (503, 529):
        return 503, "overloaded", "server_error", "overloaded", "channel"
    if status in (408, 504, 524):
        return 504, "timeout", "upstream_error", "upstream_timeout", "channel"
    if 400 <= status < 500 and status not in (424, 498):
        return _callers(status, told)
    return 502, "upstream", "upstream_error", "bad_response", "channel"


def _callers(status: int, told: Said) -> tuple[int, Kind, str, str | int | None, Blame]:
    type_ = told.type or "invalid_request_error"
    if status == 404:
        return 404, "not_found", type_, _or(told.code, "model_not_found"), "nobody"
    if status == 413:
        return 413, "too_large", type_, _or(told.code, "request_too_large"), "nobody"
    if _POLICY.search(f"{told.code} {told.type}"):
        return 400, "content_policy", type_, _or(told.code, "content_filter"), "nobody"
    return 400 if status == 422 else status, "bad_request", type_, told.code, "nobody"


def _or(code: str | int | None, default: str) -> str | int:
    return default if code is None or code == "" else code


def _speaks(pattern: re.Pattern[str], told: Said) -> bool:
    return pattern.search(f"{told.message[:_LONGEST]} {told.code} {told.type}") is not None


_IMPLIED: Final = (
    (("rate_limit", "rate limit", "too_many_requests", "resource_exhausted", "too many requests"), 429),
    (("overloaded", "unavailable", "capacity", "system_resource"), 503),
    (("timeout", "timed_out", "deadline"), 504),
    (("authentication", "invalid_api_key", "unauthorized", "unauthenticated"), 401),
    (("insufficient", "billing", "payment"), 402),
    (("permission", "forbidden"), 403),
    (("not_found", "not found"), 404),
    (("tool_use_failed", "invalid_request", "bad_request", "invalid_argument", "content_filter"), 400),
)


def _implied(told: Said) -> int:
    """The status that an error's type and code mean where it names none."""
    words = f"{told.type} {told.code}".lower()
    for needles, status in _IMPLIED:
        if any(needle in words for needle in needles):
            return status
    return 500


def _of_object(error: dict[str, Any], around: dict[str, Any]) -> Said:
    message = _first_text(error)
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw and raw not in message:  # the real cause, behind a gateway's own sentence
        message = f"{message}: {raw[:1000]}" if message else raw[:1000]
    code = _code(error)
    return Said(
        message=message or (f"code {code}" if code is not None else ""),
        type=_word(error.get("type")),
        code=_code(around) if code is None else code,
        param=_word(error.get("param")),
        status=_named_status(error) or _named_status(around),
        extra={name: error[name] for name in ("failed_generation", "innererror") if error.get(name) is not None},
    )


def _first_text(node: dict[str, Any]) -> str:
    """The first sentence of a body without an `error` object: the names that servers give it."""
    for name in ("message", "Message", "msg", "err", "error_msg", "errorMessage", "detail", "errors"):
        text = _text(node.get(name))
        if text:
            return text
    for outer, inner in (("header", "message"), ("response", "error"), ("base_resp", "status_msg")):
        nested = node.get(outer)
        if isinstance(nested, dict):
            found = nested.get(inner)
            text = _text(found.get("message") if isinstance(found, dict) else found)
            if text:
                return text
    return ""


def _text(value: Any) -> str:
    """A message out of a text, an object with one, or a list of either (a 422's `detail`)."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((value[name] for name in ("message", "msg", "detail") if isinstance(value.get(name), str)), "")
    if isinstance(value, list):
        return "; ".join(text for text in (_located(item) for item in value[:10]) if text)
    return ""


def _located(item: Any) -> str:
    text = _text(item) if not isinstance(item, list) else ""
    place = item.get("loc") if isinstance(item, dict) else None
    if text and isinstance(place, list):
        return f"{'.'.join(str(step) for step in place)}: {text}"
    return text


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _code(node: dict[str, Any]) -> str | int | None:
    code = node.get("code")
    if isinstance(code, str):
        return code or None
    return code if type(code) is int else None


def _named_status(node: dict[str, Any]) -> int:
    for name in ("status_code", "status", "code"):
        value = node.get(name)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if type(value) is int and 400 <= value <= 599:
            return value
    return 0

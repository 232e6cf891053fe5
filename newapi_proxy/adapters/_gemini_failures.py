"""Google's errors in our terms: the word of `status` speaks before the number, details name keys and waits.

Source: provider-translation B.2 "Errors", A.0.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from newapi_proxy.adapters._failures import LONGEST_WAIT, Said, inband, normalise, told
from newapi_proxy.adapters.base import Headers
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.wire import tree

Tree = dict[str, Any]

_STATUSES: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_KEY_REASONS: Final = ("API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED", "ACCESS_TOKEN_EXPIRED")
_DELAY: Final = re.compile(r"\d{1,9}(\.\d{1,9})?s", re.ASCII)
_NUMBERED: Final = (404, 429)  # whose codes clients know by OpenAI's own words


def refused(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    """The failure for an answer that is no 200."""
    value = _unwrapped(tree.lenient(body))
    said = told(value)
    if said is None or not isinstance(value, dict):
        return normalise(status, said, headers, body)
    meant, said = _meant(value, said, status)
    failure = normalise(meant, said, headers, body)
    failure.upstream_status = status
    return _waited(failure, value)


def spoken(value: Any) -> UpstreamFailure | None:
    """The failure of a 200 that carries an error object, whole, as a chunk or in an array; None where it has none."""
    value = _unwrapped(value)
    if not isinstance(value, dict) or not value.get("error"):
        return None
    said = told(value)
    if said is None:
        return UpstreamFailure("The upstream reported an error.")
    status, said = _meant(value, said, said.status)
    return _waited(inband(msgspec.structs.replace(said, status=status)), value)


def _unwrapped(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _meant(value: Tree, said: Said, status: int) -> tuple[int, Said]:
    """The status that the error's own words mean, and those words with the code that clients are shown."""
    error = value.get("error")
    word = error.get("status") if isinstance(error, dict) else None
    status = _STATUSES.get(word, status) if isinstance(word, str) else status
    if any(detail.get("reason") in _KEY_REASONS for detail in _details(value)):
        status = 401
    code = word if isinstance(word, str) and status not in _NUMBERED else None
    return status, msgspec.structs.replace(said, code=code, status=status)


def _details(value: Tree) -> Iterator[Tree]:
    error = value.get("error")
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            yield detail


def _waited(failure: UpstreamFailure, value: Tree) -> UpstreamFailure:
    """With the wait that `RetryInfo` names, where no header did."""
    for detail in _details(value):
        delay = detail.get("retryDelay")
        if failure.retry_after is None and isinstance(delay, str) and _DELAY.fullmatch(delay):
            failure.retry_after = min(float(delay[:-1]), LONGEST_WAIT)
    return failure

"""Zhipu's own error codes: they say more than its status, in errors and inside a 200 (provider-translation B.8)."""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters.base import Headers
from newapi_proxy.errors import UpstreamFailure

_STATUS: Final = (
    (range(1000, 1005), 401),
    (range(1110, 1122), 403),
    (range(1211, 1212), 404),
    (range(1210, 1216), 400),
    (range(1301, 1302), 400),
    (range(1302, 1306), 429),
)
_POLICY: Final = 1301


def failed(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    """The failure: the code decides where there is one; the code that clients see stays."""
    said = _failures.said(body)
    if said is None:
        return _failures.normalise(status, None, headers, body)
    meant = _meant(said.code, 400 if status in (434, 435) else status)
    return _finished(_failures.normalise(meant, said, headers, body), said.code, status)


def inband(node: Any) -> UpstreamFailure:
    """The failure that a 200 tells."""
    said = _failures.told(node) or _failures.Said(message="The provider's answer holds no choices.")
    return _finished(_failures.normalise(_meant(said.code, 502), said, {}), said.code, 200)


def _meant(code: str | int | None, otherwise: int) -> int:
    number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) < 6 else code
    return next((status for codes, status in _STATUS if number in codes), otherwise)


def _finished(failure: UpstreamFailure, code: str | int | None, status: int) -> UpstreamFailure:
    failure.upstream_status = status
    if str(code) == str(_POLICY):
        failure.kind, failure.status = "content_policy", 400
    return failure

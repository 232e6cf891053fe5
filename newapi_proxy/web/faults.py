"""What can go wrong on the way to an upstream and back, as UpstreamFailure (reliability 5.1).

`upstream_status` is 0 throughout: none of these is an answer. Messages name no host; `detail` is for the log and
holds neither keys nor whole URLs. Knows nothing of sockets.
"""

from __future__ import annotations

import os

from newapi_proxy.errors import UpstreamFailure

UNREACHABLE = "The upstream could not be reached."


def unreachable(detail: str) -> UpstreamFailure:
    """No connection, or none that lived until an answer (U1, U2, U3, U31)."""
    return UpstreamFailure(UNREACHABLE, code="do_request_failed", detail=detail)


def too_slow(detail: str) -> UpstreamFailure:
    """No connection within the connect timeout."""
    return UpstreamFailure(UNREACHABLE, status=504, kind="timeout", code="upstream_timeout", detail=detail)


def unreadable(detail: str) -> UpstreamFailure:
    """An answer that is not HTTP, or more of it than we take (U10, U33)."""
    return UpstreamFailure("The upstream's answer could not be read.", code="do_request_failed", detail=detail)


def broken(detail: str) -> UpstreamFailure:
    """A body that stopped before its end, or whose framing or encoding is wrong (U7, U10, U11, U19)."""
    return UpstreamFailure("The upstream's response ended early.", code="read_response_body_failed", detail=detail)


def too_large(limit: int) -> UpstreamFailure:
    """A whole body above what the caller takes."""
    return UpstreamFailure(
        "The upstream's response is too large.", code="read_response_body_failed", detail=f"more than {limit} bytes"
    )


def refused(detail: str) -> UpstreamFailure:
    """A request that cannot be put on the wire: a control character in a header or an address. Nobody is parked."""
    return UpstreamFailure(
        "The upstream request could not be built.", code="convert_request_failed", blames="nobody", detail=detail
    )


def reason(error: BaseException) -> str:
    """What the log may know of an exception: its class and the system's word, not its text, which names hosts."""
    words = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    number = getattr(error, "errno", None)
    if not isinstance(words, str) and isinstance(number, int) and number > 0:
        words = os.strerror(number)
    name = type(error).__name__
    return f"{name}: {words}" if isinstance(words, str) and words else name

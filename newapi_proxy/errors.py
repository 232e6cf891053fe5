"""What can go wrong, and whose fault it is.

ProxyError
├── ClientError        the caller's fault: a 4xx, never charged, never held against a channel
│   └── Unsupported    the request asks for what this provider cannot express; another one may
├── UpstreamFailure    the provider's or the network's fault: carries what retry and breaker read
└── OurError           ours: 500 or 503

Surfaces render these, nothing else formats an error body. Any exception outside this tree is a bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal[
    "bad_request",  # 400: the request itself
    "too_large",  # 413
    "unauthorized",  # 401: the caller's key
    "permission",  # 403: the key may not do this
    "quota",  # 403: the caller's money
    "not_found",  # 404
    "rate_limit",  # 429
    "content_policy",  # 400: refused for its content
    "upstream_auth",  # 502: the channel's key or account
    "timeout",  # 504
    "overloaded",  # 503, 529
    "upstream",  # 502: any other fault of the provider
    "internal",  # 500, 503: ours
]
Blame = Literal["nobody", "key", "channel"]


class ProxyError(Exception):
    """The root: everything a surface needs to speak the error in its own dialect.

    `status` is what the client gets, `kind` decides the type in dialects that have their own list, `type` and `code`
    are the strings of OpenAI's envelope, `param` the dotted path of the fault, `retry_after` seconds or None.
    `message` is safe to show: no key, no upstream address.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        kind: Kind,
        type: str = "new_api_error",
        code: str | int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind: Kind = kind
        self.type = type
        self.code = code
        self.param = param
        self.retry_after = retry_after


class ClientError(ProxyError):
    """The caller's fault. `reason` is one word for the rejection counter."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: Kind = "bad_request",
        type: str = "new_api_error",
        code: str | int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, kind=kind, type=type, code=code, param=param, retry_after=retry_after)


class Unsupported(ClientError):
    """A provider cannot express part of the request (provider-translation A.0.4, verdict E).

    Raised by `request` before anything is sent: the next candidate may still serve.
    """

    def __init__(self, message: str, param: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message, type="invalid_request_error", code=code, param=param)


class UpstreamFailure(ProxyError):
    """An attempt failed.

    `upstream_status` is the provider's own status, 0 when there was no answer at all; retry, breaker and
    status_code_mapping read it. `blames` says what to park. `detail` is for the log, never for the client. `extra`:
    further fields of the provider's error object that its clients use (`failed_generation` and the like).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        kind: Kind = "upstream",
        type: str = "upstream_error",
        code: str | int | None = "bad_response",
        param: str | None = None,
        retry_after: float | None = None,
        upstream_status: int = 0,
        blames: Blame = "channel",
        detail: str = "",
    ) -> None:
        super().__init__(message, status=status, kind=kind, type=type, code=code, param=param, retry_after=retry_after)
        self.upstream_status = upstream_status
        self.blames: Blame = blames
        self.detail = detail
        self.extra: Mapping[str, Any] = {}


class OurError(ProxyError):
    """Our own fault or state: a full disk, a drain, a bug caught at the edge."""

    def __init__(
        self, message: str, *, status: int = 500, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, kind="internal", code=code, retry_after=retry_after)


def internal() -> OurError:
    """What a client is told of a bug."""
    return OurError("Internal error.", code="internal_error")

"""Request heads: an address taken apart once, a head built once per set of headers.

Sans-io. Whatever a caller put into a name, a value or an address, what leaves here is one request: control characters
are refused (reliability §2.7), framing headers are ours alone.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Final

from yarl import URL

from newapi_proxy.web import faults

PLACES: Final = 1024  # addresses remembered; some providers have one per model
HEADS: Final = 32  # heads remembered per address: keys by methods
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PLAIN: Final = re.compile(r"[!-~]+")
_OURS: Final = frozenset(
    {"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
    | {"proxy-connection", "proxy-authorization"}
)
_DEFAULTS: Final = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "newapi-proxy"}
_BODIED: Final = frozenset({"POST", "PUT", "PATCH"})


class Place:
    """One address: whom to connect to (`origin` is the pool's key), what to ask for, and the heads built for it."""

    __slots__ = ("_heads", "_userinfo", "authority", "host", "origin", "port", "target", "tls", "url")

    def __init__(self, url: URL) -> None:
        assert url.raw_host is not None
        self.url = url.with_user(None)
        self.tls = url.scheme == "https"
        self.host = url.raw_host
        self.port = url.port or (443 if self.tls else 80)
        self.origin = f"{url.scheme}://{self.host}:{self.port}"
        self.target = url.raw_path_qs
        self.authority = url.host_port_subcomponent or self.host
        self._userinfo = f"{url.user or ''}:{url.password or ''}" if url.user or url.password else None
        self._heads: dict[tuple[str, tuple[tuple[str, str], ...]], bytes] = {}

    def request(self, method: str, headers: Mapping[str, str], length: int) -> bytes:
        """The head up to and with its blank line, for a body of this length.

        Raises UpstreamFailure for what may not stand in one.
        """
        key = (method, tuple(headers.items()))
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= HEADS:
                self._heads.clear()
            head = self._heads[key] = self._build(method, headers)
        if length or method in _BODIED:
            return b"%bContent-Length: %d\r\n\r\n" % (head, length)
        return head + b"\r\n"

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """What is sent: the caller's headers without those that frame a message, ours where the caller has none."""
        sent = {}
        for name, value in given.items():
            low = name.lower()
            if not _TOKEN.fullmatch(name) or _CONTROL.search(value) or not _encodable(value):
                raise faults.refused(f"header {low[:40]!r} may not be sent")
            if low not in _OURS:
                sent[low] = value
        host = sent.pop("host", self.authority)
        if self._userinfo is not None and "authorization" not in sent:
            sent["authorization"] = "Basic " + b64encode(self._userinfo.encode()).decode()
        return {"host": host, **_DEFAULTS, **sent}

    def _build(self, method: str, headers: Mapping[str, str]) -> bytes:
        if not _TOKEN.fullmatch(method):
            raise faults.refused("the method is not a token")
        lines = [f"{name}: {value}\r\n" for name, value in self.headers(headers).items()]
        return f"{method} {self.target} HTTP/1.1\r\n{''.join(lines)}".encode()


class Places:
    """The addresses seen lately."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, Place] = {}

    def find(self, url: str) -> Place:
        """The place of an http or https URL. Raises UpstreamFailure for anything else."""
        place = self._known.get(url)
        if place is None:
            if len(self._known) >= PLACES:
                self._known.clear()
            place = self._known[url] = Place(_parse(url))
        return place


def _parse(url: str) -> URL:
    if _CONTROL.search(url) or "\t" in url:
        raise faults.refused("a control character in the address")
    try:
        # what is plain already travels as it is; quoting is for the rest
        parsed = URL(url, encoded=_PLAIN.fullmatch(url) is not None)
        usable = parsed.scheme in ("http", "https") and bool(parsed.raw_host) and parsed.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise faults.refused("not an http or https address")
    return parsed


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

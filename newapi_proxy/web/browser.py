"""What a browser brings and takes: its cookie, where it comes from, a form, the headers of a page.

Knows headers, nothing of who is signed in. A form is believed where the browser says that it was sent from a page of
this address: by `Sec-Fetch-Site`, else by `Origin`, else by `Referer`; what says none of these is no browser, and has
no cookie that somebody else could abuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from aiohttp import hdrs
from multidict import istr

from newapi_proxy.config.model import Config
from newapi_proxy.errors import ClientError, ProxyError
from newapi_proxy.snapshot import Token
from newapi_proxy.web import body, inbound
from newapi_proxy.web.app import Call
from newapi_proxy.web.relay_routes import received
from newapi_proxy.web.server import Arrival

COOKIE: Final = "session"
MOST_FORM: Final = 16 * 1024
MOST_FIELDS: Final = 32
_LONGEST: Final = 128  # characters of a cookie of ours
_SITE: Final = istr("Sec-Fetch-Site")
_SAME: Final = "same-origin"
_POLICY: Final = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'self'; frame-ancestors 'none'; "
_FORMS: Final = "form-action 'self'"
SAFE: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),  # `no-referrer` would make a form's Origin null
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
FRESH: Final = ("Cache-Control", "no-store")


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `fault`: why it is not what was asked for; `cookies` as they are set; `token`: the key that was
    signed in with; `allow`: what a page needs
    beyond the policy of all, as policy text that takes the place of `form-action 'self'`."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    cookies: tuple[str, ...] = ()
    fault: ProxyError | None = None
    token: Token | None = None
    allow: str = _FORMS

    def head(self) -> tuple[tuple[str, str], ...]:
        """Every header."""
        return (*self.headers, *SAFE, FRESH, ("Content-Security-Policy", _POLICY + self.allow))


def html(text: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """A page's bytes and what says that they are one."""
    return f"<!doctype html>\n{text}\n".encode(), (("Content-Type", "text/html; charset=utf-8"),)


def elsewhere(config: Config, path: str, cookies: tuple[str, ...] = ()) -> Shown:
    """Sends the browser to another of our pages."""
    return Shown(status=303, headers=(("Location", f"{base(config)}/{path}"), _TEXT), cookies=cookies)


_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")


def base(config: Config) -> str:
    """What stands in front of our paths where a proxy has given us a part of its own, "" for nothing."""
    return urlsplit(config.public_url or "").path.rstrip("/")


def address(config: Config, arrival: Arrival) -> str:
    """Our own address: as configured, else as this client wrote it, who alone reads the answer."""
    if config.public_url:
        return config.public_url.rstrip("/")
    return f"{'https' if _secure(config, arrival) else 'http'}://{arrival.headers.get(hdrs.HOST, '')}"


def _secure(config: Config, arrival: Arrival) -> bool:
    """Whether a trusted proxy says that the client came by https."""
    peer = inbound.client_ip(arrival.connection.peer, (), ())
    vouched = inbound.within(peer, inbound.networks(config.trusted_proxies))
    return vouched and arrival.headers.get(hdrs.X_FORWARDED_PROTO, "").strip().lower() == "https"


def cookie(config: Config, arrival: Arrival, value: str, seconds: float, name: str = COOKIE) -> str:
    """A cookie as it is set, 0 seconds: taken away. `Lax`, or who comes back from a payment would be signed out."""
    secure = urlsplit(config.public_url or "").scheme == "https" or _secure(config, arrival)
    told = f"{name}={value}; Path=/; Max-Age={int(seconds)}; HttpOnly; SameSite=Lax"
    return f"{told}; Secure" if secure else told


def kept(headers: Mapping[str, str], name: str = COOKIE) -> str:
    """The value of a cookie of ours, "" where there is none that could be."""
    for piece in headers.get(hdrs.COOKIE, "").split(";"):
        key, _, value = piece.strip().partition("=")
        if key == name and len(value) <= _LONGEST and value.isascii() and value.isprintable():
            return value
    return ""


def own(config: Config, arrival: Arrival, *, proven: bool = False) -> bool:
    """Whether the request was sent from one of our pages, or by no browser; `proven`: nothing less than a word for it
    will do, as a browser that is led here by another site may say nothing where it sends no form."""
    headers = arrival.headers
    site = headers.get(_SITE)
    if site is not None:
        return site.strip().lower() == _SAME
    told = headers.get(hdrs.ORIGIN) or headers.get(hdrs.REFERER)
    if told is None:
        return not proven
    ours = {headers.get(hdrs.HOST, "").lower(), _place(config.public_url or "")} - {""}
    return _place(told) in ours


def _place(url: str) -> str:
    try:
        return urlsplit(url.strip()).netloc.lower()
    except ValueError:
        return ""


async def form(call: Call, share: body.Share) -> dict[str, str]:
    """The fields of a form. Raises ClientError for what is none or names a field twice, and what `received` does."""
    data = await received(call, share)
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise _unreadable() from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _unreadable()
    return found


def _unreadable() -> ClientError:
    return ClientError("The body is no form.", code="invalid_body")

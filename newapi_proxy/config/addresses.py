"""Addresses as people write them: what is wrong with one, in a sentence; nothing when it is right.

Opens nothing and looks nothing up.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

_PROXIES: Final = ("http", "https", "socks4", "socks5", "socks5h")
_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})", re.ASCII)
_BAD: Final = re.compile(r"[\x00-\x20\x7f]")


def url(text: str) -> str:
    """A channel's base_url."""
    return _wrong(text, ("http", "https"), "https://api.openai.com")


def proxy(text: str) -> str:
    """A channel's proxy."""
    return _wrong(text, _PROXIES, "socks5://127.0.0.1:1080")


def _wrong(text: str, schemes: tuple[str, ...], example: str) -> str:
    if _BAD.search(text):
        return "holds spaces or control characters"
    try:
        parts = urlsplit(text)
        assert parts.port is None or parts.port >= 0  # reading it checks it
    except ValueError:
        return f"is no complete URL such as {example}"
    if parts.scheme not in schemes or not parts.hostname:
        return f"must be a URL such as {example} ({', '.join(one + '://' for one in schemes)})"
    return "must not end in a fragment (#…)" if parts.fragment else ""


def network(text: str) -> tuple[str, str]:
    """An address or a network; and what was probably meant."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            return f"{text!r} is no address or network such as 10.0.0.0/8", ""
        return f"{text!r} has bits set behind its mask", meant
    return "", ""


def listen(text: str) -> tuple[str, str]:
    """HOST:PORT, [IPv6]:PORT or unix:/path; and what was probably meant."""
    example = "such as 127.0.0.1:3000, [::1]:3000 or unix:/run/newapi-proxy/http.sock"
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
            return f"{text!r} must name a socket by an absolute path of at most 107 bytes", ""
        return "", ""
    if re.fullmatch(r":\d{1,5}", text):
        return f"{text!r} names no host", f"127.0.0.1{text}"
    found = _LISTEN.fullmatch(text)
    if found is None:
        return f"{text!r} is no address {example}", f"127.0.0.1:{text}" if re.fullmatch(r"\d{1,5}", text) else ""
    if int(found["port"]) > 65535:
        return f"port {found['port']} is above 65535", ""
    if found["six"] is not None or re.fullmatch(r"[\d.]+", found["host"] or ""):
        try:
            ipaddress.ip_address((found["six"] or found["host"]).partition("%")[0])
        except ValueError:
            return f"{text!r} holds no valid IP address", ""
    return "", ""

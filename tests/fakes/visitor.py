"""Somebody with a browser: keeps cookies as browsers do, sends forms from the page they stand on, reads pages."""

from __future__ import annotations

import html
import http.client
import re
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer as a browser has it."""

    status: int
    headers: dict[str, str]
    cookies: tuple[str, ...]
    body: bytes

    @property
    def text(self) -> str:
        """The page's markup."""
        return self.body.decode()

    @property
    def words(self) -> str:
        """What a person reads on it, blanks folded."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.text.partition("<body>")[2])).split())

    @property
    def tree(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def place(self) -> str:
        """Where it sends the browser."""
        return self.headers["location"]

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the table of that name, as people read their cells; the head is the first."""
        found = re.search(rf"<caption[^>]*>{re.escape(html.escape(caption))}</caption>(.*?)</table>", self.text)
        assert found is not None, f"no table {caption}"
        rows = re.findall(r"<tr>(.*?)</tr>", found[1])
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
        return [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells]


@dataclass(slots=True)
class Visitor:
    """A browser at one address. `address`: where it comes from, which the daemon's trusted proxy vouches for."""

    url: str
    address: str = "198.51.100.1"
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The daemon's address as the Host header has it."""
        return urlsplit(self.url).netloc

    def get(self, path: str, **headers: str) -> Seen:
        """Goes there."""
        return self._sent("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str] | bytes | None = None, **headers: str) -> Seen:
        """Sends a form from one of the daemon's own pages, unless the headers say otherwise."""
        data = fields if isinstance(fields, bytes) else urlencode(fields or {}).encode()
        given = {"Origin": f"http://{self.host}", "Content-Type": "application/x-www-form-urlencoded", **headers}
        return self._sent("POST", path, data, given)

    def sign_in(self, key: str) -> Seen:
        """Enters a key; the page that comes then."""
        answer = self.post("/login", {"key": key})
        assert answer.status == 303, answer.words
        return self.get(answer.place)

    def _sent(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Seen:
        link = http.client.HTTPConnection(self.host, timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        given["X-Forwarded-For"] = self.address
        if self.cookies:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        link.request(method, path, data, given)
        answer = link.getresponse()
        pairs = answer.getheaders()
        told = tuple(value for name, value in pairs if name.lower() == "set-cookie")
        for one in told:
            for name, morsel in SimpleCookie(one).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        seen = Seen(answer.status, {name.lower(): value for name, value in pairs}, told, answer.read())
        link.close()
        return seen

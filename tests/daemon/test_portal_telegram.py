"""Signing in by Telegram: whom an account signs in, how it is tied, and each thing that somebody else might try."""

from __future__ import annotations

import itertools
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from newapi_proxy.accounts.telegram import FRESH, sign
from tests.daemon.bare import bugs
from tests.daemon.running import Stage
from tests.fakes.visitor import Seen, Visitor

BOT: Final = "123456789:AAE-test-bot-token_abcdefghijklmnopqr"
CONFIG: Final = f"""\
database: sqlite:///newapi.db
trusted_proxies: [127.0.0.0/8]
prices: {{echo: {{call: 0.1}}}}
channels:
  - {{name: echo, type: echo, models: [echo]}}
tokens:
  - {{name: yaml, key: sk-yaml, quota: $1}}
  - {{name: other, key: sk-other}}
portal:
  telegram: {{bot: light_bot, token: "{BOT}"}}
  topup: {{redeem: true}}
"""
ADA, BEN = "adakey" * 8, "benkey" * 8
LOGIN, BIND = "/api/oauth/telegram/login", "/api/oauth/telegram/bind"
HERE: Final = {"New_Api_User": "-1"}


@pytest.fixture(scope="module", autouse=True)
def people(stage: Stage) -> Iterator[None]:
    """Ada has two keys, Ben one, Eve is banned; in the end nothing unexpected happened, and no token was told."""
    rows(stage, "DELETE FROM users WHERE id > 6")
    for id, name, status in ((7, "ada", 1), (8, "ben", 1), (9, "eve", 2)):
        rows(
            stage,
            "INSERT INTO users(id, username, display_name, password, status, role, quota, aff_code)"
            " VALUES (?, ?, ?, '!', ?, 1, 500000, ?)",
            *(id, name, name.title(), status, name),
        )
    for id, user, key in ((70, 7, ADA), (71, 7, "second"), (80, 8, BEN)):
        rows(
            stage,
            "INSERT INTO tokens(id, user_id, key, status, name, expired_time, unlimited_quota)"
            " VALUES (?, ?, ?, 1, ?, -1, 1)",
            *(id, user, key, f"key{id}"),
        )
    stage.daemon.signal(signal.SIGHUP)
    stage.daemon.wait(lambda line: line["event"] == "config_loaded" and line["tokens"] == 5)
    yield
    assert bugs(stage) == 0
    assert BOT not in str(stage.daemon.lines)


@pytest.fixture(autouse=True)
def nobody_is_tied(stage: Stage) -> None:
    """Before each test no account is tied to anybody."""
    rows(stage, "UPDATE users SET telegram_id = NULL")
    rows(stage, "DELETE FROM proxy_logins")


def rows(stage: Stage, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What plain SQL does or finds."""
    with closing(sqlite3.connect(stage.daemon.config.parent / "newapi.db", timeout=20)) as conn, conn:
        return conn.execute(query, values).fetchall()


_PLACES = itertools.count(1)


@pytest.fixture
def visitor(stage: Stage) -> Visitor:
    """Somebody from an address of their own."""
    return Visitor(stage.url, f"192.0.2.{next(_PLACES) % 250 + 1}")


_VISITS = itertools.count()


def proof(id: str = "42424242", ago: int = 1, **more: str) -> str:
    """What the widget sends for an account, so many seconds ago; each time another proof, as a name is another."""
    fields = {"id": id, "first_name": f"Ada{next(_VISITS)}", "auth_date": str(int(time.time()) - ago), **more}
    return urlencode({**fields, "hash": sign(fields, BOT)})


def returned(visitor: Visitor, page: str, query: str) -> Seen:
    """Asks for the widget on a page, and comes back from it with that."""
    shown = visitor.get(page)
    assert shown.status == 200, shown.words
    (back,) = re.findall(r'data-auth-url="http://[^/]*([^"]*)"', shown.text)
    return visitor.get(f"{back}?{query}")


def test_the_pages_way(stage: Stage, visitor: Visitor) -> None:
    """With a key one ties the account; from then on it signs in, sees all the user's keys, and can be untied again."""
    assert 'href="login/telegram"' in visitor.get("/login").text
    assert "tied to no key here" in returned(visitor, "/login/telegram", proof()).words
    assert "Account" in visitor.sign_in(f"sk-{ADA}").words
    assert "No Telegram account signs you in yet." in visitor.get("/setting").words
    answer = returned(visitor, "/setting/telegram", proof())
    assert answer.place == "/setting?said=bound"
    assert "The account is tied" in visitor.get(answer.place).words
    assert rows(stage, "SELECT id FROM users WHERE telegram_id = '42424242'") == [(7,)]
    mine = visitor.address
    line = stage.daemon.wait(lambda line: line["event"] == "login_bound" and line["client_ip"] == mine)
    assert (line["way"], line["bound"], line["user_id"], line["token"]) == ("telegram", True, 7, "key70")
    visitor.post("/logout")
    answer = returned(visitor, "/login/telegram", proof())
    assert answer.place == "/usage"
    assert "ticket" not in visitor.cookies
    page = visitor.get("/usage")
    assert "Signed in as Ada" in page.words
    assert "Your keys" in page.words
    assert ("Key key70" in page.words, "Key key71" in page.words, "Key key80" in page.words) == (True, True, False)
    assert "$1.00 Balance of the account" in page.words
    assert "Models and prices" not in page.words
    page = visitor.get("/usage?key=71&days=7")
    assert ("Key key70" in page.words, "Key key71" in page.words, "Models and prices" in page.words) == (
        False,
        True,
        True,
    )
    assert 'href="usage?key=71&amp;days=30"' in page.text
    assert "Key key70" in visitor.get("/usage?key=80").words  # another's key is none of theirs
    assert visitor.post("/setting/telegram/unbind").place == "/setting?said=unbound"
    assert rows(stage, "SELECT id FROM users WHERE telegram_id = '42424242'") == []
    assert "tied to no key here" in returned(Visitor(stage.url, visitor.address), "/login/telegram", proof()).words


def test_a_key_of_the_file(stage: Stage, visitor: Visitor) -> None:
    """A key that belongs to no user is tied by itself, signs in as itself, and its session ends as any of its."""
    visitor.sign_in("sk-yaml")
    assert returned(visitor, "/setting/telegram", proof("5")).place == "/setting?said=bound"
    other = Visitor(stage.url, visitor.address)
    assert returned(other, "/login/telegram", proof("5")).place == "/usage"
    assert "Signed in as yaml" in other.get("/usage").words
    third = Visitor(stage.url, visitor.address)
    third.sign_in("sk-other")
    answer = returned(third, "/setting/telegram", proof("5"))
    assert (answer.status, "signs in somebody already" in answer.words) == (409, True)
    assert returned(visitor, "/setting/telegram", proof("6")).place == "/setting?said=bound"  # another takes its place
    assert rows(stage, "SELECT login FROM proxy_logins") == [("telegram_id:6",)]
    visitor.post("/setting/telegram/unbind")
    assert rows(stage, "SELECT login FROM proxy_logins") == []


def test_the_widgets_page_alone_may_run_a_script(visitor: Visitor) -> None:
    """Telegram's script and frame are let in on the widget's page, where nobody types a key, and nowhere else."""
    shown = visitor.get("/login/telegram")
    rules = shown.headers["content-security-policy"]
    assert "script-src https://telegram.org; frame-src https://oauth.telegram.org" in rules
    assert "connect-src" not in rules  # default-src is none
    assert 'data-telegram-login="light_bot"' in shown.text
    assert "<input" not in shown.text
    assert "needs JavaScript" in shown.words
    visitor.sign_in("sk-yaml")
    for path in ("/usage", "/setting"):
        assert "script" not in visitor.get(path).headers["content-security-policy"]


def test_the_way_back_is_the_browsers_own(stage: Stage, visitor: Visitor) -> None:
    """Nobody is led to sign in as somebody else, or to tie another's account: the address is one browser's own."""
    rows(stage, "UPDATE users SET telegram_id = '66' WHERE id = 8")
    thief = Visitor(stage.url, visitor.address)
    (back,) = re.findall(r'data-auth-url="http://[^/]*([^"]*)"', thief.get("/login/telegram").text)
    answer = visitor.get(f"{back}?{proof('66')}")
    assert (answer.status, visitor.cookies) == (401, {})
    visitor.get("/login/telegram")
    assert visitor.get(f"{back}?{proof('66')}").status == 401
    assert visitor.get(f"/login/telegram/x?{proof('66')}").status == 401
    visitor.sign_in("sk-yaml")
    (back,) = re.findall(r'data-auth-url="http://[^/]*([^"]*)"', thief.get("/login/telegram").text)
    assert visitor.get(f"{back.replace('/login/', '/setting/')}?{proof('77')}").status == 401
    assert rows(stage, "SELECT login FROM proxy_logins") == []


def test_new_apis_login(stage: Stage, visitor: Visitor) -> None:
    """The route answers as New API's, with the session's cookie; what is wrong has its words and status 200."""
    rows(stage, "UPDATE users SET telegram_id = id")
    answer = visitor.get(f"{LOGIN}?{proof('7')}", **HERE)
    assert answer.status == 200
    data = answer.tree["data"]
    assert (answer.tree["success"], answer.tree["message"]) == (True, "")
    assert [data[name] for name in ("id", "username", "display_name", "role", "status", "group")] == [
        7, "ada", "Ada", 1, 1, "default",
    ]  # fmt: skip
    assert (data["password"], data["access_token"], data["quota"]) == ("", None, 0)
    assert answer.cookies[0].startswith("session=")
    assert "access-control-allow-origin" not in answer.headers
    assert "Signed in as Ada" in visitor.get("/usage").words
    stranger = Visitor(stage.url, visitor.address)
    for query, words in (
        (proof("4"), "该 Telegram 账户未绑定"),
        (proof("9"), "用户已被封禁"),
        (proof("7", ago=FRESH + 5), "无效的请求"),
        (proof("7") + "0", "无效的请求"),
        (proof("7").replace("Ada", "Eve"), "无效的请求"),
        ("", "无效的请求"),
        (proof("7") + "&id=7", "无效的请求"),
        (proof("7", x="1"), "无效的请求"),
    ):
        answer = stranger.get(f"{LOGIN}?{query}", **HERE)
        assert (answer.status, answer.tree, answer.cookies) == (200, {"success": False, "message": words}, ()), query


def test_a_proof_is_used_once(stage: Stage, visitor: Visitor) -> None:
    """A proof that came once is worth nothing, whoever brings it, whichever route, and after a restart too."""
    rows(stage, "UPDATE users SET telegram_id = id")
    query = proof("7")
    assert visitor.get(f"{LOGIN}?{query}", **HERE).tree["success"] is True
    thief = Visitor(stage.url, visitor.address)
    assert thief.get(f"{LOGIN}?{query}", **HERE).tree == {"success": False, "message": "无效的请求"}
    assert "or the answer was used already" in returned(thief, "/login/telegram", query).words
    visitor.sign_in("sk-yaml")
    assert returned(visitor, "/setting/telegram", query).status == 401
    stage.daemon.stop()
    stage.daemon.start()
    assert thief.get(f"{LOGIN}?{query}", **HERE).tree["success"] is False


def test_new_apis_bind(stage: Stage, visitor: Visitor) -> None:
    """Who is signed in ties an account, and is sent to New API's page; the usual refusals have its words."""
    answer = visitor.get(f"{BIND}?{proof('55')}", **HERE)
    assert (answer.status, answer.tree["message"]) == (401, "无权进行此操作，未登录且未提供 access token")
    visitor.sign_in(f"sk-{ADA}")
    other = {"New_Api_User": "8"}
    assert visitor.get(f"{BIND}?{proof('55')}", **other).tree["message"].endswith("与登录用户不匹配，请重新登录")
    answer = visitor.get(f"{BIND}?{proof('55')}", New_Api_User="7")
    assert (answer.status, answer.place) == (302, "/setting")
    assert rows(stage, "SELECT id FROM users WHERE telegram_id = '55'") == [(7,)]
    ben = Visitor(stage.url, visitor.address)
    ben.sign_in(f"sk-{BEN}")
    answer = ben.get(f"{BIND}?{proof('55')}", New_Api_User="8")
    assert answer.tree == {"success": False, "message": "该 Telegram 账户已被绑定"}
    rows(stage, "UPDATE users SET deleted_at = '2026-01-01' WHERE id = 8")
    try:
        answer = ben.get(f"{BIND}?{proof('56')}", New_Api_User="8")
    finally:
        rows(stage, "UPDATE users SET deleted_at = NULL WHERE id = 8")
    assert answer.tree["message"] in ("用户已注销", "无权进行此操作，未登录且未提供 access token")


@pytest.mark.parametrize("path", [LOGIN, BIND])
def test_requests_of_other_sites(stage: Stage, visitor: Visitor, path: str) -> None:
    """A link on another site signs nobody in and ties nothing, whatever the browser says or leaves out."""
    rows(stage, "UPDATE users SET telegram_id = '66' WHERE id = 8")
    visitor.sign_in("sk-yaml")
    kept = dict(visitor.cookies)
    for headers in (
        {},
        {"Referer": "https://evil.example/"},
        {"Sec_Fetch_Site": "cross-site", "Referer": f"{visitor.url}/"},
        {"Sec_Fetch_Site": "none"},
    ):
        answer = visitor.get(f"{path}?{proof('66' if path == LOGIN else '67')}", **headers)
        assert (answer.status, answer.cookies) == (401, ()), headers
        assert answer.tree["message"] == "无权进行此操作，请刷新页面或清空缓存后重试"
    assert visitor.cookies == kept
    assert rows(stage, "SELECT login FROM proxy_logins") == []
    here = {"Sec_Fetch_Site": "same-origin"} if path == LOGIN else {"Referer": f"{visitor.url}/setting"}
    assert visitor.get(f"{path}?{proof('66' if path == LOGIN else '67')}", **here).status in (200, 302)


def test_a_session_asks_new_apis_routes(stage: Stage, visitor: Visitor) -> None:
    """The session serves New API's other routes, where the request names the account as its pages do, and not else."""
    rows(stage, "UPDATE users SET telegram_id = id")
    visitor.get(f"{LOGIN}?{proof('7')}", **HERE)
    path = "/api/user/topup/self"
    assert visitor.get(path, New_Api_User="7").tree["data"]["total"] == 0
    for headers, words in (
        ({}, "请刷新页面或清空缓存后重试"),
        ({"New_Api_User": "8"}, "不匹配"),
        ({"New_Api_User": "x"}, "无效"),
    ):
        answer = visitor.get(path, **headers)
        assert (answer.status, answer.tree["success"], words in answer.tree["message"]) == (401, False, True)
    rows(stage, "UPDATE users SET status = 2 WHERE id = 7")
    try:
        assert visitor.get(path, New_Api_User="7").status == 401
    finally:
        rows(stage, "UPDATE users SET status = 1 WHERE id = 7")


def test_a_user_without_keys(stage: Stage, visitor: Visitor) -> None:
    """Who has no key sees the account's balance and nothing else."""
    rows(
        stage, "INSERT INTO users(id, username, password, status, quota, aff_code) VALUES (10, 'dan', '!', 1, 7, 'dan')"
    )
    rows(stage, "UPDATE users SET telegram_id = id")
    visitor.get(f"{LOGIN}?{proof('10')}", **HERE)
    page = visitor.get("/usage")
    assert (page.status, "$0.000014 Balance of the account" in page.words) == (200, True)
    assert "There are no requests yet." in page.words
    assert visitor.get("/usage.csv").text.count("\n") == 1
    assert visitor.get("/requests/x").status == 404


def test_a_banned_user_is_out_at_once(stage: Stage, visitor: Visitor) -> None:
    """The session of a user ends at the first request after the ban."""
    rows(stage, "UPDATE users SET telegram_id = id")
    visitor.get(f"{LOGIN}?{proof('7')}", **HERE)
    assert visitor.get("/usage").status == 200
    rows(stage, "UPDATE users SET status = 2 WHERE id = 7")
    try:
        assert visitor.get("/usage").place == "/login?why=over"
    finally:
        rows(stage, "UPDATE users SET status = 1 WHERE id = 7")


def test_attempts_are_limited(visitor: Visitor) -> None:
    """Twenty attempts of one address in twenty minutes; then New API's form of a refusal, and a page's."""
    for _ in range(20):
        assert visitor.get(f"{LOGIN}?id=1", **HERE).status == 200
    answer = visitor.get(f"{LOGIN}?id=1", **HERE)
    assert (answer.status, answer.tree["success"]) == (429, False)
    assert int(answer.headers["retry-after"]) > 0
    assert visitor.post("/login", {"key": "sk-yaml"}).status == 429


def test_where_it_is_not_offered(daemon: Any) -> None:
    """Without `portal.telegram` no page mentions it, and New API's routes say that it is off; without `admin.keys`
    there is no dashboard."""
    running = daemon(
        "channels: [{name: e, type: echo, models: [echo]}]\ntokens: [{name: t, key: sk-demo}]\nportal: {}\n"
    )
    visitor = Visitor(running.url)
    assert "Telegram" not in visitor.get("/login").text
    for path in ("/login/telegram", "/login/telegram/x", "/setting", "/setting/telegram", "/dashboard", "/requests"):
        assert visitor.get(path).status == 404
    visitor.sign_in("sk-demo")
    for path in (LOGIN, BIND):
        off = {"success": False, "message": "管理员未开启通过 Telegram 登录以及注册"}
        assert (visitor.get(path).status, visitor.get(path).tree) == (200, off)

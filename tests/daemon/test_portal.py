"""The pages for holders of keys: signing in and out, what ends a session, what is shown, and to nobody else."""

from __future__ import annotations

import csv
import io
import itertools
import random
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
import pytest

from newapi_proxy.web.pages.words import money
from tests import laws
from tests.daemon.bare import bugs, sent
from tests.daemon.running import Stage
from tests.daemon.talk import ask
from tests.fakes.process import Daemon
from tests.fakes.visitor import Seen, Visitor

ROOT: Final = "admin-key-0123456789"
CONFIG: Final = f"""\
database: sqlite:///newapi.db
trusted_proxies: [127.0.0.0/8]
timezone: Asia/Kathmandu
admin: {{keys: [{ROOT}]}}
groups: {{default: 1, vip: {{ratio: 0.5, limits: {{rpm: 9000}}}}}}
prices:
  echo: {{input: 1000, output: 1000}}
  drawn: {{image: 0.04, images: {{1792x1024: 0.08}}}}
  long: {{input: 1, output: 2, cache_read: 0.1, tiers: [{{above: 1000, input: 3}}]}}
channels:
  - {{name: echo, type: echo, models: [echo, long, drawn, priceless, "x-*"], groups: [default, vip]}}
tokens:
  - {{name: demo, key: sk-demo, quota: $10}}
  - {{name: vip, key: sk-vip-0123456789, group: vip, budget: {{amount: $1, every: day}}, limits: {{rpm: 8000}}}}
  - {{name: other, key: sk-other}}
  - {{name: "<script>alert('x')</script>", key: sk-script}}
  - {{name: dry, key: sk-dry, quota: 0}}
  - {{name: past, key: sk-past, expires: 2020-01-31}}
  - {{name: "off", key: sk-off, enabled: false}}
  - {{name: near, key: sk-near, allow_ips: [192.0.2.0/24]}}
  - {{name: leaving, key: sk-leaving}}
portal: {{title: Light & House}}
"""
_ADDRESSES: Final = itertools.count(1)
SAFE: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.fixture(scope="module", autouse=True)
def nothing_unexpected(stage: Stage) -> Iterator[None]:
    """In the end the daemon has seen no bug, and no line of its log or row of its sessions holds a key."""
    yield
    assert bugs(stage) == 0
    text = str(stage.daemon.lines)
    rows = str(plain(stage, "SELECT * FROM proxy_sessions"))
    for key in ("sk-demo", "sk-vip-0123456789", ROOT, "sk-guess"):
        assert key not in text
        assert key not in rows


def plain(stage: Stage, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What plain SQL does or finds."""
    with closing(sqlite3.connect(stage.daemon.config.parent / "newapi.db", timeout=20)) as conn, conn:
        return conn.execute(query, values).fetchall()


@pytest.fixture
def visitor(stage: Stage) -> Visitor:
    """Somebody from an address of their own, who is not signed in."""
    number = next(_ADDRESSES)
    return Visitor(stage.url, f"198.51.{number // 250}.{number % 250 + 1}")


def spend(stage: Stage, key: str, model: str = "echo", times: int = 1) -> list[str]:
    """Chats by the key; their ids."""
    found = []
    for _ in range(times):
        status, headers, body = ask(stage.url, model=model, headers={"Authorization": f"Bearer {key}"}, max_tokens=4)
        assert status == 200, body
        found.append(headers["x-request-id"])
    return found


def summed(stage: Stage, by: str) -> list[dict[str, Any]]:
    """What `newapi-proxy usage` says of the last 30 days."""
    since = (datetime.now(ZoneInfo("Asia/Kathmandu")) - timedelta(days=29)).date().isoformat()
    command = [sys.executable, "-m", "newapi_proxy", "usage", "--by", by, "--since", since, "--format", "json"]
    told = subprocess.run([*command, "-c", str(stage.daemon.config)], cwd=laws.ROOT, capture_output=True, check=True)
    found: list[dict[str, Any]] = orjson.loads(told.stdout)
    return found


def policy(page: Seen) -> dict[str, str]:
    """The content policy by its directives."""
    told = (one.strip().partition(" ") for one in page.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in told}


def test_the_way_in_and_out(stage: Stage, visitor: Visitor) -> None:
    """From the front door to the key's page and out again; the old cookie opens nothing afterwards."""
    assert visitor.get("/").place == "/login"
    assert visitor.get("/usage").place == "/login"
    page = visitor.get("/login")
    assert (page.status, "<h1>Sign in</h1>" in page.text) == (200, True)
    answer = visitor.post("/login", {"key": " sk-demo "})
    assert (answer.status, answer.place) == (303, "/usage")
    (cookie,) = answer.cookies
    assert re.fullmatch(r"session=[\w-]{43}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax", cookie)
    page = visitor.get("/usage")
    assert "Signed in as demo" in page.words
    assert visitor.get("/").place == "/usage"
    assert visitor.get("/login").place == "/usage"
    kept = dict(visitor.cookies)
    answer = visitor.post("/logout")
    assert (answer.place, visitor.cookies) == ("/login?why=out", {})
    assert "You are signed out." in visitor.get(answer.place).words
    visitor.cookies = dict(kept)
    assert visitor.get("/usage").place == "/login?why=over"
    visitor.cookies = kept
    assert visitor.sign_in("sk-other").status == 200  # a form that was open since then is taken


def test_every_page_is_guarded(visitor: Visitor) -> None:
    """No page may be framed, kept, read by other origins or run a script; no key is ever in an address."""
    pages = [
        visitor.get("/login"),
        visitor.sign_in("sk-demo"),
        visitor.get("/usage.csv"),
        visitor.get("/requests/none"),
    ]
    for page in pages:
        assert SAFE.items() <= page.headers.items()
        assert "access-control-allow-origin" not in page.headers
        rules = policy(page)
        assert (rules["default-src"], rules["frame-ancestors"], rules["form-action"]) == ("'none'", "'none'", "'self'")
        assert "script-src" not in rules
        assert "<script" not in page.text
    style = visitor.get("/pages/style.css")
    assert (style.status, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "max-age" in style.headers["cache-control"]
    assert re.search(r"style\.css\?v=\w{12}", pages[0].text)
    assert visitor.get("/login?key=sk-demo").status == 303  # a key in an address is not looked at


@pytest.mark.parametrize(
    ("key", "status", "words"),
    [
        ("sk-nobody", 401, "not known here, or it is disabled"),
        ("sk-off", 401, "not known here, or it is disabled"),
        ("sk-past", 401, "has expired"),
        ("sk-near", 403, "may not be used from your address"),
        ("", 400, "Please enter a key"),
        ("x" * 5000, 401, "not known here"),
        ("\ud800", 400, "no form"),
    ],
)
def test_who_does_not_get_in(stage: Stage, visitor: Visitor, key: str, status: int, words: str) -> None:
    """Each refusal has its status and its words beside the form, and leaves no cookie."""
    data = b"key=%ed%a0%80" if key == "\ud800" else None
    answer = visitor.post("/login", data or {"key": key})
    assert answer.status == status
    assert words in answer.words
    assert (answer.cookies, 'role="alert"' in answer.text) == ((), True)
    line = stage.line(answer.headers["x-request-id"])
    assert (line["status"], line["path"], line["end"]) == (status, "/login", "rejected")


def test_a_drained_key_gets_in(stage: Stage, visitor: Visitor) -> None:
    """A key that is used up may look why, and is told so by its balance."""
    assert "$0.00 Balance" in visitor.sign_in("sk-dry").words


def test_forms_from_elsewhere(visitor: Visitor) -> None:
    """A form counts only when it comes from a page of ours, whichever header says so; else nothing is done."""
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "", "Referer": "https://evil.example/x"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ):
        answer = visitor.post("/login", {"key": "sk-demo"}, **headers)
        assert (answer.status, answer.cookies) == (403, ()), headers
        assert "not sent from a page of this service" in answer.words
    visitor.sign_in("sk-demo")
    assert visitor.post("/logout", Origin="https://evil.example").status == 403
    assert visitor.get("/usage").status == 200
    for headers in ({"Sec_Fetch_Site": "same-origin", "Origin": "null"}, {"Origin": "", "Referer": f"{visitor.url}/x"}):
        assert visitor.post("/login", {"key": "sk-demo"}, **headers).status == 303
    assert visitor.post("/login", {"key": "sk-demo"}, Origin="").status == 303  # no browser


def test_what_the_cookie_says_of_tls(visitor: Visitor) -> None:
    """It is for TLS alone where a trusted proxy says that the browser came so."""
    (cookie,) = visitor.post("/login", {"key": "sk-demo"}, X_Forwarded_Proto="https").cookies
    assert cookie.endswith("; SameSite=Lax; Secure")


def test_what_a_session_ends_with(stage: Stage, visitor: Visitor) -> None:
    """A session survives reloads and a restart, and ends at the first request after its key was disabled."""
    other = Visitor(stage.url, visitor.address)
    visitor.sign_in("sk-leaving")
    other.sign_in("sk-other")
    text = stage.daemon.config.read_text()
    loads = len([line for line in stage.daemon.lines if line["event"] == "config_loaded"])
    stage.daemon.config.write_text(text.replace("sk-leaving}", "sk-leaving, enabled: false}"))
    stage.daemon.signal(signal.SIGHUP)
    seen: list[Any] = []

    def loaded(line: dict[str, Any]) -> bool:
        seen.append(line)
        return len([one for one in stage.daemon.lines if one["event"] == "config_loaded"]) > loads

    stage.daemon.wait(loaded)
    answer = visitor.get("/usage")
    assert (answer.place, visitor.cookies) == ("/login?why=over", {})
    assert "Your session has ended" in visitor.get(answer.place).words
    assert other.get("/usage").status == 200
    stage.daemon.config.write_text(text)
    assert stage.daemon.stop() == 0
    stage.daemon.start()
    assert other.get("/usage").status == 200
    plain(stage, "UPDATE proxy_sessions SET until = 1")
    assert other.get("/usage").place == "/login?why=over"


def test_sessions_are_bounded(stage: Stage, visitor: Visitor) -> None:
    """Signing in again ends the session before it, and one key has so many at the most."""
    plain(stage, "DELETE FROM proxy_sessions")
    for _ in range(3):
        visitor.sign_in("sk-other")
    assert len(plain(stage, "SELECT * FROM proxy_sessions")) == 1
    for number in range(25):
        Visitor(stage.url, f"203.0.113.{number + 1}").sign_in("sk-other")
    assert len(plain(stage, "SELECT * FROM proxy_sessions")) == 20


def test_figures_are_those_of_the_command(stage: Stage, visitor: Visitor) -> None:
    """The sums by day and model, the balance and each amount are what `usage` and the ledger say."""
    ids = spend(stage, "sk-demo", times=2) + spend(stage, "sk-demo", "long")
    page = visitor.sign_in("sk-demo")
    rows = [row for row in summed(stage, "token,day,model") if row["token"] == "demo"]
    (head, *shown) = page.table("By day and model")
    assert head == ["Day", "Model", "Requests", "Input tokens", "Output tokens", "Amount"]
    figures = ("requests", "prompt_tokens", "completion_tokens")
    sums = [[row["day"], row["model"], *(f"{row[name]:,}" for name in figures), money(row["quota"])] for row in rows]
    assert sorted(shown[:-1]) == sorted(sums)
    total = sum(row["quota"] for row in rows)
    assert shown[-1][-1] == money(total)
    assert f"{money(5_000_000 - total)} Balance {money(total)} Used" in page.words
    recent = {row[-1]: row for row in page.table("Requests")[1:]}
    for id in ids:
        ((charged, model),) = plain(stage, "SELECT charged, model FROM ledger WHERE request_id = ?", id)
        assert (recent[id][1], recent[id][3]) == (model, money(charged))
    day, *_ = recent[ids[0]][0].split()
    assert day == rows[-1]["day"]  # both in the configured zone
    assert "times are of Asia/Kathmandu" in page.words


def test_one_request(stage: Stage, visitor: Visitor) -> None:
    """A request's page has the arithmetic of `explain` but for the operator's part; another key's is not there."""
    (mine,), (theirs,) = spend(stage, "sk-demo"), spend(stage, "sk-other")
    visitor.sign_in("sk-demo")
    page = visitor.get(f"/requests/{mine}")
    assert page.status == 200
    assert "charge, rounded half up" in page.words
    assert "channel" not in page.words
    assert "Attempts" not in page.words
    answers = [visitor.get(f"/requests/{id}") for id in (theirs, "nobodys", "..%2Fusage", "%00", "x" * 300)]
    assert {answer.status for answer in answers} == {404}
    assert len({re.sub(r"Request \S+", "", answer.words) for answer in answers}) == 1
    visitor.sign_in(ROOT)
    page = visitor.get(f"/requests/{theirs}")
    assert "Attempts" in page.words
    assert page.table("Attempts")[1][:2] == ["echo", "200"]


def test_the_download(stage: Stage, visitor: Visitor) -> None:
    """The CSV has the key's own charges, and adds up to what is shown; no name can be a formula."""
    plain(stage, "DELETE FROM logs WHERE token_name = 'vip'")
    spend(stage, "sk-vip-0123456789", times=3)
    spend(stage, "sk-other")
    (one,) = plain(stage, "SELECT max(id) FROM logs WHERE token_name = 'vip'")[0]
    plain(stage, "UPDATE logs SET model_name = '=1+1' WHERE id = ?", one)
    visitor.sign_in("sk-vip-0123456789")
    answer = visitor.get("/usage.csv?days=1")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-1d.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    ((sum_,),) = plain(stage, "SELECT sum(quota) FROM logs WHERE token_name = 'vip'")
    assert (len(rows), sum(int(row["quota"]) for row in rows)) == (3, sum_)
    assert {row["key"] for row in rows} == {"vip"}
    assert sorted(row["model"] for row in rows) == ["'=1+1", "echo", "echo"]


def test_what_binds_a_key(stage: Stage, visitor: Visitor) -> None:
    """Its group with the ratio, limits of its own and of the group, the budget's window, and prices as it pays them."""
    page = visitor.sign_in("sk-vip-0123456789")
    assert "Group vip (prices × 0.5)" in page.words
    assert "8,000 requests a minute; 9,000 requests a minute, for the whole group" in page.words
    ((amount, used, left, resets),) = page.table("Budgets")[1:]
    assert (amount, resets[-8:]) == ("$1.00 a day", "00:00:00")
    assert left == money(500_000 - round(float(used[1:]) * 500_000))
    prices = {row[0]: row[1:] for row in page.table("Models and prices")[1:]}
    assert prices["echo"] == ["$500", "$500", "$500", ""]
    assert prices["drawn"] == ["", "", "", "$0.02 per picture; $0.04 per picture 1792x1024"]
    assert prices["long"] == [
        "$0.5",
        "$1",
        "$0.05",
        "prompts above 1,000 tokens: Input $1.5, Output $3, Cached input $0.15",
    ]
    assert prices["priceless"] == ["", "", "", "no price"]
    assert "Models by pattern are not listed." in page.words


def test_names_are_text(stage: Stage, visitor: Visitor) -> None:
    """What somebody chose as a name is shown as it is, and is no markup; so are texts of the log."""
    (id,) = spend(stage, "sk-script")
    plain(stage, "UPDATE logs SET model_name = '<img src=x onerror=y>' WHERE request_id = ?", id)
    page = visitor.sign_in("sk-script")
    assert "<script" not in page.text
    assert "<img" not in page.text
    assert "Signed in as <script>alert('x')</script>" in page.words
    assert "<img src=x onerror=y>" in page.words
    assert "Light & House" in page.words


def test_periods_and_pages(stage: Stage, visitor: Visitor) -> None:
    """Periods are days of the zone, older requests are a page further, and what is asked wrongly is the usual page."""
    plain(stage, "DELETE FROM logs WHERE token_name = 'other'")
    ((id,),) = plain(stage, "SELECT id FROM tokens WHERE name = 'other'")
    ((now,),) = plain(stage, "SELECT CAST(strftime('%s', 'now') AS INTEGER)")
    for ago in range(60):
        plain(
            stage,
            "INSERT INTO logs(created_at, type, token_name, token_id, model_name, quota)"
            " VALUES (?, 2, 'other', ?, ?, 1)",
            now - ago * 86400,
            id,
            f"model-{ago:02d}",
        )
    visitor.sign_in("sk-other")
    for days in (1, 7, 30):
        shown = visitor.get(f"/usage?days={days}").table("By day and model")[1:-1]
        assert [row[1] for row in shown] == [f"model-{ago:02d}" for ago in range(days)]
    last = visitor.get("/usage?days=7&page=2")
    assert [row[1] for row in last.table("Requests")[1:]] == [f"model-{ago:02d}" for ago in range(9, -1, -1)]
    assert 'href="usage?days=7&amp;page=1#requests"' in last.text
    assert "page=3" not in last.text
    assert 'href="usage.csv?days=7"' in last.text
    for query in ("days=2", "days=x", "page=0", "page=-1", "page=x", "page=" + "9" * 400, "&".join(["a=1"] * 30)):
        assert visitor.get(f"/usage?{query}").status == 200


def test_who_guesses_waits(stage: Stage, visitor: Visitor) -> None:
    """An address that tries key after key is told to wait, with its last right one too; others are not."""
    answers = [visitor.post("/login", {"key": f"sk-guess-{number}"}) for number in range(21)]
    assert [answer.status for answer in answers] == [401] * 20 + [429]
    answer = visitor.post("/login", {"key": "sk-demo"})
    assert (answer.status, answer.cookies) == (429, ())
    assert int(answer.headers["retry-after"]) > 0
    assert "Too many requests came from your address" in answer.words
    assert Visitor(stage.url, "203.0.113.77").sign_in("sk-demo").status == 200


def test_an_office_signs_in(stage: Stage, visitor: Visitor) -> None:
    """Many people of one address sign in, and one of them is mistaken now and then; only that is counted."""
    for number in range(30):
        answer = Visitor(stage.url, visitor.address).post("/login", {"key": "sk-demo"})
        assert answer.status == 303, number
    line = stage.line(answer.headers["x-request-id"])
    assert (line["token"], line["status"]) == ("demo", 303)
    for _ in range(20):
        assert visitor.post("/login", {"key": "sk-off"}).status == 401  # known, so it is no guess
    assert visitor.post("/login", {"key": "sk-demo"}).status == 429


def test_a_database_that_cannot_be_read(stage: Stage, visitor: Visitor) -> None:
    """It is told in words with status 503, and the session lives on."""
    visitor.sign_in("sk-demo")
    plain(stage, "ALTER TABLE proxy_sessions RENAME TO away")
    try:
        answer = visitor.get("/usage")
    finally:
        plain(stage, "ALTER TABLE away RENAME TO proxy_sessions")
    assert answer.status == 503
    assert "The database does not answer at the moment" in answer.words
    assert visitor.get("/usage").status == 200


def test_other_methods_and_paths(visitor: Visitor) -> None:
    """What is no page is not there, HEAD is what GET is, and nothing is done by GET."""
    assert visitor.get("/setting/nothing").status == 404
    assert visitor.get("/logout").status == 405
    answer = visitor._sent("HEAD", "/login", None, {})
    assert (answer.status, answer.body) == (200, b"")


def test_nothing_without_a_portal(daemon: Callable[..., Daemon]) -> None:
    """Where the file names no portal no page is there."""
    running = daemon("channels: [{name: e, type: echo, models: [echo]}]\ntokens: [{name: t, key: sk-demo}]\n")
    for path in ("/", "/login", "/usage", "/usage.csv", "/requests/x", "/pages/style.css", "/dashboard", "/topup"):
        assert Visitor(running.url).get(path).status == 404
    assert Visitor(running.url).post("/login", {"key": "sk-demo"}).status == 404


def test_the_operator_sees_everything(stage: Stage, visitor: Visitor) -> None:
    """A key of `admin.keys` opens the dashboard, whose sums are the command's; with it nothing can be changed."""
    spend(stage, "sk-demo")
    page = visitor.sign_in(ROOT)
    assert "Signed in as the operator" in page.words
    assert visitor.get("/").place == "/dashboard"
    assert visitor.get("/usage").place == "/dashboard"
    for name, caption in (("token", "By key"), ("model", "By model"), ("channel", "By channel"), ("day", "By day")):
        rows = summed(stage, name)
        shown = page.table(caption)[1:-1]
        assert sorted(row[-1] for row in shown) == sorted(money(row["quota"]) for row in rows)
    (echo,) = page.table("Channels")[1:]
    assert echo[:2] == ["echo", "serves"]
    assert int(echo[4].replace(",", "")) > 0
    assert "No request is being served at the moment." in page.words
    plain(
        stage,
        "INSERT INTO ledger(request_id, token_id, state, held, at, model)"
        " SELECT 'r-open', id, 'held', 250000, 1, 'echo' FROM tokens WHERE name = 'demo'",
    )
    page = visitor.get("/dashboard?days=7")
    plain(stage, "DELETE FROM ledger WHERE request_id = 'r-open'")
    assert page.table("Open holds")[1][:4] == ["r-open", "demo", "echo", "$0.50"]
    assert "1, $0.50 in all" in page.words
    assert visitor.get("/requests?id=a%2Fb").place == "/requests/a%2Fb"


def test_the_dashboard_is_for_the_operator(stage: Stage, visitor: Visitor) -> None:
    """No holder of a key sees it, nobody sees it without signing in, and an old admin key opens it no more."""
    assert visitor.get("/dashboard").place == "/login"
    visitor.sign_in("sk-demo")
    for path in ("/dashboard", "/requests?id=x"):
        page = visitor.get(path)
        assert (page.status, "This page is for the operator" in page.words) == (403, True)
        assert "By key" not in page.text
    operator = Visitor(stage.url, "203.0.113.99")
    operator.sign_in(ROOT)
    ((subject,),) = plain(stage, "SELECT subject FROM proxy_sessions WHERE kind = 'admin' ORDER BY until DESC LIMIT 1")
    plain(stage, "UPDATE proxy_sessions SET subject = ? WHERE kind = 'admin'", "0" * len(subject))
    assert operator.get("/dashboard").place == "/login?why=over"


def test_garbage(stage: Stage, visitor: Visitor) -> None:
    """Whatever comes in a cookie, a query, a path, a header or a form is answered, and never by a failure of ours."""
    chance = random.Random(7)
    texts = [
        "",
        "%",
        "%00",
        "%ff",
        "\xff",
        "a" * 3000,
        "[",
        "http://[",
        "//x",
        "٣",
        "1e9",
        "-1",
        "9" * 400,
        "'\"<>",
        ";=,",
    ]
    paths = ["/login", "/usage", "/usage.csv", "/requests", "/dashboard", "/topup", "/setting", "/login/telegram"]
    paths += ["/api/oauth/telegram/login", "/api/oauth/telegram/bind", "/log", "/", "/pages/style.css"]
    names = [
        "Cookie",
        "Origin",
        "Referer",
        "Sec-Fetch-Site",
        "Host",
        "X-Forwarded-Proto",
        "New-Api-User",
        "Content-Type",
    ]
    session = visitor.post("/login", {"key": "sk-demo"}).cookies[0].partition(";")[0]
    for turn in range(400):
        path = chance.choice([*paths, f"/requests/{chance.choice(texts)}", f"/login/telegram/{chance.choice(texts)}"])
        query = "&".join(
            f"{chance.choice(['days', 'page', 'key', 'why', 'id', 'hash'])}={chance.choice(texts)}" for _ in "12"
        )
        given = {
            chance.choice(names): chance.choice([*texts, f"session={chance.choice(texts)}", session]) for _ in "123"
        }
        method, body = (
            chance.choice(["GET", "POST", "PUT"]),
            chance.choice([b"", b"key=%ff", b"\0" * 99, b"a&" * 99]),
        )
        head = {
            "X-Forwarded-For": f"203.0.{turn // 100}.{turn % 100}",
            "Connection": "close",
            "Content-Length": str(len(body)),
        }
        lines = [f"{name}: {value}" for name, value in {"Host": "x", **given, **head}.items()]
        request = "\r\n".join([f"{method} {path}?{query} HTTP/1.1".replace("\xff", "%fe"), *lines, "", ""])
        answer = sent(stage.url, request.encode("utf-8", "surrogateescape") + body)
        assert answer.status < 500, request
    assert bugs(stage) == 0

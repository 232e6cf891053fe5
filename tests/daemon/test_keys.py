"""Client keys from end to end: every form they come in, every list that binds them, those in the database."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from newapi_proxy.web.guesses import MOST
from tests.daemon.bare import Answer, bugs, head, sent
from tests.daemon.running import Stage
from tests.fakes.process import ROOT
from tests.fakes.scripted import Say

TODAY = datetime.now(UTC).date()
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
DIGEST = hashlib.sha256(b"sk-hashed").hexdigest()
BARE_DIGEST = hashlib.sha256(b"barehashed").hexdigest()
CONFIG = f"""\
database: sqlite:///newapi.db
trusted_proxies: [127.0.0.0/8]
groups: {{default: 1, vip: 0.5, lonely: 3}}
prices: {{"*": {{input: 2, output: 4}}, echo: {{input: 100, output: 0}}}}
channels:
  - {{name: echo, type: echo, models: [echo, echo-mini, other, "open-*"], groups: [default, vip]}}
  - {{name: vips, type: openai, base_url: "@UPSTREAM@", key: sk-provider, models: [fine], groups: [vip]}}
tokens:
  - {{name: demo, key: sk-demo}}
  - {{name: bare, key: barekey}}
  - {{name: hashed, key_sha256: {DIGEST}}}
  - {{name: barehashed, key_sha256: {BARE_DIGEST.upper()}}}
  - {{name: listed, key: sk-listed, models: ["echo*", "open-a*"]}}
  - {{name: vip, key: sk-vip, group: vip}}
  - {{name: lonely, key: sk-lonely, group: lonely}}
  - {{name: today, key: sk-today, expires: {TODAY + timedelta(days=1)}}}
  - {{name: past, key: sk-past, expires: {TODAY - timedelta(days=2)}}}
  - {{name: near, key: sk-near, allow_ips: [192.0.2.0/24, "2001:db8::/32", 198.51.100.7]}}
  - {{name: off, key: sk-off, enabled: false}}
"""
KEYS = {"demo": "demo", "barekey": "bare", "hashed": "hashed", "barehashed": "barehashed"}
FORMS: dict[str, Callable[[str], dict[str, str]]] = {
    "bearer": lambda key: {"Authorization": f"Bearer sk-{key}"},
    "bearer without sk-": lambda key: {"Authorization": f"Bearer {key}"},
    "lower case": lambda key: {"authorization": f"bearer sk-{key}"},
    "upper case": lambda key: {"AUTHORIZATION": f"BEARER sk-{key}"},
    "blanks": lambda key: {"Authorization": f"Bearer   sk-{key}  "},
    "bare": lambda key: {"Authorization": f"sk-{key}"},
    "bare without sk-": lambda key: {"Authorization": key},
    "x-api-key": lambda key: {"x_api_key": f"sk-{key}"},
    "x-api-key without sk-": lambda key: {"X_API_KEY": key},
    "x-goog-api-key": lambda key: {"x_goog_api_key": f"sk-{key}"},
    "mj-api-secret": lambda key: {"mj_api_secret": f"Bearer sk-{key}"},
    "both of Midjourney's": lambda key: {"Authorization": "Bearer midjourney-proxy", "mj_api_secret": f"sk-{key}"},
    "beside another's": lambda key: {"Authorization": "Bearer other", "x_api_key": f"sk-{key}"},
}


def ask(stage: Stage, key: str | None, model: str = "echo", path: str = CHAT, **headers: str) -> Answer:
    """One request; with `key` as the bearer token."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "one two"}], "max_tokens": 9}
    data = orjson.dumps(body)
    given = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return sent(stage.url, head("POST", path, Content_Length=str(len(data)), **given, **headers) + data)


def listed(stage: Stage, key: str, **headers: str) -> set[str]:
    """The names of the models that a key sees."""
    answer = sent(stage.url, head("GET", "/v1/models", Authorization=f"Bearer {key}", **headers))
    assert answer.status == 200, answer.body
    return {one["id"] for one in answer.tree["data"]}


def command(stage: Stage, *words: str) -> str:
    """Runs `newapi-proxy` on the daemon's configuration; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "newapi_proxy", *words, "-c", str(stage.daemon.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reload(stage: Stage) -> None:
    """SIGHUP, and the wait for the line of it."""
    lines = stage.daemon.lines
    before = sum(line["event"] == "config_loaded" for line in lines)
    stage.daemon.signal(signal.SIGHUP)
    stage.daemon.wait(lambda _: sum(line["event"] == "config_loaded" for line in list(lines)) > before)


@pytest.fixture(scope="module", autouse=True)
def whole(stage: Stage) -> Iterator[None]:
    """In the end nothing unexpected happened, and no key is in the log."""
    yield
    assert bugs(stage) == 0
    text = str(stage.daemon.lines)
    assert not [key for key in (*KEYS, DIGEST) if f"sk-{key}" in text]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms(stage: Stage, form: Callable[[str], dict[str, str]], path: str) -> None:
    """Every form of every key is its owner's, on every route."""
    for key, owner in KEYS.items():
        answer = ask(stage, None, path=path, **form(key))
        assert answer.status == 200, (key, answer.body)
        assert stage.line(answer.id)["token"] == owner
        assert sent(stage.url, head("GET", "/v1/models", **form(key))).status == 200
        refusal = ask(stage, None, path=path, **form(f"not-{key}"))
        assert refusal.status == 401
        assert refusal.headers["x-should-retry"] == "false"


def test_a_key_in_the_query(stage: Stage) -> None:
    """Gemini's clients bring it there; the line's path does not hold it."""
    answer = sent(stage.url, head("GET", "/v1/models?key=sk-demo"))
    assert answer.status == 200
    line = stage.line(answer.id)
    assert (line["token"], line["path"]) == ("demo", "/v1/models")


def test_near_misses(stage: Stage) -> None:
    """What merely looks like a key is none; the digest of a key is none either."""
    for key in ("", "sk-", "sk-sk-demo", "sk-Demo", "sk-demo2", "sk-dem", "demo-1", DIGEST, f"sk-{DIGEST}", "é"):
        answer = ask(stage, key)
        assert (answer.status, answer.tree["error"]["code"]) == (401, "invalid_api_key"), key


def test_model_lists(stage: Stage) -> None:
    """A key's list binds what it may ask and what it sees; `*` stands for any characters."""
    assert listed(stage, "sk-demo") == {"echo", "echo-mini", "other"}
    assert listed(stage, "sk-listed") == {"echo", "echo-mini"}
    for model, status in {"echo": 200, "echo-mini": 200, "open-abc": 200, "other": 403, "open-b": 403}.items():
        assert ask(stage, "sk-listed", model).status == status, model
    assert ask(stage, "sk-listed", "other").tree["error"]["code"] == "access_denied"
    assert ask(stage, "sk-demo", "open-b").status == 200


def test_guessing(stage: Stage) -> None:
    """Who tries many different keys waits, with a right one too; one old key sent again and again locks nobody out."""
    guesser, neighbour = {"X_Forwarded_For": "203.0.113.9"}, {"X_Forwarded_For": "203.0.113.10"}
    for number in range(MOST):
        assert ask(stage, f"sk-guess-{number}", **guesser).status == 401
        assert ask(stage, "sk-old", **neighbour).status == 401
    for path in (CHAT, MESSAGES):
        answer = ask(stage, "sk-demo", path=path, **guesser)
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.tree["error"]["type"] == "rate_limit_error"
    listing = sent(stage.url, head("GET", "/v1/models", Authorization="Bearer sk-demo", **guesser))
    assert (listing.status, listing.tree["error"]["code"]) == (429, "too_many_unknown_keys")
    assert 1 <= int(listing.headers["retry-after"]) <= 60
    assert ask(stage, "sk-demo", **neighbour).status == 200
    for number in range(MOST + 5):  # from loopback, where a proxy may stand
        assert ask(stage, f"sk-guess-{number}").status == 401


def test_expiry(stage: Stage) -> None:
    """The named day is the last one; afterwards a key is like an unknown one, and so is a disabled one."""
    assert ask(stage, "sk-today").status == 200
    for key in ("sk-past", "sk-off"):
        for answer in (ask(stage, key), sent(stage.url, head("GET", "/v1/models", Authorization=f"Bearer {key}"))):
            assert (answer.status, answer.tree["error"]["code"]) == (401, "invalid_api_key")
            message = answer.tree["error"]["message"].removesuffix(f" (request id: {answer.id})")
            assert message == "Invalid API key."


def test_addresses(stage: Stage) -> None:
    """A key's address list is about the client that a trusted proxy vouches for, not what the client claims."""
    for forwarded, status in {
        "192.0.2.9": 200,
        "2001:db8::5": 200,
        "::ffff:192.0.2.9": 200,
        "198.51.100.7": 200,
        "198.51.100.8": 403,
        "192.0.2.9, 203.0.113.5": 403,
        "203.0.113.5, 192.0.2.9": 200,
        "nonsense": 403,
    }.items():
        answer = ask(stage, "sk-near", X_Forwarded_For=forwarded)
        assert answer.status == status, forwarded
    answer = ask(stage, "sk-near")
    assert (answer.status, answer.tree["error"]["code"]) == (403, "access_denied")
    assert ask(stage, "sk-near", path=MESSAGES).tree["error"]["type"] == "permission_error"
    assert listed(stage, "sk-near", X_Forwarded_For="192.0.2.9")


def test_groups(stage: Stage) -> None:
    """A group decides which channels serve, which models are seen, and the ratio on the price."""
    stage.upstream.says(Say())
    assert listed(stage, "sk-vip") == {"echo", "echo-mini", "other", "fine"}
    assert ask(stage, "sk-vip", "fine").status == 200
    assert stage.upstream.last.headers["authorization"] == "Bearer sk-provider"
    refusal = ask(stage, "sk-demo", "fine")
    assert (refusal.status, refusal.tree["error"]["code"]) == (503, "model_not_found")
    assert listed(stage, "sk-lonely") == set()
    assert ask(stage, "sk-lonely").status == 503
    plain, cheap = (stage.line(ask(stage, key).id) for key in ("sk-demo", "sk-vip"))
    assert (plain["group"], cheap["group"]) == ("default", "vip")
    assert plain["quota"] == 2 * cheap["quota"] > 0


def test_database_keys(stage: Stage) -> None:
    """Keys that the command line makes while the daemon runs serve after SIGHUP at the latest, and end as it says."""
    key = command(stage, "token", "add", "--quota", "$1", "--models", "echo*", "carol")
    assert key.startswith("sk-")
    reload(stage)
    for form in FORMS.values():
        assert ask(stage, None, **form(key.removeprefix("sk-"))).status == 200
    assert ask(stage, key, "other").status == 403
    assert listed(stage, key) == {"echo", "echo-mini"}
    command(stage, "token", "disable", "carol")
    reload(stage)
    assert ask(stage, key).status == 401
    command(stage, "token", "enable", "carol")
    reload(stage)
    assert ask(stage, key).status == 200
    command(stage, "token", "rm", "carol")
    reload(stage)
    assert ask(stage, key).status == 401
    assert key not in str(stage.daemon.lines)


def test_top_up(stage: Stage) -> None:
    """A key that is used up is refused until it is topped up: the daemon sees both without a reload."""
    key = command(stage, "token", "add", "--quota", "$1", "dave")
    reload(stage)
    served = ask(stage, key)
    assert (served.status, stage.line(served.id)["quota"]) == (200, 100)  # two words of prompt at 50 units
    command(stage, "token", "topup", "dave", "-500000")
    refusal = ask(stage, key)
    assert (refusal.status, refusal.tree["error"]["code"]) == (403, "pre_consume_token_quota_failed")
    assert listed(stage, key)
    command(stage, "token", "topup", "dave", "$1")
    assert ask(stage, key).status == 200
    reload(stage)
    assert ask(stage, key).status == 200
    row = next(
        one for one in orjson.loads(command(stage, "token", "list", "--format", "json")) if one["name"] == "dave"
    )
    assert (row["left"], row["used"]) == (500_000 - 200, 300)

"""Whole databases of other programs, as four ages of them make their files, with rows of every form that is served.

`AGES` are One API's, New API's first, that of April 2025 and its latest (relay-and-billing 7.3, 7.4), written with SQL
of our own. Every row is made up. `stand` writes one; `columns` reads back what must not have changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

AGES: Final = ("one-api", "new-api", "new-api-2025", "new-api-latest")
CHARGED: Final[Mapping[str, frozenset[str]]] = {  # what a charge is meant to change
    "users": frozenset({"quota", "used_quota", "request_count"}),
    "tokens": frozenset({"remain_quota", "used_quota", "accessed_time"}),
    "channels": frozenset({"used_quota"}),
}
KEY: Final = "Zk3vQ9sB1nXw7LtRy5cMa8JdGh2PfUe4KiOoT6bNrWxYqEzA"  # a client's, without sk-

_MONEY: Final = "quota integer DEFAULT 0, used_quota integer DEFAULT 0, request_count integer DEFAULT 0"
_FIRST: Final[Mapping[str, str]] = {
    "channels": """id integer, type integer DEFAULT 0, key text NOT NULL, open_ai_organization text, test_model text,
        status integer DEFAULT 1, name text, weight integer DEFAULT 0, created_time integer, test_time integer,
        response_time integer, base_url text DEFAULT "", other text, balance real, balance_updated_time integer,
        models text, "group" varchar(64) DEFAULT "default", used_quota integer DEFAULT 0,
        model_mapping varchar(1024) DEFAULT "", status_code_mapping varchar(1024) DEFAULT "",
        priority integer DEFAULT 0, auto_ban integer DEFAULT 1, other_info text""",
    "tokens": """id integer, user_id integer, key char(48), status integer DEFAULT 1, name text, created_time integer,
        accessed_time integer, expired_time integer DEFAULT -1, remain_quota integer DEFAULT 0,
        unlimited_quota numeric DEFAULT false, model_limits_enabled numeric DEFAULT false,
        model_limits varchar(1024) DEFAULT "", allow_ips text DEFAULT "", used_quota integer DEFAULT 0,
        "group" text DEFAULT "", deleted_at datetime""",
    "users": f"""id integer, username text UNIQUE, password text NOT NULL, display_name text, role integer DEFAULT 1,
        status integer DEFAULT 1, email text, github_id text, wechat_id text, telegram_id text, access_token char(32),
        {_MONEY}, "group" varchar(64) DEFAULT "default", aff_code varchar(32), aff_count integer DEFAULT 0,
        aff_quota integer DEFAULT 0, aff_history integer DEFAULT 0, inviter_id integer, deleted_at datetime""",
    "abilities": """"group" varchar(64), model varchar(64), channel_id integer, enabled numeric,
        priority integer DEFAULT 0, weight integer DEFAULT 0""",
    "logs": """id integer, user_id integer, created_at integer, type integer, content text, username text DEFAULT "",
        token_name text DEFAULT "", model_name text DEFAULT "", quota integer DEFAULT 0,
        prompt_tokens integer DEFAULT 0, completion_tokens integer DEFAULT 0, use_time integer DEFAULT 0,
        is_stream numeric DEFAULT false, channel_id integer, token_id integer DEFAULT 0, other text""",
    "redemptions": """id integer, user_id integer, key char(32), status integer DEFAULT 1, name text,
        quota integer DEFAULT 100, created_time integer, redeemed_time integer, used_user_id integer,
        deleted_at datetime""",
    "quota_data": """id integer, user_id integer, username text DEFAULT "", model_name text DEFAULT "",
        created_at integer, token_used integer DEFAULT 0, count integer DEFAULT 0, quota integer DEFAULT 0""",
    "top_ups": """id integer, user_id integer, amount integer, money real, trade_no text, create_time integer,
        status text""",
    "options": "key text, value text",
}
_ONE_API: Final[Mapping[str, str]] = {
    "channels": """id integer, type integer DEFAULT 0, key text, status integer DEFAULT 1, name text,
        weight integer DEFAULT 0, created_time integer, test_time integer, response_time integer,
        base_url text DEFAULT "", other text, balance real, balance_updated_time integer, models text,
        "group" varchar(32) DEFAULT "default", used_quota integer DEFAULT 0, model_mapping varchar(1024) DEFAULT "",
        priority integer DEFAULT 0, config text, system_prompt text""",
    "tokens": """id integer, user_id integer, key char(48), status integer DEFAULT 1, name text, created_time integer,
        accessed_time integer, expired_time integer DEFAULT -1, remain_quota integer DEFAULT 0,
        unlimited_quota numeric DEFAULT false, used_quota integer DEFAULT 0, models text, subnet text DEFAULT "" """,
    "users": f"""id integer, username text UNIQUE, password text NOT NULL, display_name text, role integer DEFAULT 1,
        status integer DEFAULT 1, email text, github_id text, wechat_id text, lark_id text, oidc_id text,
        access_token char(32), {_MONEY}, "group" varchar(32) DEFAULT "default", aff_code varchar(32),
        inviter_id integer""",
    "abilities": """"group" varchar(32), model text, channel_id integer, enabled numeric,
        priority integer DEFAULT 0""",
    "logs": """id integer, user_id integer, created_at integer, type integer, content text, username text DEFAULT "",
        token_name text DEFAULT "", model_name text DEFAULT "", quota integer DEFAULT 0,
        prompt_tokens integer DEFAULT 0, completion_tokens integer DEFAULT 0, channel_id integer,
        request_id text DEFAULT "", elapsed_time integer DEFAULT 0, is_stream numeric DEFAULT false,
        system_prompt_reset numeric DEFAULT false""",
    "redemptions": """id integer, user_id integer, key char(32), status integer DEFAULT 1, name text,
        quota integer DEFAULT 100, created_time integer, redeemed_time integer""",
    "options": "key text, value text",
}
_APRIL: Final[Mapping[str, str]] = {  # what was added until then
    "channels": "tag text, setting text, param_override text",
    "users": "linux_do_id text, oidc_id text, setting text",
    "abilities": "tag text",
    "logs": '"group" text, channel_name text',
    "setups": "id integer, version varchar(50) NOT NULL, initialized_at bigint NOT NULL",
}
_LATEST: Final[Mapping[str, str]] = {
    "channels": "header_override text, remark varchar(255), channel_info json, settings text",
    "users": """discord_id text, remark varchar(255), stripe_customer varchar(64), created_at bigint DEFAULT 0,
        last_login_at bigint DEFAULT 0, auth_version integer DEFAULT 0""",
    "tokens": "cross_group_retry numeric DEFAULT false",
    "logs": 'ip text DEFAULT "", request_id varchar(64) DEFAULT "", upstream_request_id varchar(128) DEFAULT ""',
    "redemptions": "expired_time integer DEFAULT 0",
    "vendors": "id integer, name varchar(128), description text, icon varchar(128), status integer",
    "two_fas": "id integer, user_id integer, secret text, is_enabled numeric",
    "prefill_groups": "id integer, name varchar(64), type varchar(32), items json",
}
PRIMARY: Final[Mapping[str, str]] = {"abilities": '"group", model, channel_id', "options": "key"}
_INDEXES: Final = (
    "CREATE UNIQUE INDEX idx_tokens_key ON tokens(key)",
    "CREATE UNIQUE INDEX idx_users_access_token ON users(access_token)",
    "CREATE INDEX idx_channels_name ON channels(name)",
    "CREATE INDEX idx_created_at_type ON logs(created_at, type)",
    "CREATE INDEX idx_logs_user_id ON logs(user_id)",
    "CREATE INDEX index_username_model_name ON logs(model_name, username)",
)
_AGE_TABLES: Final[Mapping[str, tuple[Mapping[str, str], ...]]] = {
    "one-api": (_ONE_API,),
    "new-api": (_FIRST,),
    "new-api-2025": (_FIRST, _APRIL),
    "new-api-latest": (_FIRST, _APRIL, _LATEST),
}


def stand(path: Path, age: str, upstream: str, *, channels: tuple[Mapping[str, Any], ...] = ()) -> None:
    """Writes a file of that age. Its channels call `upstream`; those that are given replace the usual ones."""
    with sqlite3.connect(path) as raw:
        for statement in statements(age):
            raw.execute(statement)
        for table, filled in {**rows(age, upstream), **({"channels": channels} if channels else {})}.items():
            for row in filled:
                insert(raw, table, row)
    raw.close()


def statements(age: str) -> list[str]:
    """What makes that age's tables and indexes."""
    made = _tables(age)
    tables = [
        f"CREATE TABLE {name} ({', '.join(parts)}, PRIMARY KEY({PRIMARY.get(name, 'id')}))"
        for name, parts in made.items()
    ]
    return [*tables, *_INDEXES]


def rows(age: str, upstream: str) -> dict[str, Sequence[Mapping[str, Any]]]:
    """What stands in them; objects are meant as JSON text."""
    lists: dict[str, Sequence[Mapping[str, Any]]] = {**_rows(age), "channels": _channels(age, upstream)}
    return {**lists, "vendors": [{"id": 1, "name": "a vendor", "status": 1}]} if age == "new-api-latest" else lists


def insert(raw: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """One row; objects become JSON text."""
    values = [orjson.dumps(value).decode() if isinstance(value, (dict, list)) else value for value in row.values()]
    names = ", ".join(f'"{name}"' for name in row)
    raw.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", values)


def columns(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every value of every table that is there now, its type with it, but what a charge is meant to change."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as raw:
        found = {}
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        for table in tables:
            kept = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in kept if name not in CHARGED.get(table, ())]
            found[table] = values(raw, table, kept)
    raw.close()
    return found


def values(raw: sqlite3.Connection, table: str, names: list[str]) -> list[tuple[Any, ...]]:
    """The columns of every row in the order of the rows, each value with the type it is stored as."""
    asked = ", ".join(f'"{name}", typeof("{name}")' for name in names)
    return [(tuple(names), *row) for row in raw.execute(f"SELECT {asked} FROM {table} ORDER BY rowid")]


def lost(before: Mapping[str, list[tuple[Any, ...]]], path: Path) -> list[str]:
    """What is not in the file as it was: rows and columns that came since are no loss."""
    found = []
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as raw:
        for table, rows in before.items():
            if rows and values(raw, table, list(rows[0][0]))[: len(rows)] != rows:
                found.append(table)
    raw.close()
    return found


def _tables(age: str) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for part in _AGE_TABLES[age]:
        for table, text in part.items():
            tables.setdefault(table, []).append(" ".join(text.split()))
    return tables


def _rows(age: str) -> dict[str, list[dict[str, Any]]]:
    token: dict[str, Any] = {"id": 1, "user_id": 2, "key": KEY, "name": "laptop", "remain_quota": 400_000}
    token |= {"created_time": 1_700_000_000, "accessed_time": 1_700_000_000}
    user: dict[str, Any] = {"id": 2, "username": "alice", "password": "$2a$10$hash", "quota": 1_000_000, "email": "a@b"}
    options = {"ModelRatio": {"gpt-4o": 5, "house-model": 2}, "CompletionRatio": {"house-model": 3}}
    options |= {"GroupRatio": {"default": 1, "vip": 0.5}, "RetryTimes": "2"}
    return {
        "users": [{"id": 1, "username": "root", "password": "$2a$10$root", "role": 100, "quota": 100_000_000}, user],
        "tokens": [token],
        "options": [{"key": key, "value": value} for key, value in options.items()],
        "logs": [{"id": 1, "user_id": 2, "created_at": 1_700_000_000, "type": 2, "model_name": "gpt-4o", "quota": 7}],
        "redemptions": [{"id": 1, "user_id": 1, "key": "0123456789abcdef0123456789abcdef", "name": "gift"}],
        "abilities": [{"group": "default", "model": "gpt-4o", "channel_id": 1, "enabled": True}],
    }


def _channels(age: str, upstream: str) -> tuple[dict[str, Any], ...]:
    """Two that serve, and one that nobody here can."""
    common: dict[str, Any] = {"base_url": upstream, "created_time": 1_700_000_000, "balance": 1.25}
    first = {"id": 1, "type": 1, "key": "upstream-key", "name": "main", "models": "gpt-4o, house-model,", "priority": 9}
    claude = {"id": 2, "type": 14, "key": "claude-key", "name": "claude", "models": "claude-3-5-haiku-20241022"}
    lacking = {"id": 3, "type": 23, "key": "a|b|c", "name": "hunyuan", "models": "hunyuan-lite"}
    first |= {"model_mapping": {"house-model": "gpt-4o-mini"}, "weight": 5}
    if age != "one-api":
        first |= {"open_ai_organization": "org-1", "status_code_mapping": {"400": "500"}}
    return ({**common, **first}, {**common, **claude}, {**common, **lacking})

"""Every table once, as SQLAlchemy Core: the inherited ones of New API's newest schema, and our own.

Source: relay-and-billing 7.1-7.4. Inherited tables are read leniently (NULL anywhere) and written narrowly, so columns
that only New API's own pages use stand here only because a file that we make must serve New API too. Indexes of ours
are fewer than New API's: it adds its own when it opens the file, and each one costs every request a write.
Knows no statements.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    CHAR,
    NUMERIC,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine, UserDefinedType

_LONGEST: Final = 2**32 - 1  # which makes it `longtext`


class _Json(UserDefinedType[str]):
    """A `json` column whose text we hand through unread."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"


def _number() -> TypeEngine[int]:
    return BigInteger().with_variant(Integer(), "sqlite")


def _short() -> TypeEngine[str]:
    """Text that is indexed or has a default: MySQL needs a length there."""
    return Text().with_variant(String(191), "mysql", "mariadb")


def _long() -> TypeEngine[str]:
    return Text().with_variant(Text(_LONGEST), "mysql", "mariadb")


def _flag() -> TypeEngine[bool]:
    """0/1 in SQLite's numeric column; some writers leave 'false' there, so read through `row.truth`."""
    return Boolean().with_variant(NUMERIC(asdecimal=False), "sqlite")


def _id() -> Column[int]:
    return Column("id", _number(), primary_key=True)


def _int(name: str, default: int | None = None, index: bool = False) -> Column[int]:
    return Column(name, _number(), server_default=None if default is None else text(str(default)), index=index)


def _word(
    name: str, default: str | None = None, index: bool = False, kind: TypeEngine[str] | None = None
) -> Column[str]:
    return Column(name, kind or _short(), server_default=default, index=index)


def _prose(name: str) -> Column[str]:
    return Column(name, _long())


def _bool(name: str) -> Column[bool]:
    return Column(name, _flag(), server_default=text("false"))


def _gone() -> Column[Any]:
    """Soft delete: test for NULL only; other writers' time formats differ."""
    return Column("deleted_at", DateTime(timezone=True), index=True)


_NAMES: Final = {"ix": "idx_%(table_name)s_%(column_0_name)s"}  # GORM's
INHERITED: Final = MetaData(naming_convention=_NAMES)
OWN: Final = MetaData(naming_convention=_NAMES)

users: Final = Table(
    "users",
    INHERITED,
    _id(),
    Column("username", _short(), unique=True),
    Column("password", _long(), nullable=False),
    _word("display_name", index=True),
    _int("role", 1),
    _int("status", 1),
    _word("email", index=True),
    _word("github_id"),
    _word("discord_id", index=True),
    _word("oidc_id", index=True),
    _word("wechat_id"),
    _word("telegram_id", index=True),
    _word("linux_do_id", index=True),
    _word("access_token", kind=CHAR(32)),
    _int("quota", 0),
    _int("used_quota", 0),
    _int("request_count", 0),
    _word("group", "default", kind=String(64)),
    _word("aff_code", kind=String(32)),
    _int("aff_count", 0),
    _int("aff_quota", 0),
    _int("aff_history", 0),
    _int("inviter_id", index=True),
    _gone(),
    _prose("setting"),
    _word("remark", kind=String(255)),
    _word("stripe_customer", kind=String(64), index=True),
    _int("created_at", 0),
    _int("last_login_at", 0),
    _int("auth_version", 0),
    Index("idx_users_git_hub_id", "github_id"),
    Index("idx_users_we_chat_id", "wechat_id"),
    Index("idx_users_access_token", "access_token", unique=True),
    Index("idx_users_aff_code", "aff_code", unique=True),
)

tokens: Final = Table(
    "tokens",
    INHERITED,
    _id(),
    _int("user_id", index=True),
    _word("key", kind=String(128)),
    _int("status", 1),
    _word("name", index=True),
    _int("created_time"),
    _int("accessed_time"),
    _int("expired_time", -1),
    _int("remain_quota", 0),
    _bool("unlimited_quota"),
    _bool("model_limits_enabled"),
    _prose("model_limits"),
    _prose("allow_ips"),
    _int("used_quota", 0),
    _word("group", ""),
    _bool("cross_group_retry"),
    _gone(),
    Index("idx_tokens_key", "key", unique=True),
)

channels: Final = Table(
    "channels",
    INHERITED,
    _id(),
    _int("type", 0),
    Column("key", _long(), nullable=False),
    _prose("open_ai_organization"),
    _prose("test_model"),
    _int("status", 1),
    _word("name", index=True),
    _int("weight", 0),
    _int("created_time"),
    _int("test_time"),
    _int("response_time"),
    _word("base_url", ""),
    _prose("other"),
    Column("balance", Double()),
    _int("balance_updated_time"),
    _prose("models"),
    _word("group", "default", kind=String(64)),
    _int("used_quota", 0),
    _prose("model_mapping"),
    _word("status_code_mapping", "", kind=String(1024)),
    _int("priority", 0),
    _int("auto_ban", 1),
    _prose("other_info"),
    _word("tag", index=True),
    _prose("setting"),
    _prose("param_override"),
    _prose("header_override"),
    _word("remark", kind=String(255)),
    Column("channel_info", _Json()),
    _prose("settings"),
)

abilities: Final = Table(
    "abilities",
    INHERITED,
    Column("group", String(64), primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("channel_id", _number(), primary_key=True, autoincrement=False, index=True),
    Column("enabled", _flag()),
    _int("priority", 0, index=True),
    _int("weight", 0, index=True),
    _word("tag", index=True),
)

logs: Final = Table(
    "logs",
    INHERITED,
    _id(),
    _int("user_id"),
    _int("created_at"),
    _int("type"),
    _prose("content"),
    _word("username", ""),
    _word("token_name", ""),
    _word("model_name", ""),
    _int("quota", 0),
    _int("prompt_tokens", 0),
    _int("completion_tokens", 0),
    _int("use_time", 0),
    _bool("is_stream"),
    _int("channel_id"),
    _prose("channel_name"),
    _int("token_id", 0, index=True),
    _word("group"),
    _word("ip", ""),
    _word("request_id", "", kind=String(64)),
    _word("upstream_request_id", "", kind=String(128)),
    _prose("other"),
    Index("idx_created_at_type", "created_at", "type"),
)

options: Final = Table("options", INHERITED, Column("key", _short(), primary_key=True), _prose("value"))

redemptions: Final = Table(
    "redemptions",
    INHERITED,
    _id(),
    _int("user_id"),
    _word("key", kind=CHAR(32)),
    _int("status", 1),
    _word("name", index=True),
    _int("quota", 100),
    _int("created_time"),
    _int("redeemed_time"),
    _int("used_user_id"),
    _gone(),
    _int("expired_time", 0),
    Index("idx_redemptions_key", "key", unique=True),
)

quota_data: Final = Table(
    "quota_data",
    INHERITED,
    _id(),
    _int("user_id", index=True),
    _word("username", "", kind=String(64)),
    _word("model_name", "", kind=String(64)),
    _int("created_at"),
    _int("token_used", 0),
    _int("count", 0),
    _int("quota", 0),
    Index("idx_qdt_created_at", "created_at"),
    Index("idx_qdt_model_user_name", "model_name", "username"),
)

midjourneys: Final = Table(
    "midjourneys",
    INHERITED,
    _id(),
    _int("code"),
    _int("user_id", index=True),
    _word("action", kind=String(40), index=True),
    _word("mj_id", index=True),
    _prose("prompt"),
    _prose("prompt_en"),
    _prose("description"),
    _prose("state"),
    _int("submit_time", index=True),
    _int("start_time", index=True),
    _int("finish_time", index=True),
    _prose("image_url"),
    _prose("video_url"),
    _prose("video_urls"),
    _word("status", kind=String(20), index=True),
    _word("progress", kind=String(30), index=True),
    _prose("fail_reason"),
    _int("channel_id"),
    _int("quota"),
    _prose("buttons"),
    _prose("properties"),
    _int("token_id", 0),
    _int("billing_channel_id", 0),
)

tasks: Final = Table(
    "tasks",
    INHERITED,
    _id(),
    _int("created_at", index=True),
    _int("updated_at"),
    _word("task_id", kind=String(191), index=True),
    _word("platform", kind=String(30), index=True),
    _int("user_id", index=True),
    _word("group", kind=String(50)),
    _int("channel_id", index=True),
    _int("quota"),
    _word("action", kind=String(40), index=True),
    _word("status", kind=String(20), index=True),
    _prose("fail_reason"),
    _int("submit_time", index=True),
    _int("start_time", index=True),
    _int("finish_time", index=True),
    _word("progress", kind=String(20), index=True),
    Column("properties", _Json()),
    Column("private_data", _Json()),
    Column("data", _Json()),
)

top_ups: Final = Table(
    "top_ups",
    INHERITED,
    _id(),
    _int("user_id", index=True),
    _int("amount"),
    Column("money", Double()),
    Column("trade_no", String(255), unique=True),
    _word("payment_method", kind=String(50)),
    _word("payment_provider", kind=String(50)),
    _int("create_time"),
    _int("complete_time"),
    _word("status"),
    # ours, NULL in rows of others: what is credited, to which key where it is one of ours, what exactly is to be paid
    _int("quota"),
    _int("token_id"),
    _int("money_minor"),
    _word("currency", kind=String(8)),
    _word("provider_trade_no", kind=String(128)),
)

_setups: Final = Table(
    "setups",
    INHERITED,
    _id(),
    Column("version", String(50), nullable=False),
    Column("initialized_at", _number(), nullable=False),
)

ledger: Final = Table(
    "ledger",
    OWN,
    Column("request_id", String(128), primary_key=True),
    _int("token_id"),
    _int("user_id"),
    Column("token_limited", _flag()),
    Column("user_limited", _flag()),
    Column("state", String(8), nullable=False),
    _int("held", 0),
    _int("charged", 0),
    _int("shortfall", 0),
    _int("at"),
    _int("resolved_at"),
    Column("boot", String(64)),
    _word("model"),
    _int("channel_id", 0),
    _prose("reason"),
    _word("price_version"),
    _prose("detail"),
    _word("budgets"),  # the windows that it counts in: day:1767222000,month:1764543600,
)
# Small and hot: only the open rows are in it, so that a start finds them without reading the whole table.
_HELD: Final = ledger.c.state == text("'held'")
Index("idx_ledger_held", ledger.c.state, sqlite_where=_HELD)

upgrades: Final = Table(
    "proxy_upgrades", OWN, Column("name", String(64), primary_key=True), Column("at", _number(), nullable=False)
)

processes: Final = Table(
    "proxy_processes",
    OWN,
    # Who shares a server's database: `at` the last sign of life by its clock, `number` of the last group that came
    # through. SQLite has one process, and no row here.
    Column("boot", String(64), primary_key=True),
    _int("at", 0),
    _int("number", 0),
)

proxy_replies: Final = Table(
    "proxy_replies",
    OWN,
    # Answers kept under clients' idempotency keys.
    Column("token_id", _number(), primary_key=True, autoincrement=False),
    Column("key", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("boot", String(64)),
    Column("state", String(8), nullable=False),
    _int("at"),
    _int("expires", 0, index=True),
    _int("status", 0),
    Column("streamed", _flag()),
    _prose("headers"),
    _int("size", 0),
    Column("body", LargeBinary(_LONGEST)),
)
_OPEN: Final = proxy_replies.c.state == text("'open'")
Index("idx_proxy_replies_open", proxy_replies.c.state, sqlite_where=_OPEN)

proxy_budgets: Final = Table(
    "proxy_budgets",
    OWN,
    # What is held or spent of a budget in the window that begins at `starts` (unix seconds).
    Column("token_id", _number(), primary_key=True, autoincrement=False),
    Column("every", String(8), primary_key=True),
    Column("starts", _number(), primary_key=True, autoincrement=False),
    Column("used", _number(), nullable=False),
)

proxy_tokens: Final = Table(
    "proxy_tokens",
    OWN,
    # What we know of tokens made here: `granted` is every unit ever put in, `declared` the part a YAML `quota:` put in.
    Column("token_id", _number(), primary_key=True, autoincrement=False),
    Column("digest", String(64), index=True),
    Column("yaml", _flag()),
    _int("declared"),
    _int("granted", 0),
)

proxy_channels: Final = Table(
    "proxy_channels",
    OWN,
    # YAML channels' rows in `channels`, where their spend is added up.
    Column("name", String(191), primary_key=True),
    Column("channel_id", _number(), nullable=False),
)

"""Client keys: rows of `tokens`, read leniently, looked up by digest.

Source: relay-and-billing 2.3 and 7.2, decision 22. A key is stored without `sk-`: inherited ones as text, ours as `$`
and 43 base64url characters of its SHA-256, unless New API shall read them too. Keys that YAML names have rows of
their own under our own account, so that their spend lives in the database; what they may do stands in YAML alone.
"""

from __future__ import annotations

import secrets
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, case, func, insert, select, update

from newapi_proxy.store import users
from newapi_proxy.store.row import addresses, made, names, number, older, truth, words
from newapi_proxy.store.schema import proxy_tokens, tokens
from newapi_proxy.store.schema import users as user_table

ENABLED: Final = 1
DISABLED: Final = 2
EXPIRED: Final = 3
EXHAUSTED: Final = 4
NEVER: Final = -1
AtRest = Literal["digest", "text"]

_LENGTH: Final = 48  # characters of a key, as New API makes them
_NAME: Final = 191  # MySQL's column
_LETTERS: Final = string.ascii_letters + string.digits
_READ: Final = (
    "id", "user_id", "key", "status", "name", "group", "expired_time", "remain_quota", "used_quota",
    "unlimited_quota", "model_limits_enabled", "model_limits", "allow_ips",
)  # fmt: skip
_NOTHING: Final = ("",)  # model limits that are on and empty: a name that no request has


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A client key as the database knows it.

    `digest` SHA-256 of the key without `sk-`; `group` "" for the user's own; `expired_time` unix seconds or -1;
    `remain_quota` units at the time of reading. An unlimited key has no balance of its own, its user may have.
    """

    id: int
    user_id: int
    digest: bytes
    name: str
    status: int
    group: str
    models: tuple[str, ...]
    allow_ips: tuple[str, ...]
    expired_time: int
    unlimited: bool
    remain_quota: int
    user_status: int
    user_group: str
    user_limited: bool
    used_quota: int = 0
    username: str = ""
    user_role: int = 1
    yaml: bool = False


class YamlToken(msgspec.Struct, frozen=True, kw_only=True):
    """A key that YAML names. `text` is the key without `sk-`, where the file holds it; `quota` None: unlimited."""

    digest: bytes
    name: str
    group: str
    quota: int | None = None
    enabled: bool = True
    text: str | None = None


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a key made on the command line may do; `quota` None: unlimited."""

    name: str
    quota: int | None = None
    group: str = ""
    models: tuple[str, ...] = ()
    expired_time: int = NEVER


def digest(key: str) -> bytes:
    """SHA-256 of a key; `sk-` in front is no part of it."""
    return sha256(key.removeprefix("sk-").encode()).digest()


def sealed(digest: bytes) -> str:
    """A digest in a form that fits the inherited 48-character column."""
    return "$" + urlsafe_b64encode(digest).decode().rstrip("=")


def load(conn: Connection) -> list[TokenRow]:
    """Every key that is not deleted and not YAML's own; disabled, expired and exhausted ones too."""
    return [row for row in everything(conn) if not row.yaml]


def find(conn: Connection, name_or_id: str) -> list[TokenRow]:
    """Keys with this id, else with this name."""
    rows = everything(conn)
    return [row for row in rows if str(row.id) == name_or_id] or [row for row in rows if row.name == name_or_id]


def everything(conn: Connection) -> list[TokenRow]:
    """Every key that is not deleted, YAML's too."""
    return _found(conn, tokens.c.deleted_at.is_(None))


def _found(conn: Connection, wanted: ColumnElement[bool]) -> list[TokenRow]:
    asked = (
        select(
            *(tokens.c[name] for name in _READ),
            user_table.c.username,
            user_table.c.role.label("user_role"),
            case((user_table.c.deleted_at.is_(None), user_table.c.status)).label("user_status"),
            user_table.c.group.label("user_group"),
            proxy_tokens.c.yaml,
            *older(conn, tokens, "models", "subnet"),
        )
        .select_from(
            tokens.outerjoin(user_table, user_table.c.id == tokens.c.user_id).outerjoin(
                proxy_tokens, proxy_tokens.c.token_id == tokens.c.id
            )
        )
        .where(wanted)
        .order_by(tokens.c.id)
    )
    return [_row(found) for found in conn.execute(asked).mappings()]


def _row(found: RowMapping) -> TokenRow:
    key = words(found["key"])  # char(48) is padded with blanks on PostgreSQL
    username = words(found["username"])
    return TokenRow(
        id=found["id"],
        user_id=number(found["user_id"]),
        digest=_opened(key),
        name=words(found["name"]),
        status=number(found["status"], ENABLED),
        group=words(found["group"]),
        models=_models(found),
        allow_ips=addresses(f"{words(found['allow_ips'])} {words(found.get('older_subnet'))}"),
        expired_time=number(found["expired_time"], NEVER),
        unlimited=truth(found["unlimited_quota"]),
        remain_quota=number(found["remain_quota"]),
        user_status=number(found["user_status"]),  # a user that is gone is not enabled
        user_group=words(found["user_group"]) or "default",
        user_limited=username != users.SYSTEM,
        used_quota=number(found["used_quota"]),
        username=username,
        user_role=number(found["user_role"], 1),
        yaml=truth(found["yaml"]),
    )


def _opened(key: str) -> bytes:
    """The digest of a stored key: decoded where it is one, computed where it is text."""
    if key.startswith("$") and len(key) == 44:
        return urlsafe_b64decode(key[1:] + "=")
    return digest(key)


def _models(found: RowMapping) -> tuple[str, ...]:
    if truth(found["model_limits_enabled"]):
        return names(found["model_limits"]) or _NOTHING
    return names(found.get("older_models"))


def ensure(conn: Connection, wanted: Sequence[YamlToken], at: int, at_rest: AtRest = "digest") -> dict[bytes, TokenRow]:
    """Rows for YAML's keys by digest, made where they are missing; `at` unix seconds.

    A `quota:` that has changed moves the balance by the difference, as far as it reaches; one that appears grants the
    whole amount. Keys that YAML names no more keep their rows, but `load` does not give them out.
    """
    owner = users.ensure_system(conn, at)
    ours = and_(tokens.c.deleted_at.is_(None), proxy_tokens.c.yaml)
    known = {row.digest: row for row in _found(conn, ours)}
    declared = _declared(conn)
    changed = False
    for one in wanted:
        row = known.get(one.digest)
        if row is None:
            _insert(conn, one, owner, at, at_rest)
            changed = True
        else:
            changed |= _follow(conn, one, row, declared.get(row.id))
    if changed:
        known = {row.digest: row for row in _found(conn, ours)}
    return {one.digest: known[one.digest] for one in wanted}


def _declared(conn: Connection) -> dict[int, int | None]:
    """The `quota:` of YAML's keys as it was when they were last followed, by row: one query for all of them."""
    asked = select(proxy_tokens.c.token_id, proxy_tokens.c.declared).where(proxy_tokens.c.yaml)
    return {id: amount for id, amount in conn.execute(asked)}


def _insert(conn: Connection, one: YamlToken, owner: int, at: int, at_rest: AtRest) -> None:
    key = sealed(one.digest)
    if at_rest == "text" and one.text:
        taken = conn.execute(select(tokens.c.id).where(tokens.c.key == one.text)).first()
        key = one.text if taken is None else key  # an inherited row has the key: both serve, YAML wins
    _add(
        conn,
        {
            "user_id": owner,
            "key": key,
            "status": ENABLED if one.enabled else DISABLED,
            "name": one.name[:_NAME],
            "created_time": at,
            "accessed_time": at,
            "remain_quota": one.quota or 0,
            "unlimited_quota": one.quota is None,
            "group": one.group,
        },
        yaml=True,
        digest=one.digest,
        declared=one.quota,
    )


def _add(conn: Connection, values: Mapping[str, Any], *, yaml: bool, digest: bytes, declared: int | None) -> int:
    id = made(conn, insert(tokens).values(**values))
    conn.execute(
        insert(proxy_tokens).values(
            token_id=id, digest=sealed(digest), yaml=yaml, declared=declared, granted=values["remain_quota"]
        )
    )
    return id


def _follow(conn: Connection, one: YamlToken, row: TokenRow, declared: int | None) -> bool:
    """Brings a row to what the file says now; whether it did not say so before."""
    status = ENABLED if one.enabled else DISABLED
    changed = False
    if (row.name, row.group, row.status) != (one.name[:_NAME], one.group, status):
        conn.execute(
            update(tokens).where(tokens.c.id == row.id).values(name=one.name[:_NAME], group=one.group, status=status)
        )
        changed = True
    if row.unlimited != (one.quota is None):
        conn.execute(update(tokens).where(tokens.c.id == row.id).values(unlimited_quota=one.quota is None))
        changed = True
    if one.quota is None or one.quota == declared:
        return changed
    if row.unlimited or declared is None:  # a first amount: it counts from now on
        moved = grant(conn, row.id, one.quota - balance(conn, row.id))
        declared = one.quota
    else:
        moved = grant(conn, row.id, one.quota - declared)
        declared += moved
    conn.execute(update(proxy_tokens).where(proxy_tokens.c.token_id == row.id).values(declared=declared))
    return True


def grant(conn: Connection, id: int, units: int) -> int:
    """Puts units on a key's balance, or takes them off as far as it reaches; the units moved."""
    if units < 0:
        units = -min(-units, max(0, balance(conn, id)))
    moved = conn.execute(
        update(tokens)
        .where(tokens.c.id == id, func.coalesce(tokens.c.remain_quota, 0) + units >= min(0, units))
        .values(remain_quota=func.coalesce(tokens.c.remain_quota, 0) + units)
    ).rowcount
    if not moved:
        return 0
    conn.execute(
        update(proxy_tokens)
        .where(proxy_tokens.c.token_id == id)
        .values(granted=func.coalesce(proxy_tokens.c.granted, 0) + units)
    )
    return units


def balance(conn: Connection, id: int) -> int:
    """What a key has left, in units; 0 for one that does not exist. Locks the row where the engine can."""
    return number(conn.execute(select(tokens.c.remain_quota).where(tokens.c.id == id).with_for_update()).scalar())


def add(conn: Connection, new: NewToken, at: int, at_rest: AtRest = "digest") -> tuple[int, str]:
    """Makes a key; its row's id, and the key as the client sends it: shown once, as the database keeps a digest."""
    key = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    id = _add(
        conn,
        {
            "user_id": users.ensure_system(conn, at),
            "key": key if at_rest == "text" else sealed(digest(key)),
            "status": ENABLED,
            "name": new.name[:_NAME],
            "created_time": at,
            "accessed_time": at,
            "expired_time": new.expired_time,
            "remain_quota": new.quota or 0,
            "unlimited_quota": new.quota is None,
            "model_limits_enabled": bool(new.models),
            "model_limits": ",".join(new.models),
            "allow_ips": "",
            "group": new.group,
        },
        yaml=False,
        digest=digest(key),
        declared=None,
    )
    return id, f"sk-{key}"


def set_status(conn: Connection, id: int, status: int) -> bool:
    """Enables or disables a key; whether there is such a key."""
    return conn.execute(update(tokens).where(_alive(id)).values(status=status)).rowcount > 0


def remove(conn: Connection, id: int, at: int) -> bool:
    """Deletes a key softly, as New API does: its spend stays; whether there was such a key."""
    when = datetime.fromtimestamp(at, UTC)
    return conn.execute(update(tokens).where(_alive(id)).values(deleted_at=when)).rowcount > 0


def _alive(id: int) -> Any:
    return and_(tokens.c.id == id, tokens.c.deleted_at.is_(None))

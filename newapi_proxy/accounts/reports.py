"""What the holder of a key may know of it: balance, use, limits, last calls. Nothing of any other key.

Functions of a connection and the key; they read and answer in New API's shapes. Must not know HTTP. Sources:
tasks-and-accounts §5, relay-and-billing §1.3, demand B9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from newapi_proxy.billing import budgets, ledger
from newapi_proxy.billing.prices import UNITS_PER_USD
from newapi_proxy.snapshot import Token
from newapi_proxy.store import logs, options, standing
from newapi_proxy.wire import tree

Windows = Sequence[budgets.Window]

MOST_CALLS: Final = 1000
UNLIMITED: Final = 100_000_000  # the number that clients print as "no limit"
CENTS: Final = 100
_HIDDEN: Final = "admin_info"  # which channels were tried: the operator's business


class Purse(msgspec.Struct, frozen=True, kw_only=True):
    """Units that a key or an account has left and has used. What running requests hold counts as used, as in New API:
    so the sum of both moves only when somebody puts something in."""

    left: int
    used: int
    unlimited: bool
    expires: int


def subscription(conn: Connection, token: Token, _: Windows) -> dict[str, Any]:
    """The limit of the key, in USD unless an option says units."""
    purse = _shown(conn, token)
    limit = UNLIMITED if purse.unlimited else (purse.left + purse.used) / _unit(conn)
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": limit,
        "hard_limit_usd": limit,
        "system_hard_limit_usd": limit,
        "access_until": purse.expires,
    }


def usage(conn: Connection, token: Token, _: Windows) -> dict[str, Any]:
    """What the key has used in all its life, in cents unless an option says units."""
    return {"object": "list", "total_usage": _shown(conn, token).used * CENTS / _unit(conn)}


def token_usage(conn: Connection, token: Token, windows: Windows) -> dict[str, Any]:
    """The same in units, with what else binds the key; `windows` are those of its budgets that hold the moment."""
    purse = _purse(conn, token)
    data: dict[str, Any] = {
        "object": "token_usage",
        "name": token.name,
        "total_granted": purse.left + purse.used,
        "total_used": purse.used,
        "total_available": purse.left,
        "unlimited_quota": purse.unlimited,
        "model_limits": {model: True for model in token.models if model},
        "model_limits_enabled": bool(token.models),
        "expires_at": purse.expires,
    }
    if windows:
        id = token.account.token_id
        counted = budgets.everything(conn, id)
        data["budgets"] = [_budget(one, counted.get((id, one.every, one.starts), 0)) for one in windows]
    return {"code": True, "message": "ok", "data": data}


def _budget(window: budgets.Window, used: int) -> dict[str, Any]:
    """What New API has not: an allowance that comes back."""
    left = max(0, window.amount - used)
    return {"every": window.every, "amount": window.amount, "used": used, "left": left, "resets_at": window.ends}


def calls(conn: Connection, token: Token, _: Windows) -> dict[str, Any]:
    """The key's newest log rows, oldest first, without what concerns the operator only; `id` is the place among them,
    because the row's own would tell how busy the service is."""
    rows = logs.newest(conn, token.account.token_id, MOST_CALLS)
    return {"success": True, "message": "", "data": [_told(place, row) for place, row in enumerate(rows, start=1)]}


def nothing() -> dict[str, Any]:
    """The calls of a key that nobody has."""
    return {"success": True, "message": "", "data": []}


def _told(place: int, row: logs.Entry) -> dict[str, Any]:
    return {
        "id": place,
        "created_at": row.created_at,
        "type": row.type,
        "content": row.content,
        "username": row.username,
        "token_name": row.token_name,
        "model_name": row.model_name,
        "quota": row.quota,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "use_time": row.use_time,
        "is_stream": row.is_stream,
        "token_id": row.token_id,
        "group": row.group,
        "request_id": row.request_id,
        "other": _open(row.other),
    }


def _open(other: str) -> str:
    """The row's facts without the operator's; a text that cannot be read might hold them, so nothing of it is told."""
    if _HIDDEN not in other:
        return other
    facts = tree.lenient(other.encode())
    if not isinstance(facts, dict):
        return ""
    return tree.dumps({name: value for name, value in facts.items() if name != _HIDDEN})


def _shown(conn: Connection, token: Token) -> Purse:
    """The key's purse, or its account's where New API's option says so; the account that owns the file's keys is
    nobody's, so those keys always answer for themselves."""
    account = token.account
    if not account.user_limited or options.flag(conn, "DisplayTokenStatEnabled", True):
        return _purse(conn, token)
    left, used = standing.of_account(conn, account.user_id)
    held = ledger.held(conn, "user", account.user_id)
    return Purse(left=left, used=used + held, unlimited=False, expires=0)


def _purse(conn: Connection, token: Token) -> Purse:
    account = token.account
    left, used = standing.of_key(conn, account.token_id)
    if account.token_limited:
        used += ledger.held(conn, "token", account.token_id)
    return Purse(left=left, used=used, unlimited=not account.token_limited, expires=token.expires or 0)


def _unit(conn: Connection) -> int:
    """Units in what is shown as 1."""
    return UNITS_PER_USD if options.flag(conn, "DisplayInCurrencyEnabled", True) else 1

"""Every text of the pages, so that another language could come: a table, and the figures in words.

Knows no page. `{name}` in a text is filled in by whoever says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from newapi_proxy.billing.charge import usd

WORDS: Final[Mapping[str, str]] = {
    # the frame
    "sign_in": "Sign in",
    "sign_out": "Sign out",
    "nav_usage": "Usage",
    "nav_topup": "Top up",
    "nav_setting": "Account",
    "nav_dashboard": "Dashboard",
    "nav_label": "Pages",
    "signed_in_as": "Signed in as {name}",
    "operator": "the operator",
    "back": "Back",
    "error_title": "That did not work",
    "error_status": "Status {status}",
    "error_request": "Request {id}",
    "error_database": "The database does not answer at the moment. Please try again in a little while.",
    "error_no_page": "There is no such page here.",
    "error_not_yours": "This page is for the operator of this service.",
    "error_origin": "This form was not sent from a page of this service, so nothing was done. Please open the page anew"
    " and try again. (If you run this service: a proxy in front must pass the Host header on, or public_url must be"
    " set.)",
    "error_often": "Too many requests came from your address. Please wait {seconds} seconds.",
    # signing in
    "sign_in_lead": "Enter the API key that you use, to see what it has left and what it was used for.",
    "key": "API key",
    "key_hint": "The key itself, such as sk-… It is checked, and not kept in a cookie.",
    "other_ways": "Other ways",
    "sign_in_key_missing": "Please enter a key.",
    "sign_in_unknown": "This key is not known here, or it is disabled.",
    "sign_in_expired": "This key has expired.",
    "signed_out": "You are signed out.",
    "session_over": "Your session has ended. Please sign in again.",
    # signing in by an account elsewhere
    "way_in": "Sign in with {name}",
    "way_title": "Sign in with {name}",
    "way_lead": "Press the button to let {name} say who you are. Your account must be tied to a key here before.",
    "bind_lead": "Press the button to let {name} say which account shall sign you in from now on.",
    "widget_script": "This button is {name}'s own and needs JavaScript. Sign in with your key instead.",
    "way_garbled": "What came back could not be believed. Please try again.",
    "way_stale": "That took too long, or the answer was used already. Please try again.",
    "way_unbound": "This {name} account is tied to no key here. Sign in with your key first, and tie it then.",
    "way_banned": "This account is disabled.",
    "way_taken": "This {name} account signs in somebody already.",
    "setting_title": "How you sign in",
    "bound_to": "The {name} account {id} signs you in.",
    "bound_to_none": "No {name} account signs you in yet.",
    "bind": "Tie a {name} account",
    "unbind": "Untie the {name} account",
    "said_bound": "The account is tied: it signs you in from now on.",
    "said_unbound": "The account is untied.",
    # a key
    "your_key": "Your key",
    "your_keys": "Your keys",
    "balance": "Balance",
    "unlimited": "no limit",
    "left_of": "{left} left",
    "used": "Used",
    "account_balance": "Balance of the account",
    "account_used": "Used by the account",
    "group": "Group",
    "group_ratio": "{group} (prices × {ratio})",
    "expires": "Expires",
    "expires_never": "never",
    "state": "State",
    "state_active": "active",
    "state_drained": "used up",
    "state_expired": "expired",
    "state_disabled": "disabled",
    "limits": "Limits",
    "limit_concurrency": "{most} at the same time",
    "limit_rpm": "{most} requests a minute",
    "limit_rpd": "{most} requests a day",
    "limit_tpm": "{most} tokens a minute",
    "limit_of_group": "{limit}, for the whole group",
    "addresses": "Addresses",
    "budgets": "Budgets",
    "budget": "Budget",
    "every_day": "a day",
    "every_week": "a week",
    "every_month": "a month",
    "budget_amount": "{amount} {every}",
    "budget_resets": "Begins anew",
    "budget_left": "Left",
    # usage
    "usage": "Usage",
    "period": "Period",
    "days_1": "Today",
    "days_7": "7 days",
    "days_30": "30 days",
    "days_90": "90 days",
    "usage_chart": "Spending per day and model, USD. Total: {total}.",
    "usage_none": "Nothing was used in this time.",
    "usage_table": "By day and model",
    "others": "all others",
    "day": "Day",
    "model": "Model",
    "requests": "Requests",
    "prompt_tokens": "Input tokens",
    "completion_tokens": "Output tokens",
    "amount": "Amount",
    "total": "Total",
    "download": "Download as CSV",
    "last_requests": "Requests",
    "last_requests_lead": "The newest first; times are of {zone}.",
    "requests_none": "There are no requests yet.",
    "time": "Time",
    "request": "Request",
    "key_name": "Key",
    "tokens_in_out": "Tokens in / out",
    "newer": "Newer",
    "older": "Older",
    "kind_1": "top-up",
    "kind_3": "note",
    "kind_4": "note",
    "kind_6": "refund",
    # models
    "models": "Models and prices",
    "models_lead": "What this key may use, and what it costs you in USD.",
    "models_lead_units": "Input and output: per million tokens.",
    "models_none": "This key reaches no model at the moment.",
    "models_patterns": "Models by pattern are not listed.",
    "price_input": "Input",
    "price_output": "Output",
    "price_cache": "Cached input",
    "price_other": "Other",
    "price_above": "prompts above {tokens} tokens: {rates}",
    "price_per": "${amount} per {unit}",
    "price_none": "no price",
    # one request
    "request_title": "One request",
    "request_gone": "This request is not known, or its details are no longer kept.",
    "request_free": "Nothing was charged for it.",
    "explained": "How the amount came about",
    "attempts": "Attempts",
    "attempt_channel": "Channel",
    "attempt_status": "Status",
    "attempt_error": "Error",
    "attempt_ms": "ms",
    # dashboard
    "dashboard": "Dashboard",
    "spent": "Spent",
    "by_token": "By key",
    "by_model": "By model",
    "by_channel": "By channel",
    "by_day": "By day",
    "token": "Key",
    "channel": "Channel",
    "channels": "Channels",
    "channels_none": "There are no channels.",
    "channel_state": "State now",
    "channel_closed": "serves",
    "channel_off": "switched off",
    "channel_priority": "Priority",
    "channel_models": "Models",
    "channel_errors": "Failed attempts since the start",
    "channel_ok": "Good attempts since the start",
    "channel_reason": "Last reason",
    "holds": "Open holds",
    "holds_lead": "Held for requests that run now: {count}, {amount} in all.",
    "holds_none": "No request is being served at the moment.",
    "since": "Since",
    "running": "Requests being served",
    "bugs": "Bugs",
    "reload_ok": "Last reload",
    "reload_good": "taken",
    "reload_bad": "refused: the log says why",
    "nobody": "(none)",
    "request_search": "Look up a request by its id",
    "show": "Show",
    "more_rows": "{count} more rows: newapi-proxy usage lists them all.",
}


def say(key: str, **given: Any) -> str:
    """The text of that name, filled in."""
    text = WORDS[key]
    return text.format(**given) if given else text


def money(units: int) -> str:
    """Quota units as USD: two digits at least, six where they say something."""
    text = usd(abs(units)).rstrip("0")
    whole, _, rest = text.partition(".")
    return f"{'−' if units < 0 else ''}${int(whole):,}.{rest:0<2}"


def moment(at: int, zone: ZoneInfo) -> str:
    """Unix seconds in the zone, to the second."""
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M:%S")


def number(count: int) -> str:
    """A count with marks between its thousands."""
    return f"{count:,}"

"""The Suno API gateway, or another New API, as upstream: submissions and lists of tasks. Pure.

Source: tasks-and-accounts 2.3, 2.7, 2.8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from newapi_proxy.adapters._failures import scrubbed
from newapi_proxy.adapters._tasks import Tasks, Terms
from newapi_proxy.adapters.base import Adapter, Options, Outgoing, Target
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.task import FAILURE, Form, Submitted, Update
from newapi_proxy.wire import tree

PATIENCE: Final = 180.0  # lyrics are answered when they are done
LONGEST: Final = 1024  # characters of upstream's words about a failure
_LOST: Final = frozenset({401, 402, 403})
_ADDRESSES: Final = re.compile(r"post|dial|http", re.IGNORECASE)  # words of a Go client that failed to reach its own


class SunoOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`deadline`: seconds after which a task has failed."""

    deadline: Annotated[float, msgspec.Meta(gt=0)] = 86400.0


def _terms(options: SunoOptions) -> Terms:
    return Terms(deadline=options.deadline)


def _headers(to: Target) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "accept": "application/json",
        "authorization": f"Bearer {to.key.reveal()}",
    }


def _submit(form: Form, to: Target) -> Outgoing:
    return Outgoing(url=f"{to.base_url}{form.path}", body=dict(form.body), headers=_headers(to))


def _submitted(form: Form, status: int, body: bytes) -> Submitted:
    if status != 200:
        raise _failure(status, body)
    found = tree.lenient(body)
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        raise UpstreamFailure(
            "The upstream's answer cannot be read.",
            status=500,
            code="unmarshal_response_body_failed",
            upstream_status=status,
        )
    code, task_id = found["code"], found.get("data")
    if code != "success" or not isinstance(task_id, str) or not task_id:
        bad = code == "invalid_request"
        raise UpstreamFailure(
            _told(found.get("message")) or "The upstream refused the task.",
            status=500,
            kind="bad_request" if bad else "upstream",
            code=code if code != "success" else "unmarshal_response_body_failed",
            upstream_status=status,
            blames="nobody" if bad else "channel",
        )
    return Submitted(
        accepted=True, task_id=task_id, status=200, reply=body, first=Update(status="NOT_START", progress="0%")
    )


def _failure(status: int, body: bytes) -> UpstreamFailure:
    lost, busy = status in _LOST, status == 429
    message = _told(body.decode("utf-8", "replace")) or f"The upstream answers with status {status}."
    if lost:
        message = "The channel's account cannot be used at the moment."
    elif busy:
        message = "The group's upstream is saturated: try again later."
    return UpstreamFailure(
        message,
        status=502 if lost or not 400 <= status < 600 else status,
        kind="upstream_auth" if lost else "rate_limit" if busy else "upstream",
        code="upstream_credentials" if lost else "fail_to_fetch_task",
        upstream_status=status,
        blames="key" if lost or busy else "nobody" if status in (400, 408) else "channel",
    )


def _told(message: Any) -> str:
    """Upstream's words for a client: none that name the addresses behind it (tasks-and-accounts 2.3)."""
    if not isinstance(message, str):
        return ""
    words = message[: 4 * LONGEST]
    return "The upstream cannot be reached." if _ADDRESSES.search(words) else scrubbed(message, LONGEST)


def _poll(ids: Sequence[str], to: Target) -> Outgoing:
    return Outgoing(url=f"{to.base_url}/suno/fetch", body=tree.encode({"ids": list(ids)}), headers=_headers(to))


def _polled(status: int, body: bytes) -> list[Update] | None:
    found = tree.lenient(body) if status == 200 else None
    if not isinstance(found, dict) or found.get("code") != "success":
        return None
    items = found.get("data")
    if not isinstance(items, list):
        return [] if items is None else None
    return [_update(item) for item in items if isinstance(item, dict) and isinstance(item.get("task_id"), str)]


def _update(item: Mapping[str, Any]) -> Update:
    """One task of a list; what is empty says nothing, and whatever has a reason for failing has failed."""
    reason = _text(item.get("fail_reason"))
    data = item.get("data")
    return Update(
        task_id=item["task_id"],
        status=FAILURE if reason else _text(item.get("status")),
        fail_reason=_told(reason) or None if reason else None,
        start_time=_time(item.get("start_time")),
        finish_time=_time(item.get("finish_time")),
        data=tree.dumps(data) if data is not None else None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1e12 else None


ADAPTER: Final = Adapter(
    name="suno",
    numbers=(36,),
    options=SunoOptions,
    tasks=Tasks(
        platform="suno",
        shelf="tasks",
        ticks=1,
        patience=PATIENCE,
        terms=_terms,
        submit=_submit,
        submitted=_submitted,
        poll=_poll,
        polled=_polled,
        again=True,
    ),
    owner="suno",
)

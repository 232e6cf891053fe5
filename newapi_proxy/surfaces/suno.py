"""The Suno API as clients know it: submissions read, tasks and refusals written. Pure.

Source: tasks-and-accounts 2.1 to 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from newapi_proxy.errors import ClientError, ProxyError
from newapi_proxy.ir.task import Form, Reason, Task
from newapi_proxy.wire import tree

PLATFORM: Final = "suno"
DEFAULT_MODEL: Final = "chirp-v3-0"
LONGEST_ID: Final = 191
MOST_IDS: Final = 1000
ACTIONS: Final = frozenset({"MUSIC", "LYRICS", "CONCAT"})
_TEXTS: Final = (
    "gpt_description_prompt", "prompt", "mv", "title", "tags", "continue_clip_id", "task_id", "clip_id",
)  # fmt: skip


def read(action: str, data: bytes) -> Form:
    """The submission of an action, in any case. Raises ClientError."""
    action = action.upper()
    if action not in ACTIONS:
        raise _refused("invalid_request", "invalid_action")
    body = _body(data)
    origin, piece = body.get("task_id", ""), ""
    if action == "LYRICS" and not body.get("prompt"):
        raise _refused("invalid_request", "prompt_empty")
    if action == "CONCAT":
        piece = body.get("clip_id", "")
        if not piece:
            raise _refused("invalid_request", "clip id is empty")
    elif body.get("continue_clip_id"):
        if not origin:
            raise _refused("invalid_request", "task id is empty")
    else:
        origin = ""  # only a continuation follows
    if action == "MUSIC":
        body = {"mv": DEFAULT_MODEL, **body}
    return Form(
        action=action,
        model=f"suno_{action.lower()}",
        path=f"/suno/submit/{action}",
        body=body,
        origin=origin,
        piece="" if origin else piece,
        prompt=body.get("prompt") or body.get("gpt_description_prompt") or "",
        early=True,
    )


def _body(data: bytes) -> dict[str, Any]:
    """What the format has fields for, without what is empty; what it has none for is left out."""
    try:
        given = tree.read(data)
    except ClientError as error:
        raise _refused("invalid_request", error.message) from None
    body: dict[str, Any] = {}
    for name in _TEXTS:
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            raise _refused("invalid_request", f"{name} must be a string")
        if value:
            body[name] = value
    at = given.get("continue_at")
    if at is not None and type(at) not in (int, float):
        raise _refused("invalid_request", "continue_at must be a number")
    if at:
        body["continue_at"] = at
    for name, always in (("make_instrumental", True), ("is_infill", False)):
        flag = given.get(name)
        if flag is not None and not isinstance(flag, bool):
            raise _refused("invalid_request", f"{name} must be true or false")
        if flag or always:
            body[name] = bool(flag)
    return body


def ids(data: bytes) -> list[str]:
    """The ids of a list request. Raises ClientError."""
    try:
        found = tree.read(data).get("ids") or []
    except ClientError as error:
        raise _refused("invalid_request", error.message) from None
    if not isinstance(found, list) or len(found) > MOST_IDS:
        raise _refused("invalid_request", f"ids must be a list of at most {MOST_IDS}")
    return [one for one in found if isinstance(one, str) and len(one) <= LONGEST_ID]


def task(one: Task) -> dict[str, Any]:
    """A task as clients get it; times in seconds."""
    return {
        "task_id": one.task_id,
        "action": one.action,
        "status": one.status,
        "fail_reason": one.fail_reason,
        "submit_time": one.submit_time,
        "start_time": one.start_time,
        "finish_time": one.finish_time,
        "progress": one.progress,
        "data": tree.lenient(one.data.encode()) if one.data else None,
    }


def envelope(data: Any) -> bytes:
    """A good answer."""
    return tree.encode({"code": "success", "message": "", "data": data})


def _refused(code: str, message: str, status: int = 400) -> ClientError:
    return ClientError(message, status=status, type="upstream_error", code=code)


_REASONS: Final[Mapping[Reason, tuple[str, str, int]]] = {
    "no_origin": ("task_not_exist", "task_origin_not_exist", 400),
    "unfinished_origin": ("task_not_exist", "task_origin_not_exist", 400),
    "no_channel": ("channel_not_found", "channel_not_found", 400),
    "disabled_channel": ("task_channel_disable", "The channel of this task is disabled.", 400),
    "quota": ("quota_not_enough", "user quota is not enough", 403),
    "unreachable": ("do_request_failed", "The upstream cannot be reached.", 500),
    "no_task": ("task_not_exist", "task_not_exist", 400),
}


def refusal(reason: Reason) -> ClientError:
    """The refusal in this format's words."""
    return _refused(*_REASONS[reason])


def failure(error: ProxyError, request_id: str) -> bytes:
    """The body of a refusal or a failure."""
    return tree.encode({"code": str(error.code or error.type), "message": error.message, "data": None})

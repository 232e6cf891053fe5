"""Midjourney-Proxy as clients know it: submissions read, tasks and refusals written. Pure.

Knows the actions, what each must bring, and which model each one is; nothing of channels or prices. The words in
descriptions are what clients match on. Source: tasks-and-accounts 1.1 to 1.7, 1.13.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from newapi_proxy.errors import ClientError, ProxyError
from newapi_proxy.ir.task import SUCCESS, Form, Reason, Task
from newapi_proxy.wire import tree

PLATFORM: Final = "mj"
INVALID, UNKNOWN = 4, 5  # codes of refusals: the request, everything else
MODE: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
LONGEST_ID: Final = 191
MOST_IDS: Final = 1000
_ECHOED: Final = 200  # characters of a customId that a refusal repeats
_TEXTS: Final = (
    "prompt", "taskId", "customId", "action", "content", "base64", "link", "state", "notifyHook", "sourceBase64",
    "targetBase64", "maskBase64", "botType", "dimensions", "language", "motion", "image",
)  # fmt: skip
_OPENING: Final = frozenset({"INPAINT", "CUSTOM_ZOOM"})
_CHANGES: Final = frozenset({"UPSCALE", "VARIATION", "REROLL"})
_SIMPLE: Final = re.compile(r"(\S{1,191}) (?:([uUvV])([1-4])|[rR])")
Body = dict[str, Any]


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A route's kind: a fixed `action` with the fields it `needs`, or one that is found in the body."""

    action: str = ""
    needs: tuple[str, ...] = ()
    lack: str = ""
    read: Callable[[Body], tuple[str, str]] | None = None  # action and origin of a follow-up


def _refused(description: str, code: int = INVALID, status: int = 400) -> ClientError:
    """A refusal of the submission itself; the blank is where upstream's result stands, and clients know it there."""
    return ClientError(f"{description} ", status=status, type="upstream_error", code=code)


def _unreadable(description: str) -> ClientError:
    """A refusal from before the action was known."""
    return ClientError(description, code=INVALID)


def _change(body: Body) -> tuple[str, str]:
    origin, action, index = body.get("taskId", ""), body.get("action", "").upper(), body.get("index", 0)
    if not origin:
        raise _refused("task_id_is_required")
    if not action:
        raise _refused("action_is_required")
    if action not in _CHANGES:
        raise _refused(f"unknown_action:{action[:_ECHOED]}")
    if type(index) is not int or (action != "REROLL" and not 1 <= index <= 4):
        raise _refused("index_is_required")
    return action, origin


def _simple_change(body: Body) -> tuple[str, str]:
    content = body.get("content", "")
    if not content:
        raise _refused("content_is_required")
    found = _SIMPLE.fullmatch(content)
    if found is None:
        raise _unreadable("content_parse_failed")
    letter = (found[2] or "").lower()
    return {"u": "UPSCALE", "v": "VARIATION", "": "REROLL"}[letter], found[1]


def _action(body: Body) -> tuple[str, str]:
    action, origin = parsed(body.get("customId", "")), body.get("taskId", "")
    if not origin:
        raise _refused("task_id_is_required")
    return action, origin


def _modal(body: Body) -> tuple[str, str]:
    origin = body.get("taskId", "")
    if not origin:
        raise _refused("task_id_is_required")
    return "MODAL", origin


def _video(body: Body) -> tuple[str, str]:
    return "VIDEO", body.get("taskId", "")


SUBMISSIONS: Final[Mapping[str, Submission]] = {  # path below the prefix → what is submitted there
    "/submit/imagine": Submission(action="IMAGINE", needs=("prompt",), lack="prompt_is_required"),
    "/submit/change": Submission(read=_change),
    "/submit/simple-change": Submission(read=_simple_change),
    "/submit/describe": Submission(action="DESCRIBE"),
    "/submit/blend": Submission(action="BLEND"),
    "/submit/action": Submission(read=_action),
    "/submit/modal": Submission(read=_modal),
    "/submit/shorten": Submission(action="SHORTEN", needs=("prompt",), lack="prompt_is_required"),
    "/submit/upload-discord-images": Submission(action="UPLOAD"),
    "/submit/edits": Submission(action="EDITS", needs=("prompt",), lack="prompt_is_required"),
    "/submit/video": Submission(read=_video),
    "/insight-face/swap": Submission(
        action="SWAP_FACE",
        needs=("sourceBase64", "targetBase64"),
        lack="sour_base64_and_target_base64_is_required",  # spelled so
    ),
}


def read(path: str, data: bytes, mode: str = "") -> Form:
    """The submission at a path of SUBMISSIONS; `mode`: what stood before `/mj`. Raises ClientError."""
    kind = SUBMISSIONS[path]
    body = _body(data)
    origin = ""
    if kind.read is not None:
        action, origin = kind.read(body)
    else:
        action = kind.action
        if not all(body.get(name) for name in kind.needs):
            raise _refused(kind.lack)
    return Form(
        action=action,
        model=model(action),
        path=f"/mj{path}",
        body=body,
        origin=origin,
        prompt="InsightFace" if action == "SWAP_FACE" else body.get("prompt") or "",
        state=body.get("state") or "",
        mode=mode,
        early=action == "MODAL",
        opens=action in _OPENING,
    )


def _body(data: bytes) -> Body:
    try:
        body = tree.read(data)
    except ClientError:
        raise _unreadable("bind_request_body_failed") from None
    texts = all(isinstance(body.get(name) or "", str) for name in _TEXTS)
    pictures = body.get("base64Array") or []
    if not texts or not isinstance(pictures, list) or not all(isinstance(one, str) for one in pictures):
        raise _unreadable("bind_request_body_failed")
    return {name: value for name, value in body.items() if value is not None or name not in _TEXTS}


def parsed(custom_id: str) -> str:
    """The action of a button. Raises ClientError for a button that means none."""
    if not custom_id:
        raise _refused("custom_id_is_required")
    parts = custom_id.split("::")
    key = "".join(parts[2:3] if parts[1:2] == ["JOB"] else parts[1:2])
    for fits, action, indexed in _BUTTONS:
        if fits(key):
            if indexed and not "".join(parts[3:4]).isdecimal():
                raise _unreadable("index_parse_failed")
            if action:
                return action
            break
    raise _unreadable(f"unknown_action:{custom_id[:_ECHOED]}")


_BUTTONS: Final[tuple[tuple[Callable[[str], bool], str, bool], ...]] = (  # what a key looks like, in this order
    (lambda key: "upsample" in key, "UPSCALE", True),
    (lambda key: key == "variation", "VARIATION", True),
    (lambda key: key == "low_variation", "LOW_VARIATION", False),
    (lambda key: key == "high_variation", "HIGH_VARIATION", False),
    (lambda key: "variation" in key, "", False),
    (lambda key: "pan" in key, "PAN", False),
    (lambda key: "reroll" in key, "REROLL", False),
    (lambda key: key == "Outpaint", "ZOOM", False),
    (lambda key: key == "CustomZoom", "CUSTOM_ZOOM", False),
    (lambda key: key == "Inpaint", "INPAINT", False),
    (lambda key: "video" in key or "animate" in key, "VIDEO", False),
)


def model(action: str) -> str:
    """The model that an action is: it chooses the channel and the price."""
    return "swap_face" if action == "SWAP_FACE" else f"mj_{action.lower()}"


def priced(form: Form) -> str:
    """The name under which the client's mode may have a price of its own, "" without one."""
    mode = form.mode.removeprefix("mj-").lower()
    if not mode:
        return ""
    return f"swap_face_{mode}" if form.action == "SWAP_FACE" else f"mj_{mode}_{form.action.lower()}"


def ids(data: bytes) -> list[str]:
    """The ids of a list request. Raises ClientError."""
    try:
        found = tree.read(data).get("ids") or []
    except ClientError:
        raise _refused("do_request_failed") from None
    if not isinstance(found, list) or len(found) > MOST_IDS:
        raise _refused("do_request_failed")
    return [one for one in found if isinstance(one, str) and len(one) <= LONGEST_ID]


def task(one: Task, link: str, now: int) -> dict[str, Any]:
    """A task as clients get it. `link`: the address at which we forward its picture, "" for upstream's own.

    `now`: any number that grows with time; previews carry it, so that nobody caches them.
    """
    picture = one.image_url
    if picture and link:
        picture = link if one.status == SUCCESS else f"{link}?rand={now}"
    return {
        "id": one.task_id,
        "action": one.action,
        "customId": "",
        "botType": "",
        "prompt": one.prompt,
        "promptEn": one.prompt_en,
        "description": one.description,
        "state": one.state,
        "submitTime": one.submit_time,
        "startTime": one.start_time,
        "finishTime": one.finish_time,
        "imageUrl": picture,
        "status": one.status,
        "progress": one.progress,
        "failReason": one.fail_reason,
        "buttons": _json(one.buttons),
        "maskBase64": "",
        "properties": _json(one.properties),
        **({"videoUrl": one.video_url} if one.video_url else {}),
        **({"videoUrls": _json(one.video_urls)} if one.video_urls else {}),
    }


def seed(data: bytes) -> bytes:
    """The answer about a seed, in its four fields. Raises ClientError where it is none."""
    found = tree.lenient(data)
    if not isinstance(found, dict):
        raise _refused("unmarshal_response_body_failed", UNKNOWN)
    return tree.encode({name: found.get(name) for name in ("code", "description", "properties", "result")})


def _json(text: str) -> Any:
    return tree.lenient(text.encode()) if text else None


_REASONS: Final[Mapping[Reason, tuple[str, int]]] = {
    "no_origin": ("task_not_found", INVALID),
    "unfinished_origin": ("task_status_not_success", INVALID),
    "no_channel": ("get_channel_info_failed", INVALID),
    "disabled_channel": ("The channel of this task is disabled.", INVALID),
    "quota": ("quota_not_enough", INVALID),
    "unreachable": ("do_request_failed", UNKNOWN),
    "no_task": ("task_no_found", INVALID),
}


def refusal(reason: Reason) -> ClientError:
    """The refusal in this format's words."""
    return _refused(*_REASONS[reason])


def failure(error: ProxyError, request_id: str) -> bytes:
    """The body of a refusal or a failure."""
    code = error.code if type(error.code) is int else INVALID if error.status < 500 else UNKNOWN
    return tree.encode({"description": error.message, "type": error.type, "code": code})

"""Midjourney-Proxy and Midjourney-Proxy-Plus as upstreams: submissions, their codes, lists of tasks. Pure.

Both speak alike; Plus knows more actions, and a channel lists those that it serves. Source: tasks-and-accounts 1.3,
1.7, 1.9 to 1.11, 1.16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters._tasks import Tasks, Terms
from newapi_proxy.adapters.base import Adapter, Options, Outgoing, Target
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.task import FAILURE, SUCCESS, WHOLE, Form, Submitted, Update
from newapi_proxy.wire import tree

ACCEPTED, EXHAUSTED, EXISTS, QUEUED, SATURATED = 1, 3, 21, 22, 30
TAKEN: Final = frozenset({ACCEPTED, EXISTS, QUEUED})
LONGEST: Final = 1024  # characters of upstream's words about a refusal that are kept
PATIENCE: Final = 60.0
_MODES: Final = ("--fast", "--relax", "--turbo")
_LOST: Final = frozenset({401, 402, 403})


class MidjourneyOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`notify_hook`, `account_filter`: forward what the client sends under these names (MjNotifyEnabled,
    MjAccountFilterEnabled). `clear_modes`: take --fast, --relax, --turbo out of prompts (MjModeClearEnabled).
    `pass_mode`: send the client's /mj-fast and the like on. `check_success`: follow only what succeeded
    (MjActionCheckSuccessEnabled). `forward_images`: pictures through us (MjForwardUrlEnabled); `private_images`: also
    from addresses of our own network. `deadline`: seconds.
    """

    notify_hook: bool = False
    account_filter: bool = False
    clear_modes: bool = False
    pass_mode: bool = False
    check_success: bool = True
    forward_images: bool = True
    private_images: bool = False
    deadline: Annotated[float, msgspec.Meta(gt=0)] = 3600.0


def _terms(options: MidjourneyOptions) -> Terms:
    return Terms(
        deadline=options.deadline,
        origin_done=options.check_success,
        forward_images=options.forward_images,
        private_images=options.private_images,
    )


def _headers(to: Target) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "accept": "application/json",
        "mj-api-secret": to.key.reveal(),
    }


def _submit(form: Form, to: Target) -> Outgoing:
    body = dict(form.body)
    if not to.options.notify_hook:
        body.pop("notifyHook", None)
    if not to.options.account_filter:
        body.pop("accountFilter", None)
    if to.options.clear_modes and isinstance(body.get("prompt"), str):
        for mode in _MODES:
            body["prompt"] = body["prompt"].replace(mode, "")
    passed = form.mode and (to.options.pass_mode or not form.mode.startswith("mj-"))
    return Outgoing(url=f"{to.base_url}{f'/{form.mode}' if passed else ''}{form.path}", body=body, headers=_headers(to))


def _submitted(form: Form, status: int, body: bytes) -> Submitted:
    found = tree.lenient(body)
    if status in _LOST or not body.strip():
        # a wrong secret is answered with an empty body; our clients must not take it for a fault of their own key
        raise _unusable("empty_response_body" if status not in _LOST else "upstream_credentials", status, 502)
    if not isinstance(found, dict) or type(found.get("code")) is not int:
        raise _unusable("unmarshal_response_body_failed", status, 400)
    code: int = found["code"]
    if code == SATURATED:
        raise UpstreamFailure(
            "The group is saturated at the moment: try again later, or ask for a better one.",
            status=429,
            kind="rate_limit",
            code=SATURATED,
            upstream_status=status,
            blames="nobody",
        )
    description = _text(found.get("description"))
    taken = code in TAKEN and not (form.action == "SWAP_FACE" and code == EXISTS)
    return Submitted(
        accepted=taken and status == 200,
        task_id=_id(found.get("result")),
        status=status,
        reply=_reply(form, found, body),
        first=_first(form, found, code, description) if taken else _refused(code, description),
        description=description,
        repeated=code == EXISTS,
        exhausted=code == EXHAUSTED and not form.origin,
    )


def _unusable(what: str, upstream_status: int, status: int) -> UpstreamFailure:
    return UpstreamFailure(
        f"{what} ",
        status=status,
        kind="upstream_auth" if upstream_status in _LOST else "upstream",
        code=5,
        upstream_status=upstream_status,
        blames="key" if upstream_status in _LOST else "channel",
    )


def _reply(form: Form, found: dict[str, Any], body: bytes) -> bytes:
    """The client's answer: accepted is accepted, whatever upstream's queue; only a window that opened says so."""
    code = found["code"]
    if code == QUEUED or (code == EXISTS and not form.opens):
        found = {**found, "code": ACCEPTED}
    if form.action == "SWAP_FACE":
        return tree.encode({name: found.get(name) for name in ("code", "description", "properties", "result")})
    return body if found["code"] == code else tree.encode(found)


def _first(form: Form, found: Mapping[str, Any], code: int, description: str) -> Update:
    if form.action == "UPLOAD":
        return Update(code=code, status=SUCCESS, progress=WHOLE)
    more = found.get("properties")
    status, picture = (more.get("status"), more.get("imageUrl")) if isinstance(more, dict) else (None, None)
    if code != EXISTS or not isinstance(status, str) or not isinstance(picture, str):
        return Update(code=code)
    return Update(code=code, status=status, image_url=picture, progress=WHOLE if status == SUCCESS else None)


def _refused(code: int, description: str) -> Update:
    return Update(code=code, status=FAILURE, fail_reason=description[:LONGEST] or f"refused with code {code}")


def _poll(ids: Sequence[str], to: Target) -> Outgoing:
    return Outgoing(
        url=f"{to.base_url}/mj/task/list-by-condition", body=tree.encode({"ids": list(ids)}), headers=_headers(to)
    )


def _polled(status: int, body: bytes) -> list[Update] | None:
    found = tree.lenient(body) if status == 200 else None
    if not isinstance(found, list):
        return None
    return [_update(item) for item in found if isinstance(item, dict) and isinstance(item.get("id"), str)]


def _update(item: Mapping[str, Any]) -> Update:
    """One task of a list. A failure has an empty progress and a reason; services in Java write null for nothing."""
    status, progress, reason = _text(item.get("status")), _text(item.get("progress")), _text(item.get("failReason"))
    if status == "CANCEL" or (reason and status != SUCCESS and progress != WHOLE):
        status, reason = FAILURE, reason or "The task was cancelled upstream."
    return Update(
        task_id=item["id"],
        code=ACCEPTED,
        status=status or None,
        progress=progress or None,
        fail_reason=reason[:LONGEST],
        start_time=_time(item.get("startTime")),
        finish_time=_time(item.get("finishTime")),
        prompt_en=_kept(item.get("promptEn")),
        state=_kept(item.get("state")),
        image_url=_kept(item.get("imageUrl")),
        video_url=_kept(item.get("videoUrl")),
        video_urls=_json(item.get("videoUrls")),
        buttons=_json(item.get("buttons")),
        properties=_json(item.get("properties")),
    )


def _id(value: Any) -> str:
    return str(value) if type(value) is int else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _kept(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1e15 else None


def _json(value: Any) -> str | None:
    return tree.dumps(value) if isinstance(value, (dict, list)) and value else None


def _seed(id: str, to: Target) -> Outgoing:
    url = f"{to.base_url}/mj/task/{quote(id, safe='')}/image-seed"
    return Outgoing(url=url, body=b"", headers=_headers(to), method="GET")


TASKS: Final = Tasks(
    platform="mj",
    shelf="midjourneys",
    ticks=1000,
    patience=PATIENCE,
    terms=_terms,
    submit=_submit,
    submitted=_submitted,
    poll=_poll,
    polled=_polled,
    seed=_seed,
)
ADAPTER: Final = Adapter(name="midjourney", numbers=(2,), options=MidjourneyOptions, tasks=TASKS, owner="midjourney")
PLUS: Final = Adapter(name="midjourney-plus", numbers=(5,), options=MidjourneyOptions, tasks=TASKS, owner="midjourney")

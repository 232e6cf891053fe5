"""A conversation as one query: what an app that keeps its own history is told by somebody who keeps none.

Every request is a new conversation whose query holds the whole transcript, so that any channel can serve any turn.
Pure. Source: provider-translation B.9, tasks 4.1 and 4.6.
"""

from __future__ import annotations

from typing import Final

from newapi_proxy.adapters import _apps as apps
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Media, Role, Tree

WHOSE: Final = "Dify"
_LABELS: Final[dict[Role, str]] = {"system": "SYSTEM", "developer": "SYSTEM", "assistant": "ASSISTANT"}
_KINDS: Final = {"image": "image", "file": "document", "audio": "audio", "video": "video"}


def query(ask: Ask) -> str:
    """The text of a single user turn as it is, anything longer as a transcript with labels."""
    wish = apps.wish(ask.controls.format)
    if len(ask.turns) == 1 and ask.turns[0].role == "user":
        return "\n\n".join([*apps.texts(ask.turns[0].parts, WHOSE), *([wish] if wish else [])]) or apps.FILLER
    said = [
        (_LABELS.get(turn.role, "USER"), text)
        for turn in ask.turns
        for text in apps.texts(turn.parts, WHOSE)
        if text.strip()
    ]
    if wish:
        said.append(("SYSTEM", wish))
    return "".join(_block(label, text) for label, text in said) or apps.FILLER


def _block(label: str, text: str) -> str:
    return f"{label}: \n{text}\n"


def files(ask: Ask) -> list[Tree]:
    """The media of all turns. One that is not uploaded yet has an empty id. Raises Unsupported for what has no form."""
    return [_file(part) for turn in ask.turns for part in turn.parts if isinstance(part, Media) and part.text is None]


def _file(part: Media) -> Tree:
    value = {"type": _KINDS[part.kind]}
    if apps.uploadable(part) or part.file_id is not None:
        return {**value, "transfer_method": "local_file", "upload_file_id": part.file_id or ""}
    url = part.url or ""
    if not url.lower().startswith(("http://", "https://")):
        raise Unsupported("Dify fetches from http and https addresses only.", part.path, "unsupported_content")
    return {**value, "transfer_method": "remote_url", "url": url}

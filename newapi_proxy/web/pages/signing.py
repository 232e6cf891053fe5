"""The form for a key."""

from __future__ import annotations

from newapi_proxy.web.pages.layout import message, post
from newapi_proxy.web.pages.markup import NOTHING, Html, element
from newapi_proxy.web.pages.words import say


def key(told: str, *, wrong: bool) -> Html:
    """What has happened, and the form."""
    entry = element(
        "input",
        id="key",
        name="key",
        type="password",
        required=True,
        autofocus=True,
        autocomplete="current-password",
        autocapitalize="off",
        spellcheck="false",
        maxlength=512,
        aria_describedby="key-hint",
        aria_invalid="true" if wrong else None,
    )
    form = post(
        "login",
        element("label", say("key"), for_="key"),
        entry,
        element("p", say("key_hint"), id="key-hint", class_="hint"),
        element("button", say("sign_in"), type="submit"),
    )
    said = message(told, wrong=wrong) if told else NOTHING
    return element("div", said, element("p", say("sign_in_lead")), form, class_="narrow")

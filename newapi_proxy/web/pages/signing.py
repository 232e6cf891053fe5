"""The form for a key, the other ways in, and what ties them to a key or an account."""

from __future__ import annotations

from collections.abc import Sequence

from newapi_proxy.web.pages.layout import message, post
from newapi_proxy.web.pages.markup import NOTHING, Html, element, joined
from newapi_proxy.web.pages.words import say


def key(told: str, *, wrong: bool, others: Sequence[tuple[str, str]] = ()) -> Html:
    """What has happened, the form, and other ways to sign in: a name and where to go."""
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
    ways = [element("p", element("a", name, href=href)) for name, href in others]
    more = joined(element("h2", say("other_ways")), ways) if ways else NOTHING
    return element("div", said, element("p", say("sign_in_lead")), form, more, class_="narrow")


def widget(lead: str, name: str, script: Html) -> Html:
    """The other service's own button, which its script draws."""
    without = element("noscript", message(say("widget_script", name=name), wrong=True))
    return joined(element("p", lead), element("p", script), without, element("p", element("a", say("back"), href="./")))


def bindings(said: str, bound: str, name: str, *, wrong: bool = False) -> Html:
    """Which account elsewhere signs in here, and how that is changed; `bound` "" for none."""
    told = message(said, wrong=wrong) if said else NOTHING
    if bound:
        button = element("button", say("unbind", name=name), type="submit", class_="plain")
        change = joined(element("p", say("bound_to", name=name, id=bound)), post("setting/telegram/unbind", button))
    else:
        link = element("a", say("bind", name=name), href="setting/telegram", class_="button")
        change = joined(element("p", say("bound_to_none", name=name)), element("p", link))
    return element("div", told, change, class_="narrow")

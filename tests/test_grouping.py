"""Groups of the database's keys: who may use which, what `auto` stands for, and what each costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from newapi_proxy.config.grouping import Grouping
from newapi_proxy.config.model import Channel, Config, Price
from newapi_proxy.config.saved import Saved
from newapi_proxy.errors import ClientError
from newapi_proxy.snapshot import Snapshot, Token, build
from newapi_proxy.store.tokens import TokenRow
from newapi_proxy.web.keys import admit

SAVED = Saved(
    groups={"default": 1, "vip": 0.5, "dear": 4},
    usable=frozenset({"default", "vip"}),
    autos=("dear", "default", "vip"),
    between={"staff": {"vip": 0.25}},
)
CONFIG = Config(
    groups={"default": 1.0, "vip": 0.5, "dear": 4.0, "staff": 1.0},
    prices={"*": Price(input=1)},
    channels=tuple(
        Channel(name=group, type="echo", models=(f"{group}-model", "common"), groups=(group,))
        for group in ("default", "vip", "dear", "staff")
    ),
)


def row(**fields: Any) -> TokenRow:
    """A key of user 2, of whom the ledger keeps a balance."""
    given: dict[str, Any] = {"id": 1, "user_id": 2, "digest": b"d", "name": "k", "status": 1, "group": ""}
    given |= {"models": (), "allow_ips": (), "expired_time": -1, "unlimited": True, "remain_quota": 0}
    given |= {"user_status": 1, "user_group": "default", "user_limited": True} | fields
    return TokenRow(**given)


def seen(**fields: Any) -> tuple[Snapshot, Token]:
    """The view with that one key."""
    view = build(CONFIG, [row(**fields)], {one.name: 1 for one in CONFIG.channels}, SAVED)
    return view, view.tokens[b"d"]


@pytest.mark.parametrize(
    ("fields", "group", "usable"),
    [
        ({}, "default", True),
        ({"group": "vip"}, "vip", True),
        ({"group": "dear"}, "dear", False),  # not for everybody
        ({"group": "dear", "user_group": "dear"}, "dear", True),  # the user's own
        ({"group": "gone", "user_group": "gone"}, "gone", False),  # no ratio any more
        ({"group": "dear", "user_limited": False}, "dear", True),  # made by the operator
    ],
)
def test_who_may_use_which_group(fields: dict[str, Any], group: str, usable: bool) -> None:
    """What everybody may use, and one's own; groups that are gone nobody may."""
    assert Grouping(CONFIG, SAVED).of(row(**fields)) == (group, usable)


def test_a_key_of_a_group_that_it_may_not_use_is_refused() -> None:
    """With 403 and the group's name, like New API."""
    _, token = seen(group="dear")
    with pytest.raises(ClientError, match="may not use the group dear") as caught:
        admit(token, "127.0.0.1", 0.0)
    assert caught.value.status == 403


def test_auto_is_the_first_usable_group_that_serves_the_model() -> None:
    """Its channels and its ratio; groups that the user may not use are passed over."""
    view, token = seen(group="auto")
    admit(token, "127.0.0.1", 0.0)

    def served(model: str) -> list[str]:
        return [channel.name for tier in view.tiers(token.group, model) for channel in tier]

    assert (served("common"), served("vip-model"), served("dear-model")) == (["default"], ["vip"], [])
    assert view.group_ratio(token.group, "common") == Decimal(1)
    assert view.group_ratio(token.group, "vip-model") == Decimal("0.5")
    assert {one[0] for one in view.models_for(token)} == {"default-model", "vip-model", "common"}


def test_a_users_group_may_have_a_price_of_its_own_for_another() -> None:
    """GroupGroupRatio replaces the ratio of the key's group for users of that one."""
    view, token = seen(group="vip", user_group="staff")
    assert view.group_ratio(token.group, "common") == Decimal("0.25")
    assert [channel.name for tier in view.tiers(token.group, "common") for channel in tier] == ["vip"]
    _, plain = seen(group="vip")
    assert view.group_ratio(plain.group) == Decimal("0.5")

"""Which group a key of the database is in, and what it costs there: New API's rules for its users.

Source: relay-and-billing 2.3, 2.4, 5.2. The file's own keys name their group themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from newapi_proxy.config.model import Config
from newapi_proxy.config.saved import Saved
from newapi_proxy.store.tokens import TokenRow

AUTO: Final = "auto"  # New API's group that stands for the first that can serve
Aliases = Mapping[str, tuple[tuple[str, Decimal], ...]]
"""Groups that stand for others: name → (group, factor on its prices), in the order in which they are asked."""


class Grouping:
    """Which group a key of the database is in, by New API's rules for its users (relay-and-billing 2.3, 2.4, 5.2)."""

    def __init__(self, config: Config, saved: Saved) -> None:
        self._ratios = config.ratios_by_group()
        self._saved = saved
        self.aliases: dict[str, tuple[tuple[str, Decimal], ...]] = {}

    def of(self, row: TokenRow) -> tuple[str, bool]:
        """The group, and whether the key's user may use it. Keys that are ours to give may name any."""
        group = row.group or row.user_group
        if not row.user_limited:
            return group, True
        usable = self._saved.usable | {row.user_group}
        between = self._saved.between.get(row.user_group, {})
        if group == AUTO and (groups := tuple(one for one in self._saved.autos if one in usable)):
            return self._alias(f"{AUTO}@{row.user_group}", groups, between), True
        if row.group and (row.group not in usable or row.group not in self._ratios):
            return group, False
        return (self._alias(f"{group}@{row.user_group}", (group,), between) if group in between else group), True

    def _alias(self, name: str, groups: tuple[str, ...], between: Mapping[str, float]) -> str:
        if name not in self.aliases:
            ratios = ((one, between.get(one, self._ratios.get(one, 1.0))) for one in groups)
            self.aliases[name] = tuple((one, Decimal(str(ratio))) for one, ratio in ratios)
        return name

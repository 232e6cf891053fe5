"""Who may import whom: the contracts of pyproject.toml, and the same laws on the bare syntax, lazy imports included."""

from __future__ import annotations

import sys
import tomllib
from typing import Final

import pytest
from importlinter import cli

from tests import laws

CONTRACTS: Final = tomllib.loads((laws.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS: Final = next(one["layers"] for one in CONTRACTS if one["type"] == "layers")
RANK: Final = {name.strip(" ()"): rank for rank, line in enumerate(LAYERS) for name in line.split("|")}

# An outside module and the only places that may import it; nothing: nobody.
PLACES: Final[dict[str, frozenset[str]]] = {
    "aiohttp": frozenset({"web"}),
    "aiohttp_socks": frozenset({"web"}),
    "aiosqlite": frozenset({"store"}),
    "asyncmy": frozenset({"store"}),
    "asyncpg": frozenset({"store"}),
    "json": frozenset(),
    "orjson": frozenset({"wire", "log"}),
    "prometheus_client": frozenset({"metrics"}),
    "redis": frozenset({"store"}),
    "requests": frozenset(),
    "sqlite3": frozenset({"store"}),
    "structlog": frozenset({"log"}),
    "tiktoken": frozenset({"billing"}),
    "uvloop": frozenset({"daemon", "cli"}),
}
# A provider and the one whose dialect it hosts or extends.
HOSTS: Final = frozenset(
    {
        ("azure", "openai"),
        ("mistral", "openai"),
        ("zhipu", "openai"),
        ("presets", "openai"),
        ("custom", "openai"),
        ("echo", "openai"),
        ("jina", "openai"),
        ("voyage", "openai"),
        ("tei", "openai"),
        ("vertex", "anthropic"),
        ("vertex", "gemini"),
        ("vertex", "openai"),
        ("bedrock", "anthropic"),
    }
)
PURE: Final = frozenset({"ir", "wire", "surfaces", "adapters", "billing", "config"})
NOT_PURE: Final = frozenset({"asyncio", "socket", "random", "time"})


def test_import_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    """The contracts of pyproject.toml hold."""
    status = cli.lint_imports(config_filename=str(laws.ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_every_module_has_a_layer() -> None:
    """No module stands outside the list of layers."""
    known = {*RANK, "", "__main__"}
    assert not {module.layer for module in laws.modules()} - known


def test_layers_by_syntax() -> None:
    """No import, wherever it stands in a file, reaches a layer above or a sibling."""
    faults = []
    for module in laws.modules():
        if module.layer in ("", "__main__"):
            continue
        for name, line in module.imports():
            target = name.split(".")[1] if name.startswith(f"{laws.PACKAGE}.") else ""
            if target in RANK and target != module.layer and RANK[target] <= RANK[module.layer]:
                faults.append(f"{module.where}:{line}: {module.layer} imports {name}")
    assert not faults


def test_outside_modules_stay_in_their_places() -> None:
    """aiohttp, drivers, JSON and the other libraries with a home are imported only there."""
    faults = [
        f"{module.where}:{line}: {name}"
        for module in laws.modules()
        for name, line in module.imports()
        if (top := name.partition(".")[0]) in PLACES and module.layer not in PLACES[top]
    ]
    assert not faults


def test_providers_do_not_know_each_other() -> None:
    """A provider's files import no other provider's, unless it hosts or extends that one's dialect.

    A file with a leading underscore belongs to the provider whose name follows (`_openai_read`), else to all.
    """
    names = {module.name.removeprefix("adapters.") for module in laws.modules() if module.layer == "adapters"}
    providers = {name for name in names if not name.startswith("_")} - {"base"}
    faults = []
    for module in laws.modules():
        if not module.name.startswith("adapters.") or module.name == "adapters.base":
            continue
        own = _owner(module.name.removeprefix("adapters."), providers)
        for name, line in module.imports():
            if not name.startswith(f"{laws.PACKAGE}.adapters."):
                continue
            other = _owner(name.split(".")[2], providers)
            if other not in ("", own) and (own, other) not in HOSTS:
                faults.append(f"{module.where}:{line}: {name}")
    assert not faults


def _owner(name: str, providers: set[str]) -> str:
    if not name.startswith("_"):
        return name if name in providers else ""
    return next((one for one in sorted(providers, key=len, reverse=True) if f"{name}_".startswith(f"_{one}_")), "")


def test_pure_layers_neither_wait_nor_guess() -> None:
    """Translators, billing and configuration import nothing that waits, tells the time or rolls dice."""
    faults = [
        f"{module.where}:{line}: {name}"
        for module in laws.modules()
        if module.layer in PURE
        for name, line in module.imports()
        if name.partition(".")[0] in NOT_PURE
    ]
    assert not faults


def test_only_package_and_dependencies_are_imported() -> None:
    """What the package imports at all is declared as a dependency or an extra."""
    project = tomllib.loads((laws.ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for name, group in project["optional-dependencies"].items() if name != "test" for one in group]
    declared = {_module(one) for one in [*project["dependencies"], *extras]}
    faults = []
    for module in laws.modules():
        for name, line in module.imports():
            top = name.partition(".")[0]
            if top != laws.PACKAGE and top not in STDLIB and top not in declared:
                faults.append(f"{module.where}:{line}: {name}")
    assert not faults


def _module(requirement: str) -> str:
    name = requirement
    for mark in "[><=!~ ;":
        name = name.partition(mark)[0]
    return IMPORTED_AS.get(name, name.replace("-", "_"))


IMPORTED_AS: Final = {"PyYAML": "yaml", "SQLAlchemy": "sqlalchemy"}
STDLIB: Final = sys.stdlib_module_names | {"aiohappyeyeballs", "multidict", "yarl"}  # aiohttp is made of these

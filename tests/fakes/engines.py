"""Fixtures over every engine: an empty database of each kind, and tests whose `conn` belongs to a server's driver.

A server's connection works inside `run_sync` only, so a test that asks for `conn` is called from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from newapi_proxy.store import db, schema
from tests.fakes import servers

ENGINES: Final = ("sqlite", "postgresql", "mysql")
NAME: Final = "newapi"


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A running PostgreSQL with an upgraded database."""
    made = servers.Postgres()
    _first(made, "postgres")
    yield made
    made.remove()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.MariaDB]:
    """A running MariaDB with an upgraded database."""
    made = servers.MariaDB()
    _first(made, "mysql")
    yield made
    made.remove()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Redis]:
    """A running Redis."""
    made = servers.Redis()
    yield made
    made.remove()


def _first(made: servers.Postgres | servers.MariaDB, default: str) -> None:
    statement(made.url(default), f"CREATE DATABASE {NAME}")
    db.upgrade(made.url(NAME), Path("/"))


def server(request: pytest.FixtureRequest, kind: str) -> Any:
    """The running server of a kind, its database empty."""
    made = request.getfixturevalue({"postgresql": "postgres", "mysql": "mariadb"}[kind])
    db.run(made.url(NAME), Path("/"), _empty, write=True)
    return made


def _empty(conn: Connection) -> None:
    for table in (*schema.INHERITED.sorted_tables, *schema.OWN.sorted_tables):
        if table.name != schema.upgrades.name:
            conn.execute(table.delete())


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, database: Path) -> str:
    """An empty database of each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{database}"
    url: str = server(request, request.param).url(NAME)
    return url


class Elsewhere:
    """Stands for a connection that exists only while the test runs inside of the driver's loop."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, work: Callable[[Connection], None]) -> None:
        """Runs the test with the connection, in one transaction."""
        db.run(self.url, Path("/"), work, write=True)


@pytest.fixture
def conn(database_url: str, database: Path) -> Iterator[Connection | Elsewhere]:
    """A connection inside a transaction, on every engine."""
    if not database_url.startswith("sqlite"):
        yield Elsewhere(database_url)
        return
    with db.connect(database_url, database.parent) as made:
        yield made


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Calls a test that wants a server's connection from inside the driver's loop."""
    held = pyfuncitem.funcargs.get("conn")
    if not isinstance(held, Elsewhere):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    held.run(lambda real: pyfuncitem.obj(**wanted | {"conn": real}))
    return True


def statement(url: str, words: str) -> None:
    """One statement outside of any transaction."""
    asyncio.run(_statement(url, words))


async def _statement(url: str, words: str) -> None:
    driver = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}[url.partition(":")[0]]
    made = create_async_engine(driver + url[url.index(":") :], poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with made.connect() as conn:
        await conn.execute(text(words))
    await made.dispose()

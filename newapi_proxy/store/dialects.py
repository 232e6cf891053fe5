"""What differs between the database servers: drivers, session settings, clocks, locks, which errors will pass.

A table of two rows. SQLite is not in it: it has no server to be lost. Knows nothing of what is written.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final

import msgspec
from sqlalchemy import URL

from newapi_proxy.errors import OurError

CONNECT: Final = 3.0  # seconds for a connection: a lost one is tried again soon after the server's return
IDLE: Final = 3  # seconds; a transaction whose client is gone must not hold up the others for longer
LOCK: Final = 5  # seconds to wait for others' locks
ASLEEP: Final = 10  # seconds; MySQL has no limit for idle transactions, only for idle connections


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of server. `now`: its clock as whole unix seconds, in SQL; `moment`: with their parts."""

    driver: str
    module: str
    extra: str
    now: str
    moment: str
    writing: Mapping[str, Any]
    reading: Mapping[str, Any]
    lock: str
    unlock: str
    options: Callable[[Mapping[str, Any]], dict[str, Any]]
    cut: Callable[[Any], None]
    passing: Callable[[Any], bool]


def of(url: URL) -> Kind:
    """The kind that a URL names. Raises OurError for an unknown one, or where its driver is not installed."""
    found = KINDS.get(url.get_backend_name())
    if found is None:
        raise OurError(f"{url.get_backend_name()} databases are not supported.", code="database_invalid")
    if find_spec(found.module) is None:
        raise OurError(
            f"The driver {found.module} is missing: pip install 'newapi-proxy[{found.extra}]'.", code="database_invalid"
        )
    return found


def location(url: URL, kind: Kind) -> URL:
    """The URL without what only other programs' drivers understand."""
    return url.set(drivername=kind.driver).set(query={})


def _postgres_options(query: Mapping[str, Any]) -> dict[str, Any]:
    """`sslmode`, `host` (a socket's folder, or several servers: the one that takes writes is used)."""
    found: dict[str, Any] = {"timeout": CONNECT, "target_session_attrs": "read-write"}
    hosts = query.get("host", ())
    places = [one.rpartition(":") for one in ([hosts] if isinstance(hosts, str) else hosts)]
    if places:
        found["host"] = [host or port for host, _, port in places]
        found["port"] = [int(port) if host else int(str(query.get("port", 5432))) for host, _, port in places]
    if mode := query.get("sslmode", query.get("ssl")):
        found["ssl"] = mode
    return found


def _mysql_options(query: Mapping[str, Any]) -> dict[str, Any]:
    """`unix_socket`, and `tls` with go-sql-driver's words: true, skip-verify, false."""
    found: dict[str, Any] = {"connect_timeout": CONNECT}
    if path := query.get("unix_socket"):
        found["unix_socket"] = path
    if (tls := query.get("tls", "false")) != "false":
        found["ssl"] = ssl.create_default_context()
        if tls == "skip-verify":
            found["ssl"].check_hostname = False
            found["ssl"].verify_mode = ssl.CERT_NONE
    return found


_POSTGRES_RULES: Final = ("21", "22", "23", "42")  # classes of SQLSTATE: what breaks the database's rules does so again


def _postgres_passing(error: Any) -> bool:
    state = getattr(error, "sqlstate", None)
    if state is None:  # the driver's own: a lost connection, unless it could not send a value
        return not isinstance(error.__cause__, ValueError)
    return not state.startswith(_POSTGRES_RULES)


def _mysql_passing(error: Any) -> bool:
    return type(error).__name__ not in ("IntegrityError", "DataError", "ProgrammingError", "NotSupportedError")


KINDS: Final[Mapping[str, Kind]] = {
    "postgresql": Kind(
        driver="postgresql+asyncpg",
        module="asyncpg",
        extra="postgres",
        now="CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT)",
        moment="CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)",
        writing={
            "server_settings": {
                "application_name": "newapi-proxy",
                "idle_in_transaction_session_timeout": f"{IDLE}s",
                "lock_timeout": f"{LOCK}s",
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
            }
        },
        reading={
            "server_settings": {"application_name": "newapi-proxy", "default_transaction_read_only": "on"},
            "target_session_attrs": "any",
        },
        lock="SELECT pg_advisory_lock(7236480)",
        unlock="SELECT pg_advisory_unlock(7236480)",
        options=_postgres_options,
        cut=lambda raw: raw.terminate(),
        passing=_postgres_passing,
    ),
    "mysql": Kind(
        driver="mysql+asyncmy",
        module="asyncmy",
        extra="mysql",
        now="UNIX_TIMESTAMP()",
        moment="UNIX_TIMESTAMP(SYSDATE(6))",
        writing={
            "init_command": f"SET SESSION wait_timeout = {ASLEEP}, innodb_lock_wait_timeout = {LOCK},"
            " sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"
            f" /*M!100300 , idle_transaction_timeout = {IDLE} */"
        },
        reading={"init_command": "SET SESSION TRANSACTION READ ONLY"},
        lock="SELECT GET_LOCK('newapi_proxy', 60)",
        unlock="SELECT RELEASE_LOCK('newapi_proxy')",
        options=_mysql_options,
        cut=lambda raw: raw.close(),
        passing=_mysql_passing,
    ),
}

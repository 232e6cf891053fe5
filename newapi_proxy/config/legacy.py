"""New API's environment variables as the lowest layer of the configuration: below the file, above the defaults.

Each variable keeps its own name, unit and meaning (relay-and-billing 6.1) and lands at its place in our tree. Unlike
there a bad value is a fault that names the variable, never a silent default.
"""

from __future__ import annotations

import os
import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from newapi_proxy.config import scalars
from newapi_proxy.config.nodes import Entry, Fault, Items, Node, Path, Place, Scalar, Table, fault

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # what Go's ParseBool takes
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_MYSQL: Final = re.compile(
    r"(?P<user>[^:@/]*)(?::(?P<password>.*))?@(?:(?P<net>tcp|unix)\((?P<address>[^()]*)\))?/(?P<name>[^?/]+)(?:\?.*)?"
)
_DEFAULT_FILE: Final = "one-api.db"
_MIB: Final = 1024 * 1024
_BODY: Final = 32  # MAX_REQUEST_BODY_MB of 0 or less

Reader = Callable[[str], Node | str | None]
"""A variable's text to a node or a scalar's text; None where it says nothing. Raises ValueError with a sentence."""


class Layer(msgspec.Struct, frozen=True):
    """The tree with the environment below it. `options`: per channel type, for channels that no file names."""

    root: Table
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    options: Mapping[str, Mapping[str, Any]]


def layer(root: Table, environ: Mapping[str, str]) -> Layer:
    """Puts the variables under what the files say."""
    faults: list[Fault] = []
    warnings = list(_unserved(environ))
    local = environ.get("SQL_DSN", "local").startswith("local") and environ.get("SQLITE_PATH")
    environ = {name: text for name, text in environ.items() if name != ("SQL_DSN" if local else "SQLITE_PATH")}
    for name, (path, reader) in _VARIABLES.items():
        node = _value(name, path, reader, environ, faults)
        if node is not None:
            root = _below(root, path, node)
    if zone := environ.get("TZ", "").removeprefix(":"):
        if _known_zone(zone):
            root = _below(root, ("timezone",), Scalar(_place("TZ"), zone))
        else:
            warnings.append(fault(_place("TZ"), ("timezone",), f"{zone!r} is no timezone of the database; UTC holds"))
    options: dict[str, dict[str, Node]] = {}
    for name, (option, reader) in _OPTIONS.items():
        kind = name.partition("_")[0].lower()
        node = _value(name, ("channels", "*", "options", option), reader, environ, faults)
        if node is not None:
            options.setdefault(kind, {})[option] = node
    values = {kind: {name: _plain(node) for name, node in given.items()} for kind, given in options.items()}
    return Layer(_with_options(root, options), tuple(faults), tuple(warnings), values)


def _place(name: str) -> Place:
    return Place(f"env:{name}", 0, 0)


def _value(name: str, path: Path, reader: Reader, environ: Mapping[str, str], faults: list[Fault]) -> Node | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        found = reader(text)
    except ValueError as error:
        faults.append(fault(_place(name), path, str(error)))
        return None
    if isinstance(found, Table):
        place = _place(name)
        return Table(place, {key: Entry(place, _at(one.node, place)) for key, one in found.entries.items()})
    return Scalar(_place(name), found, plain=False) if isinstance(found, str) else None


def _at(node: Node, place: Place) -> Node:
    return msgspec.structs.replace(node, place=place)


def _below(table: Table, path: Path, node: Node) -> Table:
    """The tree with the node where nothing stands; what is there already wins."""
    key, rest = str(path[0]), path[1:]
    entry = table.entries.get(key)
    empty = entry is None or (isinstance(entry.node, Scalar) and entry.node.null)
    if not rest:
        return table if not empty else _set(table, key, node)
    inner = Table(node.place, {}) if entry is None or empty else entry.node
    return _set(table, key, _below(inner, rest, node)) if isinstance(inner, Table) else table


def _set(table: Table, key: str, node: Node) -> Table:
    place = table.entries[key].place if key in table.entries else node.place
    return Table(table.place, {**table.entries, key: Entry(place, node)})


def _with_options(root: Table, options: Mapping[str, Mapping[str, Node]]) -> Table:
    """Variables that concern one type of channel: the first word of the name is the type."""
    channels = root.entries.get("channels")
    if channels is None or not isinstance(channels.node, Items):
        return root
    items = []
    for item in channels.node.items:
        kind = item.entries.get("type") if isinstance(item, Table) else None
        if isinstance(item, Table) and kind is not None and isinstance(kind.node, Scalar):
            for option, node in options.get(kind.node.text, {}).items():
                item = _below(item, ("options", option), node)
        items.append(item)
    return _set(root, "channels", Items(channels.node.place, tuple(items)))


def _plain(node: Node) -> Any:
    """The node as the value it stands for."""
    if isinstance(node, Table):
        return {key: _plain(entry.node) for key, entry in node.entries.items()}
    assert isinstance(node, Scalar)
    return node.text == "true" if node.text in ("true", "false") else scalars.foreign(node)


def _known_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _unserved(environ: Mapping[str, str]) -> Iterator[Fault]:
    """Variables whose meaning there is more than what is done here: silence would mislead."""
    for name, message in _WARNED.items():
        if environ.get(name):
            yield fault(_place(name), name, message)
    if environ.get("RELAY_TIMEOUT", "").strip() == "0":
        yield fault(_place("RELAY_TIMEOUT"), "relay.total_timeout", "requests without an end are not served")
    if environ.get("NODE_TYPE") == "slave":
        yield fault(_place("NODE_TYPE"), "NODE_TYPE", "slave is not served by this version; every process is a master")


def _flag(text: str) -> str:
    """What Go takes for a boolean, as YAML's."""
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither true nor false")
    return "true" if text in _TRUE else "false"


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _seconds(text: str) -> str:
    number = _whole(text)
    if number < 1:
        raise ValueError(f"{text!r} is no number of seconds above 0")
    return f"{number}s"


def _timeout(text: str) -> str | None:
    return None if text == "0" else _seconds(text)


def _port(text: str) -> str:
    number = _whole(text)
    if not 1 <= number <= 65535:
        raise ValueError(f"{text!r} is no port (1 to 65535)")
    return f"0.0.0.0:{number}"  # New API listens on every address


def _body(text: str) -> str:
    number = _whole(text)
    return str((number if number > 0 else _BODY) * _MIB)


def _megabytes(text: str) -> str:
    number = _whole(text)
    if number < 1:
        raise ValueError(f"{text!r} is no number of megabytes above 0")
    return str(number * _MIB)


def _sqlite(path: str) -> str:
    """New API's path, relative to the working directory, its driver's parameters cut."""
    return "sqlite:///" + os.path.abspath(path.partition("?")[0] or _DEFAULT_FILE)


def _dsn(text: str) -> str:
    """A DSN of New API as our URL: postgres URLs, `local` for SQLite, else go-sql-driver's user:pw@tcp(host)/db."""
    if text.startswith(("postgres://", "postgresql://")):
        return "postgresql://" + text.partition("://")[2]
    if text.startswith("local"):
        return _sqlite(_DEFAULT_FILE)
    found = _MYSQL.fullmatch(text)
    if found is None:
        raise ValueError("is no DSN that New API knows (postgres://…, local, user:password@tcp(host:port)/database)")
    user = quote(found["user"], safe="")
    password = f":{quote(found['password'], safe='')}" if found["password"] is not None else ""
    address = found["address"] or "127.0.0.1:3306"
    if found["net"] == "unix":
        return f"mysql://{user}{password}@localhost/{found['name']}?unix_socket={quote(address, safe='/')}"
    return f"mysql://{user}{password}@{address}/{found['name']}"


def _versions(text: str) -> Table:
    """`model:version,model:version`"""
    nowhere = Place("", 0, 0)
    entries = {}
    for pair in text.split(","):
        model, colon, version = pair.strip().rpartition(":")
        if not colon or not model.strip() or not version.strip():
            raise ValueError(f"{pair.strip()!r} is no pair such as model:version")
        entries[model.strip()] = Entry(nowhere, Scalar(nowhere, version.strip(), plain=False))
    return Table(nowhere, entries)


def _safety(text: str) -> str:
    if text not in ("NONE", "CONTEXTUAL", "STRICT"):
        raise ValueError(f"{text!r} is none of NONE, CONTEXTUAL, STRICT")
    return text


def _checked(text: str) -> None:
    _flag(text)


_VARIABLES: Final[Mapping[str, tuple[Path, Reader]]] = {
    "PORT": (("listen",), _port),
    "SQL_DSN": (("database",), _dsn),
    "SQLITE_PATH": (("database",), _sqlite),
    "REDIS_CONN_STRING": (("redis",), str),
    "STREAMING_TIMEOUT": (("relay", "streaming_timeout"), _seconds),
    "RELAY_TIMEOUT": (("relay", "total_timeout"), _timeout),
    "MAX_REQUEST_BODY_MB": (("relay", "max_body"), _body),
    "FORCE_STREAM_OPTION": (("relay", "force_stream_option"), _flag),
    "GET_MEDIA_TOKEN": (("media", "count_image_tokens"), _flag),
    "GET_MEDIA_TOKEN_NOT_STREAM": (("media", "count_image_tokens_not_stream"), _flag),
    "MAX_FILE_DOWNLOAD_MB": (("media", "fetch", "max_size"), _megabytes),
    "UPDATE_TASK": (("tasks", "update"), _flag),
    "MEMORY_CACHE_ENABLED": (("channels",), _checked),  # everything is served from memory, with or without it
}

_OPTIONS: Final[Mapping[str, tuple[str, Reader]]] = {
    "DIFY_DEBUG": ("debug", _flag),
    "GEMINI_MODEL_MAP": ("version_map", _versions),
    "GEMINI_VERSION": ("version", str),
    "COHERE_SAFETY_SETTING": ("safety_mode", _safety),
    "AZURE_DEFAULT_API_VERSION": ("api_version", str),
}

_WARNED: Final[Mapping[str, str]] = {
    "LOG_SQL_DSN": "a second database for logs is not served by this version; they stay in the first",
    "RELAY_PROXY": "is not read; give each channel its own proxy",
    "USER_CONTENT_REQUEST_PROXY": "is not read",
    "CHANNEL_UPDATE_FREQUENCY": "no balance is asked for by itself; `newapi-proxy channel balance` asks",
    "CHANNEL_TEST_FREQUENCY": "channels are watched by their requests; no tests are run",
    "TLS_INSECURE_SKIP_VERIFY": "certificates are always verified",
}

"""Which configuration file a command works on, what its database says besides, and how its faults are told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from newapi_proxy.config.load import Loaded, read
from newapi_proxy.config.model import Config

VARIABLE: Final = "NEWAPI_PROXY_CONFIG"
PLACES: Final = (Path("config.yaml"), Path("/etc/newapi-proxy/config.yaml"))
FAULTS: Final = 1
UNREADABLE: Final = 2


def locate(given: str | None, environ: Mapping[str, str]) -> Path:
    """`-c`, else $NEWAPI_PROXY_CONFIG, else ./config.yaml, else /etc/newapi-proxy/config.yaml (interfaces 2)."""
    if named := given or environ.get(VARIABLE):
        return Path(named)
    return next((place for place in PLACES if place.exists()), PLACES[0])


def load(args: argparse.Namespace) -> Loaded:
    """The configuration that the arguments name; faults are told on stderr, one line each.

    Warnings are for `check` and `show`, and in the daemon's log: a report by cron has nothing to do with them.
    """
    return _told(read(locate(args.config, os.environ), os.environ), args)


def whole(args: argparse.Namespace) -> Loaded:
    """The same joined with what its database holds, as `serve` will have it; warnings are told too."""
    loaded = _told(joined(locate(args.config, os.environ)), args)
    for warning in loaded.warnings:
        print(str(msgspec.structs.replace(warning, message=f"warning: {warning.message}")), file=sys.stderr)
    return loaded


def joined(file: Path) -> Loaded:
    """A file joined with its database; untold. The database is looked at, and not touched.

    One that does not exist yet says nothing, nor does a server that does not answer; a file that cannot be read is a
    warning, and so is a driver that is missing here.
    """
    from newapi_proxy.config import joined as joining
    from newapi_proxy.errors import ProxyError
    from newapi_proxy.store import held, peek

    loaded = read(file, os.environ)
    if loaded.config is None:
        return loaded
    try:
        found = peek.look(loaded.config.database.reveal(), file.resolve().parent, held.held)
        return loaded if found is None else joining.join(loaded, found).loaded
    except ProxyError as error:
        return joining.warned(loaded, error.message)


def _told(loaded: Loaded, args: argparse.Namespace) -> Loaded:
    for fault in loaded.faults:
        print(fault, file=sys.stderr)
    if not (loaded.readable or args.config or os.environ.get(VARIABLE)):
        print("Name a file by -c, or let `newapi-proxy init` write one.", file=sys.stderr)
    return loaded


def require(args: argparse.Namespace) -> Config:
    """The configuration, or an exit with code 1 after its faults are told (2 where it cannot be read)."""
    loaded = load(args)
    if loaded.config is None:
        raise SystemExit(code(loaded))
    return loaded.config


def code(loaded: Loaded) -> int:
    """0, 1 with faults, 2 where the file cannot be read."""
    if not loaded.readable:
        return UNREADABLE
    return FAULTS if loaded.faults else 0

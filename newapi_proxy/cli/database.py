"""How commands reach the database that the configuration names, beside a running daemon."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection

from newapi_proxy.cli import settings
from newapi_proxy.config.model import Config
from newapi_proxy.errors import ProxyError
from newapi_proxy.store import db


def place(args: argparse.Namespace, config: Config | None = None) -> tuple[str, Path]:
    """The database's URL and the folder that relative ones start from. Exits where the configuration is faulty."""
    config = config or settings.require(args)
    return config.database.reveal(), settings.locate(args.config, os.environ).resolve().parent


def use(
    args: argparse.Namespace, work: Callable[[Connection], int], *, write: bool, config: Config | None = None
) -> int:
    """Runs the work in one transaction; its exit code, or 1 with a sentence on stderr.

    `config` where the caller has read it already.
    """
    url, base = place(args, config)
    try:
        return db.run(url, base, work, write=write)
    except ProxyError as error:
        return failed(error.message)


def failed(message: str) -> int:
    """Says what went wrong; exit code 1."""
    print(message, file=sys.stderr)
    return 1

"""`serve`: the daemon in the foreground. The supervisor is systemd, or a shell."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Final

from newapi_proxy.cli import settings

CANNOT_START: Final = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Takes nothing but the file."""


def run(args: argparse.Namespace) -> int:
    """0 after a drained stop, 1 faults in the file, 2 no file, 3 no socket or database, 4 stopped before drained."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})  # until their handlers stand
    loaded = settings.load(args)
    if loaded.config is None:
        return settings.code(loaded)
    from newapi_proxy import daemon

    try:
        return daemon.run(settings.locate(args.config, os.environ).absolute(), loaded)
    except daemon.CannotStart as error:
        print(f"newapi-proxy: {error}", file=sys.stderr)
        return CANNOT_START

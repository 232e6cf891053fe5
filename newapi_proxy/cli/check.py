"""`check`: everything that serve and a reload would find, without serving."""

from __future__ import annotations

import argparse
import sys

from newapi_proxy.cli import settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing when all is well")


def run(args: argparse.Namespace) -> int:
    """0, 1 with faults, 2 where the file cannot be read."""
    loaded = settings.load(args)
    if loaded.config is not None and not args.quiet:
        config = loaded.config
        print(f"{loaded.files[0]}: ok ({len(config.channels)} channels, {len(config.tokens)} tokens)", file=sys.stdout)
    return settings.code(loaded)

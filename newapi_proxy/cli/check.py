"""`check`: everything that serve and a reload would find, without serving."""

from __future__ import annotations

import argparse

from newapi_proxy.cli import settings
from newapi_proxy.cli.output import counted
from newapi_proxy.config.load import DATABASE


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing when all is well")


def run(args: argparse.Namespace) -> int:
    """0, 1 with faults, 2 where the file cannot be read."""
    loaded = settings.whole(args)
    if loaded.config is not None and not args.quiet:
        config = loaded.config
        held = sum(origin == DATABASE and path.endswith("].type") for path, origin in loaded.origins.items())
        theirs = f", {held} of them in the database" if held else ""
        channels, tokens = counted(len(config.channels), "channel"), counted(len(config.tokens), "token")
        print(f"{loaded.files[0]}: ok ({channels}{theirs}, {tokens})")
    return settings.code(loaded)

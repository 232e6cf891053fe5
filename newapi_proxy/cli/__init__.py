"""The command `newapi-proxy`: its table of commands, nothing of what they do.

A command's module is imported when that command is given, so that `check` does not load the web server. Each module
has `configure(parser)` and `run(args) -> int`; exit codes are those of interfaces 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import newapi_proxy

COMMANDS: Final[dict[str, str]] = {  # command, which is its module's name here → what it does
    "serve": "run the daemon in the foreground",
    "check": "read and validate everything, touch nothing",
    "show": "print the effective configuration",
    "init": "write a commented starter configuration",
    "schema": "print the JSON Schema of the configuration",
    "token": "clients' keys in the database",
    "channel": "upstream accounts in the database",
    "redeem": "redemption codes in the database",
    "task": "Midjourney and Suno tasks",
    "prices": "what models cost",
    "usage": "who spent what",
    "explain": "the arithmetic behind one charge",
    "db": "upgrade, back up and check the database",
}
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code. Wrong usage ends in argparse's own exit with code 2."""
    config, words = _config(list(sys.argv[1:] if argv is None else argv))
    wanted = next((word for word in words if not word.startswith("-")), "")
    parser = argparse.ArgumentParser(prog="newapi-proxy", description=newapi_proxy.__doc__)
    parser.add_argument("--version", action="version", version=f"newapi-proxy {newapi_proxy.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, does in COMMANDS.items():
        command = commands.add_parser(name, help=does, description=does)
        if name == wanted:
            command.add_argument("-c", "--config", metavar="FILE", help="the configuration file")
            module = importlib.import_module(f"newapi_proxy.cli.{name}")
            module.configure(command)
            command.set_defaults(run=module.run)
    if wanted:
        after = words.index(wanted) + 1
        words = [*words[:after], *config, *words[after:]]
    args = parser.parse_args(words)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _config(words: list[str]) -> tuple[list[str], list[str]]:
    """Takes `-c FILE` out of wherever it stands (`token list -c FILE`): argparse wants it right after the command."""
    taken: list[str] = []
    rest: list[str] = []
    given = iter(words)
    for word in given:
        if word == "--":
            return taken, [*rest, word, *given]
        if word in ("-c", "--config"):
            taken = [word, *[value for value in [next(given, None)] if value is not None]]
        elif word.startswith("--config="):
            taken = [word]
        else:
            rest.append(word)
    return taken, rest

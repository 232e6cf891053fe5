"""`init`: a commented starter configuration with one fresh random key, never over an existing file."""

from __future__ import annotations

import argparse
import os
import secrets
import string
import sys
from pathlib import Path
from typing import Final

_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 48  # as New API makes its keys

STARTER: Final = """\
# newapi_proxy. `newapi-proxy check` validates this file, `newapi-proxy show --origin` prints all that is in effect,
# `newapi-proxy schema` helps an editor. A reload (SIGHUP, systemctl reload) takes changes over without a restart.

listen: 127.0.0.1:3000              # or a list; 0.0.0.0:3000 for every address; unix:/run/newapi-proxy/http.sock
database: sqlite:///newapi.db       # beside this file; balances and history live there

# admin:
#   keys: [${ADMIN_KEY}]            # for /metrics on this listener; without a key it is not there

groups:                             # group: ratio on every price
  default: 1

prices:                             # USD per million tokens, or {call: USD}; on top of the built-in table
  echo: {input: 1, output: 2}

channels:
  - name: echo                      # answers locally: a trial without any account; remove it when you have a real one
    type: echo
    models: [echo]
#  - name: openai
#    type: openai
#    key: ${OPENAI_API_KEY}         # from the environment; or {file: openai.key}, or the key itself
#    models: [gpt-4o, gpt-4o-mini]

tokens:
  - name: first
    key: KEY
#    quota: $10                     # absent: unlimited
#    models: [gpt-4o*]              # absent: all that its group reaches
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(args: argparse.Namespace) -> int:
    """0, or 1 where the file exists or cannot be written."""
    path = Path(args.config or "config.yaml")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{path}: exists already; nothing was changed", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{path}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask takes away
        file.write(STARTER.replace("KEY\n", fresh() + "\n", 1))
    print(f"{path}: written, with one key for clients in it; next: newapi-proxy serve -c {path}")
    return 0


def fresh() -> str:
    """A client's key: `sk-` and 48 random letters and digits."""
    return "sk-" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))

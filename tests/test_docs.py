"""The documents: what exists is documented, what is documented exists, and what they show runs as it stands.

In README.md a block marked `sh` or `python` is run against a daemon with the example configuration, a `yaml` block is
checked as a configuration, the `json` block is a request line; `text` blocks are only read.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import pytest
import yaml

from newapi_proxy import log, metrics
from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.cli import COMMANDS
from newapi_proxy.config.model import Config
from tests.fakes.process import Daemon
from tests.laws import ROOT

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE: Final = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
INSTALL: Final = "python3 -m venv .venv && .venv/bin/pip install -q -e"
SERVE: Final = f"{INSTALL} . && .venv/bin/newapi-proxy serve -c config.example.yaml"
TEST: Final = f"{INSTALL} '.[test]' && .venv/bin/pytest -q"


def blocks(kind: str) -> list[str]:
    """The README's code blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def first_cells(header: str) -> set[str]:
    """The code words in the first column of the README's table whose head begins so."""
    rows = README.split(f"\n| {header} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])}


def keys(kind: Any = Config) -> Iterator[str]:
    """Every key of the configuration's tree."""
    if isinstance(kind, msgspec.inspect.StructType):
        for one in kind.fields:
            yield one.encode_name
            yield from keys(one.type)
    elif isinstance(kind, type):
        yield from keys(msgspec.inspect.type_info(kind))
    elif isinstance(kind, msgspec.inspect.Metadata):
        yield from keys(kind.type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for one in kind.types:
            yield from keys(one)
    elif isinstance(kind, msgspec.inspect.DictType):
        yield from keys(kind.value_type)
    elif isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        yield from keys(kind.item_type)


def test_the_two_commands() -> None:
    """A fresh machine needs two commands, and README has both to the letter."""
    assert SERVE in README
    assert TEST in README


def test_every_key_is_in_the_example() -> None:
    """config.example.yaml shows every configuration key, live or commented."""
    shown = set(re.findall(r"([a-z][a-z0-9_]*):", EXAMPLE))
    assert set(keys()) <= shown


def test_every_type_is_in_the_example() -> None:
    """config.example.yaml has an example of every channel type, and none of a type that nobody knows."""
    shown = set(re.findall(r"^ *(?:# *)?(?:- )?type: ([\w-]+)", EXAMPLE, re.MULTILINE))
    assert shown == set(ADAPTERS)


def test_metrics_table() -> None:
    """README names every metric, and no other."""
    assert first_cells("metric") == set(metrics.METRICS)


def test_events_table() -> None:
    """README names every log event, and no other."""
    assert first_cells("event") == log.EVENTS


def test_commands_table() -> None:
    """README names every command, and no other."""
    assert first_cells("command") == set(COMMANDS)


def test_request_line() -> None:
    """The log line that README shows has the fields of a real one, in their order."""
    (line,) = blocks("json")
    shown = orjson.loads(line)
    fields = {one.name for one in msgspec.structs.fields(log.Finished) if one.default is not msgspec.UNSET}
    assert set(shown) == fields | {"ts", "level", "event"}
    assert set(shown["attempts"][0]) == set(log.Attempt.__struct_fields__)


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_yaml_blocks(number: int, tmp_path: Path) -> None:
    """Every configuration that README shows passes `check` as it stands, and all of it has an effect."""
    text = blocks("yaml")[number]
    variables = {name: f"sk-{name.lower()}-0123456789" for name in re.findall(r"\$\{(\w+)\}", text)}
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("sqlite:////var/lib/newapi-proxy", f"sqlite:///{tmp_path}"))
    path.chmod(0o600)
    command = [sys.executable, "-m", "newapi_proxy", "check", "-c", str(path)]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "this version" not in run.stderr


@pytest.fixture
def example(daemon: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    """The example configuration, served on a free port, and the command beside it."""
    text = EXAMPLE.replace("\nlisten: 127.0.0.1:3000", "\nlisten: 127.0.0.1:@PORT@")
    assert text != EXAMPLE
    running = daemon(text)
    folder = running.config.parent
    shutil.copy(running.config, folder / "config.example.yaml")
    command = folder / "bin" / "newapi-proxy"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m newapi_proxy "$@"\n')
    command.chmod(0o755)
    return running


def shown(example: Daemon, *command: str, text: str) -> str:
    """Runs a block of README beside the daemon; its output."""
    folder = example.config.parent
    run = subprocess.run(
        [*command, text.replace("http://127.0.0.1:3000", example.url)],
        cwd=folder,
        env=os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, f"{text}\n{run.stdout}\n{run.stderr}\n{example.lines[-3:]}"
    return run.stdout


def test_sh_blocks(example: Daemon) -> None:
    """Every command that README shows works against the example as it stands."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    outputs = [shown(example, "sh", "-euc", text=block) for block in blocks("sh")]
    assert orjson.loads(outputs[0])["choices"][0]["message"]["role"] == "assistant"
    assert outputs[1].rstrip().endswith("data: [DONE]")
    assert "demo" in outputs[2]
    lines = [line for line in example.lines if line["event"] == "request"]
    ends = [(line["status"], line["end"], line["stream"]) for line in lines]
    assert ends == [(200, "ok", False), (200, "ok", True), (200, "ok", False)]
    assert [line["quota"] > 0 for line in lines] == [True, True, False]
    assert orjson.loads(outputs[3])["data"]["total_used"] == sum(line["quota"] for line in lines)


def test_python_blocks(example: Daemon) -> None:
    """Every client that README shows gets an answer from the example."""
    for block in blocks("python"):
        assert shown(example, sys.executable, "-W", "ignore", "-c", text=block).strip()


def test_routes(example: Daemon) -> None:
    """Every route that README names is there: a request is served, or refused for what is in it."""
    table = README.split("\n| route |", 1)[1].split("\n\n", 1)[0]
    host = example.url.removeprefix("http://")
    for method, cell in re.findall(r"`(GET|POST) ([^|]*)\|", table):
        for path in re.findall(r"(?:^|`)(/[\w/.:-]+)", cell):
            connection = http.client.HTTPConnection(host, timeout=5)
            connection.request(method, path, b"{}" if method == "POST" else None, {"authorization": "Bearer sk-demo"})
            status = connection.getresponse().status
            connection.close()
            assert status not in (404, 405, 501) or path == "/metrics", f"{method} {path}: {status}"


def test_example_is_yaml() -> None:
    """config.example.yaml is one plain document with the demonstration key in it."""
    assert yaml.safe_load(EXAMPLE)["tokens"][0]["key"] == "sk-demo"

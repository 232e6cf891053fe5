"""The commands that work on a configuration: check, show, init, schema, and what all commands share."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from newapi_proxy import cli
from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.cli import output, schema
from newapi_proxy.cli import settings as cli_settings
from newapi_proxy.config import model

CANARY = "sk-canary-0123456789"
GOOD = (
    f"database: mysql://user:{CANARY}@host/name\nadmin: {{keys: [{CANARY}]}}\nrelay: {{keepalive: 5s}}\n"
    f"channels:\n- name: a\n  type: openai\n  key: {CANARY}\n  models: [gpt-4o]\n  proxy: socks5://user:{CANARY}@127.0.0.1:1\n"
    f"  base_url: https://user:{CANARY}@h\n  headers: {{X-Api-Key: {CANARY}, X-Team: blue}}\n"
    f"tokens:\n- name: t\n  key: {CANARY}\n  quota: $5\n  expires: 2027-12-31\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, none of our variables set."""
    monkeypatch.chdir(tmp_path)
    for name in ("NEWAPI_PROXY_CONFIG", "PORT", "TZ", "SQL_DSN", "SQLITE_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(path: Path, content: str) -> Path:
    """A file for its owner."""
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    return path


def test_check_of_a_good_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A valid file is said to be so on stdout, code 0, and nothing is made beside it."""
    write(folder / "config.yaml", GOOD)
    assert cli.main(["check"]) == 0
    assert capsys.readouterr() == ("config.yaml: ok (1 channel, 1 token)\n", "")
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_check_of_a_bad_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every fault is one line on stderr, code 1."""
    write(folder / "c.yaml", "relais: 1\nlog: {level: x}\n")
    assert cli.main(["check", "-c", "c.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "c.yaml:1:1: relais: unknown key (did you mean relay?)",
        "c.yaml:2:14: log.level: 'x' is none of debug, error, info, warning",
    ]


def test_check_of_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is code 2."""
    assert cli.main(["check", "-c", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "nowhere.yaml:1:1: (file): cannot be read: No such file or directory\n"


@pytest.mark.skipif(cli_settings.PLACES[1].exists(), reason="a configuration is installed on this machine")
def test_no_file_anywhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who has no configuration yet is told how to get one."""
    assert cli.main(["check"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["Name a file by -c, or let `newapi-proxy init` write one."]


def test_warnings_are_for_who_checks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report or a new key says nothing of them: cron would send it by mail."""
    write(folder / "config.yaml", "channels: [{name: a, type: echo}]\n")
    assert cli.main(["token", "add", "me", "--unlimited"]) == 0
    assert cli.main(["usage", "--format", "csv"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.main(["show"]) == 0
    assert "warning: channel a has no models" in capsys.readouterr().err


def test_a_driver_that_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve` would not start, so `check` says it."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    write(folder / "config.yaml", "database: postgresql://127.0.0.1:1/x\n")
    assert cli.main(["check", "--quiet"]) == 0
    assert capsys.readouterr().err == (
        "config.yaml:1:1: database: warning: The driver asyncpg is missing: pip install 'newapi-proxy[postgres]'.\n"
    )


def test_warnings_do_not_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning is a line on stderr that says so; the code stays 0."""
    write(folder / "config.yaml", "channels: [{name: a, type: echo}]\n")
    assert cli.main(["check", "--quiet"]) == 0
    assert capsys.readouterr() == (
        "", "config.yaml:1:12: channels[0].models: warning: channel a has no models: nothing reaches it\n"
    )  # fmt: skip


@pytest.mark.parametrize("words", [["check", "-c", "x.yaml"], ["-c", "x.yaml", "check"], ["check", "--config=x.yaml"]])
def test_the_file_is_named_anywhere(words: list[str], folder: Path) -> None:
    """`-c FILE` may stand before or behind the command."""
    write(folder / "x.yaml", "log: {}\n")
    assert cli.main(words) == 0


def test_where_the_file_is_looked_for(folder: Path) -> None:
    """-c, then the variable, then ./config.yaml."""
    environ = {"NEWAPI_PROXY_CONFIG": "v.yaml"}
    assert cli_settings.locate("given.yaml", environ) == Path("given.yaml")
    assert cli_settings.locate(None, environ) == Path("v.yaml")
    write(folder / "config.yaml", "log: {}\n")
    assert cli_settings.locate(None, {}) == Path("config.yaml")


def test_show_reads_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is shown is YAML with every key of the model, values in the units people write."""
    write(folder / "config.yaml", GOOD)
    assert cli.main(["show"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert list(shown) == [field.name for field in msgspec.structs.fields(model.Config)]
    assert (shown["relay"]["keepalive"], shown["relay"]["max_body"], shown["tokens"][0]["quota"]) == (
        "5s",
        "32MiB",
        "$5",
    )
    assert str(shown["tokens"][0]["expires"]) == "2027-12-31"


@pytest.mark.parametrize("words", [[], ["--origin"]])
def test_show_masks_secrets(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No secret is printed: not by type, not in a URL, not in a header."""
    write(folder / "config.yaml", GOOD)
    assert cli.main(["show", *words]) == 0
    out, err = capsys.readouterr()
    assert CANARY not in out + err
    assert "mysql://user:***@host/name" in out
    assert "X-Team: blue" in out


def test_show_says_where_from(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value has its origin: a place, a variable, the default."""
    monkeypatch.setenv("STREAMING_TIMEOUT", "45")
    monkeypatch.setenv("ZONE", "UTC")
    write(folder / "config.yaml", "relay:\n  keepalive: 5s\ntimezone: ${ZONE}\nprices: {gpt-4.1: {call: 1}}\n")
    assert cli.main(["show", "--origin"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "keepalive: 5s  # config.yaml:2" in lines
    assert "streaming_timeout: 45s  # env:STREAMING_TIMEOUT" in lines
    assert "timezone: UTC  # config.yaml:3 env:ZONE" in lines
    assert "call: 1.0  # config.yaml:4" in lines
    assert "max_body: 32MiB  # default" in lines


def test_show_of_a_bad_file(folder: Path) -> None:
    """There is nothing to show, code 1, also where nothing can be read."""
    write(folder / "config.yaml", "relais: 1\n")
    assert cli.main(["show"]) == 1
    assert cli.main(["show", "-c", "nowhere.yaml"]) == 1


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_init(umask: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A starter file is the owner's alone whatever the umask, holds a fresh key, and is valid without a warning."""
    before = os.umask(umask)
    try:
        assert cli.main(["init"]) == 0
    finally:
        os.umask(before)
    path = folder / "config.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    (key,) = re.findall(r"key: (sk-[A-Za-z0-9]{48})\n", path.read_text(encoding="utf-8"))
    out = capsys.readouterr().out
    assert key not in out
    assert cli.main(["check", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_init_keys_differ(folder: Path) -> None:
    """Two files have two keys."""
    assert cli.main(["init", "-c", "a.yaml"]) == cli.main(["init", "-c", "b.yaml"]) == 0
    assert (folder / "a.yaml").read_text() != (folder / "b.yaml").read_text()


def test_init_never_overwrites(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing file, and a link to nowhere, stay as they are; code 1."""
    write(folder / "config.yaml", "mine\n")
    (folder / "link.yaml").symlink_to(folder / "target.yaml")
    assert cli.main(["init"]) == cli.main(["init", "-c", "link.yaml"]) == cli.main(["init", "-c", "no/such.yaml"]) == 1
    assert (folder / "config.yaml").read_text() == "mine\n"
    assert not (folder / "target.yaml").exists()
    assert "exists already" in capsys.readouterr().err


def test_schema_knows_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema lists all keys, each with a description, and all channel types."""
    assert cli.main(["schema"]) == 0
    tree = msgspec.json.decode(capsys.readouterr().out)
    definitions = tree["$defs"]
    for struct in (model.Config, model.Relay, model.Fetch, model.Channel, model.Token, model.Price, model.Limits):
        keys = definitions[struct.__name__]["properties"]
        assert list(keys) == [field.name for field in msgspec.structs.fields(struct)]
        assert all(one.get("description") for one in keys.values())
        assert definitions[struct.__name__]["additionalProperties"] is False
    assert set(definitions["Channel"]["properties"]["type"]["enum"]) == set(ADAPTERS)
    assert definitions["Channel"]["required"] == ["name", "type"]


def test_schema_references_exist() -> None:
    """Every $ref names a definition."""
    tree = schema.schema()
    references = set(re.findall(r"'#/\$defs/([^']+)'", str(tree)))
    assert references
    assert references <= set(tree["$defs"])


def test_schema_takes_units_as_text_or_number() -> None:
    """Durations, sizes and money may be numbers or text; secrets text or a file."""
    definitions = schema.schema()["$defs"]
    keepalive = definitions["Relay"]["properties"]["keepalive"]
    assert keepalive["anyOf"] == [{"type": "number"}, {"type": "string"}]
    secret: Any = definitions["Channel"]["properties"]["keys"]["items"]["anyOf"]
    assert secret[0] == {"type": "string"}
    assert secret[1]["required"] == ["file"]


def test_check_does_not_load_the_server() -> None:
    """A command imports only what it needs: neither the web nor the database's library for `check`."""
    code = (
        "import sys, newapi_proxy.cli.check, newapi_proxy.cli.show, newapi_proxy.cli.init, newapi_proxy.cli.schema\n"
        "print(*sorted({'aiohttp', 'asyncio', 'sqlalchemy', 'uvloop', 'tiktoken'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """No command, and an unknown one, end with usage and code 2."""
    for words in ([], ["chek"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code == 2
    assert "usage: newapi-proxy" in capsys.readouterr().err


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are aligned, numbers to the right, wide letters counted as two, control characters taken out."""
    output.table([{"name": "a\x1b[2J", "n": 5}, {"name": "模型", "n": 1000}], ("name", "n"))
    assert capsys.readouterr().out == "name      n\na [2J     5\n模型   1000\n"


def test_forms(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON keeps types, CSV quotes; both have just the columns asked for."""
    rows = [{"name": 'a,"b', "n": 5, "other": 1}, {"name": "c", "n": None}]
    output.rows(rows, ("name", "n"), "json")
    assert msgspec.json.decode(capsys.readouterr().out) == [{"name": 'a,"b', "n": 5}, {"name": "c", "n": None}]
    output.rows(rows, ("name", "n"), "csv")
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [["name", "n"], ['a,"b', "5"], ["c", ""]]

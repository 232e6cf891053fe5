"""Broken configurations: each mistake is told at its place, in words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from newapi_proxy.config.load import Loaded, read

TOKEN = "tokens: [{name: a, key: sk-one}]\n"
ECHO = "channels:\n- name: e\n  type: echo\n  models: [echo]\n"


def load(folder: Path, text: str, environ: dict[str, str] | None = None, **files: str) -> Loaded:
    """Writes config.yaml and its neighbours (`a_yaml` is a.yaml), owner-only, and reads them."""
    for name, content in {
        "config.yaml": text,
        **{key.replace("_", "."): value for key, value in files.items()},
    }.items():
        path = folder / name
        path.write_text(content, encoding="utf-8")
        path.chmod(0o600)
    return read(folder / "config.yaml", environ or {})


def faults(folder: Path, text: str, environ: dict[str, str] | None = None, **files: str) -> list[str]:
    """The lines that `check` would print, the folder's name cut."""
    loaded = load(folder, text, environ, **files)
    assert (loaded.config is None) == bool(loaded.faults)
    return [str(fault).replace(f"{folder}/", "") for fault in loaded.faults]


CASES = {
    # syntax
    "unclosed list": ("relay: {a: [1\nb: 2\n", "config.yaml:2:2: yaml: did not find expected ',' or ']'"),
    "tab": ("relay:\n\tkeepalive: 5s\n", "config.yaml:2:1: yaml: a tab, where YAML wants spaces"),
    "two documents": ("a: 1\n---\nb: 2\n", "config.yaml:2:1: yaml: a second document begins here; one file holds one"),
    "unknown tag": (
        "log: !python/object:os.system x\n",
        "config.yaml:1:6: yaml: tag '!python/object:os.system' has no meaning here",
    ),
    "unknown alias": ("log: *nobody\n", "config.yaml:1:6: yaml: alias 'nobody' names no anchor above it"),
    "endless alias": ("log: &a [*a]\n", "config.yaml:1:10: yaml: alias 'a' contains itself"),
    "control character": ("log:\n  level: \x01\n", "config.yaml:2:10: yaml: character U+0001 is not allowed"),
    "a list": ("- 1\n", "config.yaml:1:1: (file): must be a mapping of keys to values"),
    "nothing": ("# only a comment\n", "config.yaml:1:1: (file): holds no configuration"),
    "key twice": ("log: {level: info}\nlog: {}\n", "config.yaml:2:1: log: is given twice, first at config.yaml:1:1"),
    "inner key twice": (
        "relay:\n  max_body: 1MiB\n  max_body: 2MiB\n",
        "config.yaml:3:3: relay.max_body: is given twice, first at config.yaml:2:3",
    ),
    "list as key": ("groups: {[a]: 1}\n", 'config.yaml:1:10: groups["?"]: a key must be text'),
    # keys and types
    "unknown key": ("relais: {}\n", "config.yaml:1:1: relais: unknown key (did you mean relay?)"),
    "unknown inner key": (
        "relay:\n  max_atempts: 3\n",
        "config.yaml:2:3: relay.max_atempts: unknown key (did you mean max_attempts?)",
    ),
    "unknown key without a guess": ("zzzz: 1\n", "config.yaml:1:1: zzzz: unknown key"),
    "word for number": (
        "relay: {max_attempts: five}\n",
        "config.yaml:1:23: relay.max_attempts: 'five' is no whole number",
    ),
    "fraction": ("relay: {max_attempts: 1.5}\n", "config.yaml:1:23: relay.max_attempts: '1.5' is no whole number"),
    "below the least": ("relay: {max_attempts: 0}\n", "config.yaml:1:23: relay.max_attempts: '0' is below 1"),
    "above the most": ("relay: {max_attempts: 101}\n", "config.yaml:1:23: relay.max_attempts: '101' is above 100"),
    "no boolean": (
        "relay: {force_stream_option: maybe}\n",
        "config.yaml:1:30: relay.force_stream_option: 'maybe' is neither true nor false",
    ),
    "no duration": (
        "relay: {keepalive: 5x}\n",
        "config.yaml:1:20: relay.keepalive: '5x' is no duration such as 30s, 5m or 250ms",
    ),
    "negative duration": (
        "relay: {keepalive: -5}\n",
        "config.yaml:1:20: relay.keepalive: a duration cannot be negative or endless",
    ),
    "no waiting at all": ("relay: {keepalive: 0}\n", "config.yaml:1:20: relay.keepalive: must be above 0"),
    "answers longer than charges": (
        "idempotency: {ttl: 31d}\n",
        "config.yaml:1:20: idempotency.ttl: must be at most 30 days: the ledger may forget the charge after that",
    ),
    "forgetting at once": ("retention: 2h\n", "config.yaml:1:12: retention: must be at least a day"),
    "years": ("relay: {total_timeout: 400d}\n", "config.yaml:1:24: relay.total_timeout: is longer than a year"),
    "no size": ("relay: {max_body: 32 MiBs}\n", "config.yaml:1:19: relay.max_body: '32 MiBs' is no size such as 32MiB"),
    "mapping for number": ("relay: {max_body: {}}\n", "config.yaml:1:19: relay.max_body: must be a size"),
    "value for mapping": ("relay: 5\n", "config.yaml:1:8: relay: must be a mapping, not a single value"),
    "value for list": ("admin: {keys: abcdef}\n", "config.yaml:1:15: admin.keys: must be a list, not a single value"),
    "no value": ("timezone:\n", "config.yaml:1:10: timezone: has no value"),
    "one of few": (
        "log: {level: inf}\n",
        "config.yaml:1:14: log.level: 'inf' is none of debug, error, info, warning (did you mean info?)",
    ),
    "not finite": ("groups: {default: .nan}\n", "config.yaml:1:19: groups.default: '.nan' is no number"),
    "huge": ("groups: {default: 1e999}\n", "config.yaml:1:19: groups.default: '1e999' is out of range"),
    "empty key of the management": ("admin: {keys: ['']}\n", "config.yaml:1:16: admin.keys[0]: has no value"),
    # across keys
    "timezone": (
        "timezone: Europe/Berlyn\n",
        "config.yaml:1:11: timezone: 'Europe/Berlyn' is no timezone such as UTC or Europe/Berlin "
        "(did you mean Europe/Berlin?)",
    ),
    "listen port": ("listen: 127.0.0.1:70000\n", "config.yaml:1:9: listen: port 70000 is above 65535"),
    "listen without host": (
        'listen: [":80"]\n',
        "config.yaml:1:10: listen[0]: ':80' names no host (did you mean 127.0.0.1:80?)",
    ),
    "listen twice": (
        "listen: [127.0.0.1:80, 127.0.0.1:80]\n",
        "config.yaml:1:24: listen[1]: 127.0.0.1:80 is given twice, first at config.yaml:1:10",
    ),
    "relative socket": (
        "listen: unix:run.sock\n",
        "config.yaml:1:9: listen: 'unix:run.sock' must name a socket by an absolute path of at most 107 bytes",
    ),
    "metrics on the main listener": (
        "listen: 127.0.0.1:80\nmetrics: {listen: 127.0.0.1:80}\n",
        "config.yaml:2:19: metrics.listen: 127.0.0.1:80 is given twice, first at config.yaml:1:9",
    ),
    "database kind": (
        "database: postgres://u:secret@h/d\n",
        "config.yaml:1:11: database: 'postgres' is none of sqlite, mysql, postgresql (did you mean postgresql?)",
    ),
    "database no url": (
        "database: newapi.db\n",
        "config.yaml:1:11: database: must be a URL beginning with sqlite://, mysql://, postgresql://",
    ),
    "database no name": ("database: mysql://u:secret@h\n", "config.yaml:1:11: database: names no database"),
    "host bits": (
        "trusted_proxies: [10.0.0.1/8]\n",
        "config.yaml:1:19: trusted_proxies[0]: '10.0.0.1/8' has bits set behind its mask (did you mean 10.0.0.0/8?)",
    ),
    "no network": (
        "trusted_proxies: [lan]\n",
        "config.yaml:1:19: trusted_proxies[0]: 'lan' is no address or network such as 10.0.0.0/8",
    ),
    "no status": ("relay: {no_retry: [4000]}\n", "config.yaml:1:20: relay.no_retry[0]: 4000 is no HTTP status"),
    "negative group ratio": ("groups: {a: {ratio: -1}}\n", "config.yaml:1:21: groups.a.ratio: is negative"),
    "two budgets for a day": (
        "tokens: [{name: a, key: b, budget: [{amount: 1, every: day}, {amount: 2, every: day}]}]\n",
        "config.yaml:1:81: tokens[0].budget[1].every: a budget for the day is given already",
    ),
    "group limit": (
        "groups: {a: {limits: {rpd: 0}}}\n",
        "config.yaml:1:28: groups.a.limits.rpd: must be above 0; leave it out for no limit",
    ),
    "key limit": (
        "channels: [{name: a, type: echo, key_limits: {tpm: -5}}]\n",
        "config.yaml:1:52: channels[0].key_limits.tpm: must be above 0; leave it out for no limit",
    ),
    "negative ratio": ("groups: {default: -1}\n", "config.yaml:1:19: groups.default: is negative"),
    "empty price": ("prices: {m: {}}\n", "config.yaml:1:13: prices.m: says no price; a free model is {call: 0}"),
    "two prices": (
        "prices: {gpt-4.1: {call: 1, input: 2}}\n",
        'config.yaml:1:26: prices["gpt-4.1"].call: a price per call excludes every other',
    ),
    "negative tier": (
        "prices: {m: {input: 2, tiers: [{above: 9, input: -1}]}}\n",
        "config.yaml:1:50: prices.m.tiers[0].input: is negative",
    ),
    "tiers without a base": (
        "prices: {m: {output: 2, tiers: [{above: 9, input: 1}]}}\n",
        "config.yaml:1:32: prices.m.tiers: needs an input price for shorter prompts",
    ),
    "negative picture": ("prices: {m: {images: {hd: -2}}}\n", "config.yaml:1:27: prices.m.images.hd: is negative"),
    "like and more": (
        "prices: {m: {like: gpt-4o, input: 1}}\n",
        "config.yaml:1:20: prices.m.like: another model's price excludes every other",
    ),
    "two lengths": (
        "prices: {m: {second: 1, minute: 1}}\n",
        "config.yaml:1:22: prices.m.second: and minute exclude each other",
    ),
    "negative price": ("prices: {m: {input: -2}}\n", "config.yaml:1:21: prices.m.input: is negative"),
    # channels
    "nameless": ("channels:\n- type: echo\n", "config.yaml:2:3: channels[0].name: is required"),
    "type": (
        "channels:\n- {name: a, type: opnai, key: k}\n",
        "config.yaml:2:19: channels[0].type: 'opnai' is no channel type (did you mean openai?)",
    ),
    "channel name twice": (
        "channels:\n- {name: a, type: echo}\n- {name: a, type: echo}\n",
        "config.yaml:3:10: channels[1].name: 'a' is given twice, first at config.yaml:2:10",
    ),
    "keyless": (
        "channels:\n- {name: a, type: openai}\n",
        "config.yaml:2:3: channels[0].key: key or keys is required for type openai",
    ),
    "key of two lines": (
        'channels:\n- {name: a, type: openai, key: "a\\nb"}\n',
        "config.yaml:2:32: channels[0].key: must be ASCII without control characters or line ends",
    ),
    "base_url": (
        "channels:\n- {name: a, type: echo, base_url: api.openai.com}\n",
        "config.yaml:2:35: channels[0].base_url: must be a URL such as https://api.openai.com (http://, https://)",
    ),
    "no base_url": (
        "channels:\n- {name: a, type: azure, key: k}\n",
        "config.yaml:2:3: channels[0].base_url: is required for type azure",
    ),
    "proxy": (
        "channels:\n- {name: a, type: echo, proxy: 'ftp://h'}\n",
        "config.yaml:2:32: channels[0].proxy: must be a URL such as socks5://127.0.0.1:1080 "
        "(http://, https://, socks4://, socks5://, socks5h://)",
    ),
    "group of a channel": (
        "groups: {vip: 1}\nchannels:\n- {name: a, type: echo, groups: [vipp]}\n",
        "config.yaml:3:34: channels[0].groups[0]: 'vipp' is no group of this configuration (did you mean vip?)",
    ),
    "header name": (
        "channels:\n- {name: a, type: echo, headers: {'X Team': b}}\n",
        'config.yaml:2:45: channels[0].headers["X Team"]: is no header name',
    ),
    "header value": (
        'channels:\n- {name: a, type: echo, headers: {X-Team: "b\\r\\nc"}}\n',
        "config.yaml:2:43: channels[0].headers.X-Team: a header's value is one line of Latin-1 text",
    ),
    "header of the connection": (
        "channels:\n- {name: a, type: echo, headers: {Content-Length: 5}}\n",
        "config.yaml:2:51: channels[0].headers.Content-Length: is set by the connection itself",
    ),
    "weight": (
        "channels:\n- {name: a, type: echo, weight: -1}\n",
        "config.yaml:2:33: channels[0].weight: '-1' is below 0",
    ),
    "option": (
        "channels:\n- name: a\n  type: azure\n  key: k\n  base_url: http://h\n  options:\n    api_versoin: 1\n",
        "config.yaml:7:5: channels[0].options.api_versoin: unknown key (did you mean api_version?)",
    ),
    "option's value": (
        "channels:\n- {name: a, type: echo, options: {strict_params: perhaps}}\n",
        "config.yaml:2:50: channels[0].options.strict_params: 'perhaps' is neither true nor false",
    ),
    "status mapping from": (
        "channels:\n- {name: a, type: echo, status_code_mapping: {4OO: 500}}\n",
        "config.yaml:2:52: channels[0].status_code_mapping[\"4OO\"]: '4OO' is no HTTP status",
    ),
    "status mapping to": (
        "channels:\n- {name: a, type: echo, status_code_mapping: {400: 200}}\n",
        'config.yaml:2:52: channels[0].status_code_mapping["400"]: 200 is no HTTP status of an error (400 to 599)',
    ),
    "channel limit": (
        "channels:\n- {name: a, type: echo, limits: {rpm: 0}}\n",
        "config.yaml:2:39: channels[0].limits.rpm: must be above 0; leave it out for no limit",
    ),
    "edit without a path": (
        "channels:\n- {name: a, type: echo, override: {remove: [a..b]}}\n",
        "config.yaml:2:45: channels[0].override.remove[0]: 'a..b' is no dotted path such as a.b.0",
    ),
    # tokens
    "token name twice": (
        "tokens:\n- {name: a, key: k1}\n- {name: a, key: k2}\n",
        "config.yaml:3:10: tokens[1].name: 'a' is given twice, first at config.yaml:2:10",
    ),
    "token key twice": (
        "tokens:\n- {name: a, key: sk-k1}\n- {name: b, key: k1}\n",
        "config.yaml:3:18: tokens[1].key: this key is given twice, first at config.yaml:2:18",
    ),
    "token without key": ("tokens:\n- {name: a}\n", "config.yaml:2:3: tokens[0].key: key or key_sha256 is required"),
    "token with both": (
        "tokens:\n- {name: a, key: k, key_sha256: " + "0" * 64 + "}\n",
        "config.yaml:2:33: tokens[0].key_sha256: key and key_sha256 exclude each other",
    ),
    "digest": (
        "tokens:\n- {name: a, key_sha256: abc}\n",
        "config.yaml:2:25: tokens[0].key_sha256: must be 64 hex digits",
    ),
    "token group": (
        "tokens:\n- {name: a, key: k, group: defualt}\n",
        "config.yaml:2:28: tokens[0].group: 'defualt' is no group of this configuration (did you mean default?)",
    ),
    "expiry": (
        "tokens:\n- {name: a, key: k, expires: 2027-02-30}\n",
        "config.yaml:2:30: tokens[0].expires: '2027-02-30' is no day of the calendar",
    ),
    "expiry's form": (
        "tokens:\n- {name: a, key: k, expires: 31.12.2027}\n",
        "config.yaml:2:30: tokens[0].expires: '31.12.2027' is no date such as 2027-12-31",
    ),
    "quota": (
        "tokens:\n- {name: a, key: k, quota: 5 EUR}\n",
        "config.yaml:2:28: tokens[0].quota: '5 EUR' is no amount such as $5, 0.002 USD or 500000",
    ),
    "negative quota": ("tokens:\n- {name: a, key: k, quota: $-5}\n", "config.yaml:2:28: tokens[0].quota: is negative"),
    "budget": (
        "tokens:\n- {name: a, key: k, budget: {amount: $1, every: dya}}\n",
        "config.yaml:2:49: tokens[0].budget.every: 'dya' is none of day, month, week (did you mean day?)",
    ),
    "half a budget": (
        "tokens:\n- {name: a, key: k, budget: {every: day}}\n",
        "config.yaml:2:29: tokens[0].budget.amount: is required",
    ),
    "allowed address": (
        "tokens:\n- {name: a, key: k, allow_ips: [10.0.0.0/40]}\n",
        "config.yaml:2:33: tokens[0].allow_ips[0]: '10.0.0.0/40' is no address or network such as 10.0.0.0/8",
    ),
    # references
    "variable": ("timezone: ${ZONE}\n", "config.yaml:1:11: timezone: the environment variable ZONE is not set"),
    "variable in a flow list": (
        "admin: {keys: [${ONE:-abcdefgh}, ${TWO}]}\n",
        "config.yaml:1:34: admin.keys[1]: the environment variable TWO is not set",
    ),
    "unclosed reference": (
        'timezone: "${ZONE"\n',
        "config.yaml:1:11: timezone: '${' is no ${NAME} or ${NAME:-default} (a literal one is written $${)",
    ),
    "reference's name": (
        'timezone: "${2}"\n',
        "config.yaml:1:11: timezone: '${2}' is no ${NAME} or ${NAME:-default} (a literal one is written $${)",
    ),
    "secret's file": (
        "tokens:\n- {name: a, key: {file: nowhere}}\n",
        "config.yaml:2:25: tokens[0].key.file: the secret's file nowhere cannot be read: No such file or directory",
    ),
    "include": (
        "include: [other.yaml]\nlog: {}\n",
        "config.yaml:1:11: include[0]: other.yaml cannot be read: No such file or directory",
    ),
    "include itself": ("include: [config.yaml]\n", "config.yaml:1:11: include[0]: config.yaml includes itself"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_at_its_place(name: str, tmp_path: Path) -> None:
    """Each broken file gives exactly one line, with file, line, column, key and reason."""
    text, expected = CASES[name]
    assert faults(tmp_path, text) == [expected]


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """One reading finds every fault, those of types and those across keys, in the order of the file."""
    text = (
        "relay: {max_atempts: 3, keepalive: 5x}\ntimezone: Nowhere/Land\n"
        "channels:\n- {name: a, type: opnai}\n- {name: a, type: echo, weight: x}\n"
        "tokens:\n- {name: t, key: ${NO}, group: vip}\n"
    )
    places = [line.split(": ")[:2] for line in faults(tmp_path, text)]
    assert places == [
        ["config.yaml:1:9", "relay.max_atempts"],
        ["config.yaml:1:36", "relay.keepalive"],
        ["config.yaml:2:11", "timezone"],
        ["config.yaml:4:19", "channels[0].type"],
        ["config.yaml:5:10", "channels[1].name"],
        ["config.yaml:5:33", "channels[1].weight"],
        ["config.yaml:7:18", "tokens[0].key"],
        ["config.yaml:7:32", "tokens[0].group"],
    ]


def test_what_comes_from_elsewhere_is_not_repeated(tmp_path: Path) -> None:
    """A value out of the environment may be a secret: messages name the variable only."""
    text = "relay: {max_attempts: ${A}, keepalive: ${A}, max_body: ${A}}\nlog: {level: ${A}}\ngroups: {default: ${A}}\n"
    lines = faults(tmp_path, text, {"A": "sk-canary"})
    assert len(lines) == 5
    assert all("the value of $A" in line and "canary" not in line for line in lines)


def test_depth_and_size_are_bounded(tmp_path: Path) -> None:
    """Deep nesting and exploding aliases are refused without using the stack or the memory."""
    assert "nested deeper than 50 levels" in faults(tmp_path, "portal: " + "[" * 100_000)[0]
    rows = "\n".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))
    assert "more than 200000 values" in faults(tmp_path, f"portal:\n  a0: &a0 [1]\n{rows}\n")[0]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A binary file is a fault at the first byte that is no UTF-8."""
    (tmp_path / "config.yaml").write_bytes(b"log: {}\nrelay: \xff\xfe\n")
    (line,) = read(tmp_path / "config.yaml", {}).faults
    assert (line.line, line.col, line.message) == (2, 8, "is no UTF-8 text")


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_opened(name: str, tmp_path: Path) -> None:
    """A missing file and a directory are no configuration, and said to be unreadable."""
    loaded = read(tmp_path / name, {})
    assert (loaded.readable, loaded.config) == (False, None)
    assert "cannot be read" in str(loaded.faults[0])

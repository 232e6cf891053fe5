"""Configurations that hold: values, units, includes, the environment, precedence, origins, secrets, warnings."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.config import advice, load, text, units
from newapi_proxy.config.load import Loaded, read
from newapi_proxy.config.model import Config, Group, Limits

CANARY = "sk-canary-0123456789"


def write(folder: Path, **files: str) -> Path:
    """Files readable by their owner only; `conf_d__a` is conf.d/a.yaml. Returns the main one."""
    for name, content in files.items():
        path = folder / (name.replace("__", "/").replace("conf_d", "conf.d") + ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(0o600)
    return folder / "config.yaml"


def good(folder: Path, content: str, environ: dict[str, str] | None = None, **files: str) -> tuple[Config, Loaded]:
    """The configuration of a text without faults."""
    loaded = read(write(folder, config=content, **files), environ or {})
    assert loaded.faults == ()
    assert loaded.config is not None
    return loaded.config, loaded


def bad(folder: Path, content: str, environ: dict[str, str] | None = None, **files: str) -> list[str]:
    """The faults of a text, the folder's name cut."""
    loaded = read(write(folder, config=content, **files), environ or {})
    return [str(fault).replace(f"{folder}/", "") for fault in loaded.faults]


def warned(folder: Path, content: str, environ: dict[str, str] | None = None) -> list[str]:
    """Key and message of each warning."""
    return [f"{one.key}: {one.message}" for one in good(folder, content, environ)[1].warnings]


def test_units_and_types(tmp_path: Path) -> None:
    """Durations, sizes, money, dates and numbers in quotes become plain values."""
    config, _ = good(
        tmp_path,
        "relay: {keepalive: 250ms, total_timeout: 1m30s, connect_timeout: 5, max_body: 64KiB, max_attempts: '4'}\n"
        "channels: [{name: 1, type: echo, models: [1.5, yes], status_code_mapping: {400: '500', '429': 503}}]\n"
        "tokens: [{name: t, key: k, quota: $5, budget: {amount: 0.002 USD, every: day}, expires: 2027-12-31}]\n",
    )
    relay = config.relay
    assert (relay.keepalive, relay.total_timeout, relay.connect_timeout) == (0.25, 90.0, 5.0)
    assert (relay.max_body, relay.max_attempts) == (65536, 4)
    assert (config.channels[0].name, config.channels[0].models) == ("1", ("1.5", "yes"))
    assert config.channels[0].status_code_mapping == {"400": 500, "429": 503}
    token = config.tokens[0]
    assert token.budget is not None
    assert (token.quota, token.budget.amount, token.expires) == (2_500_000, 1000, date(2027, 12, 31))


def test_free_values_are_read_as_json_would(tmp_path: Path) -> None:
    """Where no type is declared `yes`, times and dates stay text, so that an upstream gets what was written."""
    content = "{a: [1, 1.5, true, null, yes, 12:30, 2027-01-01, '1', 0x10, 010]}"
    config, _ = good(tmp_path, f"channels: [{{name: e, type: echo, models: [m], override: {{set: {content}}}}}]\n")
    assert config.channels[0].override.set["a"] == [1, 1.5, True, None, "yes", "12:30", "2027-01-01", "1", 16, "010"]


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "[::1]:80", "localhost:0", "unix:/run/x.sock"])
def test_listen_is_one_or_a_list(listen: str, tmp_path: Path) -> None:
    """An address and a list of addresses are both taken."""
    assert good(tmp_path, f'listen: "{listen}"\n')[0].listen == listen
    assert good(tmp_path, f'listen: ["{listen}"]\n')[0].listen == (listen,)


def test_empty_sections_are_absent(tmp_path: Path) -> None:
    """A key whose entries are all commented out is the same as no key."""
    config, _ = good(tmp_path, "channels:\ntokens:\nrelay:\nprices:\nportal:\n")
    assert config == Config()


def test_the_default_group_is_always_there(tmp_path: Path) -> None:
    """Tokens without a group keep working when somebody lists other groups only."""
    assert good(tmp_path, "groups: {vip: 0.8}\n")[0].groups == {"default": 1.0, "vip": 0.8}


def test_a_group_with_limits(tmp_path: Path) -> None:
    """Beside a bare ratio a group may be a mapping with its ratio and its limits."""
    config, _ = good(tmp_path, "groups: {vip: {ratio: 0.8, limits: {rpm: 5}}, all: {limits: {tpm: 9}}}\n")
    assert config.groups["vip"] == Group(ratio=0.8, limits=Limits(rpm=5))
    assert config.ratios_by_group() == {"default": 1.0, "vip": 0.8, "all": 1.0}


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    """What stands in a mapping wins over what it merges."""
    config, _ = good(
        tmp_path,
        "channels:\n- &base {name: a, type: echo, models: [m], weight: 7}\n- {<<: *base, name: b, priority: 2}\n",
    )
    second = config.channels[1]
    assert (second.name, second.type, second.weight, second.priority) == ("b", "echo", 7, 2)


def test_keys_of_a_channel(tmp_path: Path) -> None:
    """`key` and `keys` are one list, each key once."""
    config, _ = good(tmp_path, "channels: [{name: a, type: openai, key: k1, keys: [k2, k1], models: [gpt-4o]}]\n")
    assert [key.reveal() for key in load.keys(config.channels[0])] == ["k1", "k2"]


def test_options_become_the_adapters_own(tmp_path: Path) -> None:
    """Options are read with the adapter's types: a version that looks like a date is text."""
    config, _ = good(
        tmp_path,
        "channels:\n- {name: a, type: azure, key: k, base_url: 'http://h', models: [gpt-4o],"
        " options: {api_version: 2024-10-21, strip_dots: 'true'}}\n",
    )
    assert config.channels[0].options == {"api_version": "2024-10-21", "strip_dots": True}
    options = load.options(config.channels[0])
    assert (options.api_version, options.default_max_tokens) == ("2024-10-21", None)  # type: ignore[attr-defined]


# files


def test_includes_add_up(tmp_path: Path) -> None:
    """Globs are relative to the file that names them; lists of channels and tokens add up, mappings join."""
    config, loaded = good(
        tmp_path,
        "include: [conf.d/*.yaml]\nrelay: {max_attempts: 2}\nprices: {a: {call: 1}}\ntokens: [{name: t0, key: k0}]\n",
        conf_d__a="include: [b.yaml]\nrelay: {keepalive: 5s}\nprices: {b: {call: 2}}\ntokens: [{name: t1, key: k1}]\n",
        conf_d__b="ratios: {model_ratio: {x: 1}}\ntokens: [{name: t2, key: k2}]\n",
        conf_d__c="ratios: {model_ratio: {y: 1}}\n# tokens:\n",
    )
    assert [token.name for token in config.tokens] == ["t0", "t1", "t2"]
    assert (config.relay.max_attempts, config.relay.keepalive) == (2, 5.0)
    assert (set(config.prices), set(config.ratios.model_ratio)) == ({"a", "b"}, {"x", "y"})
    assert [path.name for path in loaded.files] == ["config.yaml", "a.yaml", "b.yaml", "c.yaml"]
    assert loaded.origins["tokens[2].name"].endswith("conf.d/b.yaml:2")


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        ("log: {level: info}\n", "log: {level: debug}\n", "log.level: is given twice, first at config.yaml:2:7"),
        ("timezone: UTC\n", "timezone: UTC\n", "timezone: is given twice, first at config.yaml:2:1"),
        ("groups: {vip: 1}\n", "groups: {vip: 2}\n", "groups.vip: is given twice, first at config.yaml:2:10"),
        (
            "prices: {m: {input: 1}}\n",
            "prices: {m: {output: 2}}\n",
            "prices.m: is given twice, first at config.yaml:2:10",
        ),
        ("admin: {keys: [a1]}\n", "admin: {keys: [b1]}\n", "admin.keys: is given twice, first at config.yaml:2:9"),
    ],
)
def test_a_key_in_two_files(main: str, other: str, expected: str, tmp_path: Path) -> None:
    """One value in two files is a fault that names both places."""
    (line,) = bad(tmp_path, "include: [b.yaml]\n" + main, b=other)
    assert line.startswith("b.yaml:1:")
    assert line.endswith(expected)


def test_a_fault_of_an_included_file(tmp_path: Path) -> None:
    """Faults name the file in which they stand; indices count over all files."""
    (line,) = bad(
        tmp_path, "include: [b.yaml]\ntokens: [{name: a, key: k}]\n", b="tokens:\n- {name: b, kye: k2, key: k3}\n"
    )
    assert line == "b.yaml:2:13: tokens[1].kye: unknown key (did you mean key?)"


def test_a_glob_that_finds_nothing(tmp_path: Path) -> None:
    """An empty conf.d is no fault, nor is a file that two patterns find."""
    good(tmp_path, "include: [nothing.d/*.yaml]\n")
    good(tmp_path, "include: [b.yaml, '[b].yaml']\n", b="timezone: UTC\n")


# environment


def test_references(tmp_path: Path) -> None:
    """${NAME} and ${NAME:-default} are replaced, once, also inside flow lists; $${ is a literal ${."""
    config, _ = good(
        tmp_path,
        "admin: {keys: [${ONE}, ${TWO:-a, b: {c}]}\ntimezone: ${ZONE:-UTC}\nrelay: {max_attempts: ${N}}\n"
        "channels: [{name: '${ONE}-$${ONE}-$5', type: echo, models: ['m'], headers: {X-A: '${LOOP}'}}]\n".replace(
            "{c}", "c}"
        ),
        {"ONE": "first", "N": "7", "ZONE": "", "LOOP": "${ONE}"},
    )
    assert [key.reveal() for key in config.admin.keys] == ["first", "a, b: c"]
    assert (config.timezone, config.relay.max_attempts) == ("UTC", 7)
    assert (config.channels[0].name, config.channels[0].headers) == ("first-${ONE}-$5", {"X-A": "${ONE}"})


def test_an_empty_reference_is_no_value(tmp_path: Path) -> None:
    """`${X:-}` leaves an optional key out."""
    assert good(tmp_path, "redis: ${REDIS:-}\n")[0].redis is None


LEGACY = {
    "PORT": ("8080", "listen", "0.0.0.0:8080"),
    "STREAMING_TIMEOUT": ("45", "relay.streaming_timeout", 45.0),
    "RELAY_TIMEOUT": ("90", "relay.total_timeout", 90.0),
    "MAX_REQUEST_BODY_MB": ("0", "relay.max_body", 32 * 1024 * 1024),
    "FORCE_STREAM_OPTION": ("F", "relay.force_stream_option", False),
    "GET_MEDIA_TOKEN": ("0", "media.count_image_tokens", False),
    "GET_MEDIA_TOKEN_NOT_STREAM": ("false", "media.count_image_tokens_not_stream", False),
    "MAX_FILE_DOWNLOAD_MB": ("3", "media.fetch.max_size", 3 * 1024 * 1024),
    "UPDATE_TASK": ("FALSE", "tasks.update", False),
    "TZ": ("Europe/Berlin", "timezone", "Europe/Berlin"),
}


@pytest.mark.parametrize("name", LEGACY)
def test_variables_of_new_api(name: str, tmp_path: Path) -> None:
    """Each variable lands at its place, with its own unit, and the origin says so."""
    value, key, expected = LEGACY[name]
    config, loaded = good(tmp_path, "log: {}\n", {name: value})
    found: object = config
    for part in key.split("."):
        found = getattr(found, part)
    assert found == expected
    assert loaded.origins[key] == f"env:{name}"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SQL_DSN": "root:p@ss:w/rd@tcp(db:3306)/oneapi?charset=utf8"}, "mysql://root:p%40ss%3Aw%2Frd@db:3306/oneapi"),
        ({"SQL_DSN": "root:x@unix(/run/my.sock)/d"}, "mysql://root:x@localhost/d?unix_socket=/run/my.sock"),
        ({"SQL_DSN": "postgres://u:p@h/d"}, "postgresql://u:p@h/d"),
        ({"SQL_DSN": "postgresql://u:p@h/d"}, "postgresql://u:p@h/d"),
        ({"SQLITE_PATH": "/data/one-api.db?_busy_timeout=5000"}, "sqlite:////data/one-api.db"),
        ({"SQL_DSN": "local", "SQLITE_PATH": "/data/x.db"}, "sqlite:////data/x.db"),
        ({"SQL_DSN": "postgres://u:p@h/d", "SQLITE_PATH": "/data/x.db"}, "postgresql://u:p@h/d"),
        ({"SQL_DSN": "local"}, f"sqlite:///{os.getcwd()}/one-api.db"),
    ],
)
def test_databases_of_new_api(environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    """SQL_DSN and SQLITE_PATH become our URL."""
    assert good(tmp_path, "log: {}\n", environ)[0].database.reveal() == expected


def test_the_file_wins_over_the_environment(tmp_path: Path) -> None:
    """A variable holds only where the file says nothing, key by key."""
    environ = {"STREAMING_TIMEOUT": "45", "RELAY_TIMEOUT": "90", "PORT": "1"}
    config, loaded = good(tmp_path, "listen: 127.0.0.1:2\nrelay: {streaming_timeout: 7s}\n", environ)
    assert (config.listen, config.relay.streaming_timeout, config.relay.total_timeout) == ("127.0.0.1:2", 7.0, 90.0)
    assert loaded.origins["relay.streaming_timeout"].endswith("config.yaml:2")
    assert loaded.origins["relay.total_timeout"] == "env:RELAY_TIMEOUT"
    assert "relay.max_body" not in loaded.origins


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("STREAMING_TIMEOUT", "30s", "relay.streaming_timeout: '30s' is no whole number"),
        ("PORT", "http", "listen: 'http' is no whole number"),
        ("PORT", "0", "listen: '0' is no port (1 to 65535)"),
        ("FORCE_STREAM_OPTION", "yes", "relay.force_stream_option: 'yes' is neither true nor false"),
        ("MEMORY_CACHE_ENABLED", "maybe", "channels: 'maybe' is neither true nor false"),
        ("COHERE_SAFETY_SETTING", "LAX", "channels.*.options.safety_mode: 'LAX' is none of NONE, CONTEXTUAL, STRICT"),
        (
            "GEMINI_MODEL_MAP",
            "gemini-pro",
            "channels.*.options.version_map: 'gemini-pro' is no pair such as model:version",
        ),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, message: str, tmp_path: Path) -> None:
    """A variable that cannot be read is a fault with its name."""
    assert bad(tmp_path, "log: {}\n", {name: value}) == [f"env:{name}:0:0: {message}"]


def test_a_bad_dsn_is_not_repeated(tmp_path: Path) -> None:
    """The message names SQL_DSN, never what it holds."""
    (line,) = bad(tmp_path, "log: {}\n", {"SQL_DSN": f"root:{CANARY}(nowhere"})
    assert line.startswith("env:SQL_DSN:0:0: database: is no DSN")
    assert CANARY not in line


def test_variables_that_concern_one_type(tmp_path: Path) -> None:
    """They become that type's options where the channel has none, and are there for channels of the database."""
    content = (
        "channels:\n- {name: a, type: azure, key: k, base_url: 'http://h', models: [gpt-4o]}\n"
        "- {name: b, type: azure, key: k, base_url: 'http://h', models: [gpt-4o], options: {api_version: v9}}\n"
        "- {name: c, type: openai, key: k, models: [gpt-4o]}\n"
    )
    environ = {"AZURE_DEFAULT_API_VERSION": "v1", "DIFY_DEBUG": "0", "GEMINI_MODEL_MAP": "a:v1, b:v1beta"}
    config, loaded = good(tmp_path, content, environ)
    assert [one.options for one in config.channels] == [{"api_version": "v1"}, {"api_version": "v9"}, {}]
    assert loaded.origins["channels[0].options.api_version"] == "env:AZURE_DEFAULT_API_VERSION"
    assert loaded.options["dify"] == {"debug": False}
    assert loaded.options["gemini"] == {"version_map": {"a": "v1", "b": "v1beta"}}


# secrets


def secret_file(folder: Path, content: str, mode: int = 0o600) -> Path:
    """A file with a secret in it."""
    path = folder / "secret"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    return path


KEY_FROM_FILE = "tokens: [{name: t, key: {file: secret}}]\n"


def test_a_secret_beside_the_file(tmp_path: Path) -> None:
    """A relative path is beside the file that names it; one line end is cut."""
    secret_file(tmp_path, "sk-x\n")
    config, loaded = good(tmp_path, KEY_FROM_FILE)
    assert config.tokens[0].key is not None
    assert config.tokens[0].key.reveal() == "sk-x"
    assert loaded.origins["tokens[0].key"].endswith(f"config.yaml:1 file:{tmp_path}/secret")


def test_a_secret_of_systemd(tmp_path: Path) -> None:
    """With a credentials directory relative paths are there, and systemd's group bits are no fault."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    secret_file(folder, "sk-cred\n", 0o440)
    config, _ = good(tmp_path, KEY_FROM_FILE, {"CREDENTIALS_DIRECTORY": str(folder)})
    assert config.tokens[0].key is not None
    assert config.tokens[0].key.reveal() == "sk-cred"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read(mode: int, tmp_path: Path) -> None:
    """A secret's file with group or world bits is refused."""
    secret_file(tmp_path, "sk-x", mode)
    (line,) = bad(tmp_path, KEY_FROM_FILE)
    assert f"readable by group or world (mode {mode:04o}); make it 0600" in line


def test_an_empty_secret(tmp_path: Path) -> None:
    """An empty file is no secret."""
    secret_file(tmp_path, "\n")
    assert bad(tmp_path, KEY_FROM_FILE)[0].endswith("is empty")


SECRETS = (
    f"database: mysql://u:{CANARY}@h/d\nadmin: {{keys: [{CANARY}]}}\n"
    f"channels: [{{name: a, type: openai, key: {CANARY}, keys: [{CANARY}], models: [gpt-4o]}}]\n"
    f"tokens: [{{name: t, key: {CANARY}}}]\n"
)


def test_secrets_have_no_text(tmp_path: Path) -> None:
    """Neither the tree nor what was loaded shows a secret in its repr, and neither can become JSON."""
    config, loaded = good(tmp_path, SECRETS)
    assert CANARY not in repr(config) + str(config) + repr(loaded)
    with pytest.raises((TypeError, NotImplementedError)):
        msgspec.json.encode(config)


def test_a_node_does_not_show_its_text() -> None:
    """The nodes between file and tree hold secrets as text; their repr does not."""
    assert CANARY not in repr(text.parse(f"key: {CANARY}\n", "f"))


# warnings


def test_a_readable_file_with_secrets(tmp_path: Path) -> None:
    """Plain secrets in a file that others can read are one warning; references, and URLs without password, none."""
    path = write(tmp_path, config="database: sqlite:///x.db\ntokens: [{name: t, key: '${K}'}]\n")
    path.chmod(0o644)
    assert read(path, {"K": "k"}).warnings == ()
    write(tmp_path, config=SECRETS).chmod(0o640)
    (warning,) = [one for one in read(path, {}).warnings if "group or world" in one.message]
    assert (warning.key, warning.line, warning.col) == ("database", 1, 11)


@pytest.mark.parametrize(
    ("config", "package", "told"),
    [
        (
            "channels: [{name: a, type: echo, models: [echo], proxy: 'socks5://h:1'}]\nprices: {echo: {input: 0}}\n",
            "aiohttp_socks",
            "channels[0].proxy: needs a package that is missing here: pip install 'newapi-proxy[socks]'",
        ),
        (
            "database: postgresql://h/d\nredis: redis://h\n",
            "redis",
            "redis: needs a package that is missing here: pip install 'newapi-proxy[redis]'",
        ),
    ],
)
def test_a_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, package: str, told: str
) -> None:
    """What needs an extra says so, where the extra is not installed."""
    assert warned(tmp_path, config) == []
    monkeypatch.setitem(sys.modules, package, None)
    assert warned(tmp_path, config) == [told]


@pytest.mark.parametrize("key", ["redis: redis://h", "reuse_port: true"])
def test_what_one_process_has_no_use_for(tmp_path: Path, key: str) -> None:
    """Sharing is warned of where there is nobody to share with, and not on a server's database."""
    rest = "channels: [{name: e, type: echo, models: [gpt-4o]}]\ntokens: [{name: t, key: k-0123456789}]\n"
    assert ["has no use with SQLite" in line for line in warned(tmp_path, f"{key}\n{rest}")] == [True]
    assert warned(tmp_path, f"database: postgresql://h/d\n{key}\n{rest}") == []


def test_what_a_portal_is_warned_of(tmp_path: Path) -> None:
    """Top-up without a way to pay, and keys that are entered where others read along; a plain portal is all right."""
    rest = "channels: [{name: e, type: echo, models: [gpt-4o]}]\ntokens: [{name: t, key: k-0123456789}]\n"
    assert warned(tmp_path, f"portal: {{}}\n{rest}") == []
    (line,) = warned(tmp_path, f"portal: {{topup: {{price: 7}}}}\n{rest}")
    assert line.startswith("portal.topup: names no way to pay, so nothing is served")
    (line,) = warned(tmp_path, f"portal: {{}}\npublic_url: http://llm.example.org\n{rest}")
    assert line.startswith("public_url: is not https")
    (line,) = warned(tmp_path, f"portal: {{}}\npublic_url: https://llm.example.org\n{rest}")
    assert line.startswith("portal: names no trusted_proxies")
    rest += "trusted_proxies: [127.0.0.1/32]\n"
    for address in ("https://llm.example.org", "http://127.0.0.1:3000", "http://localhost", "http://[::1]:3000"):
        assert warned(tmp_path, f"portal: {{}}\npublic_url: {address}\n{rest}") == []


def test_what_can_reach_nothing(tmp_path: Path) -> None:
    """Channels without models and tokens without a channel are warned of."""
    lines = warned(
        tmp_path,
        "groups: {vip: 1}\nchannels: [{name: e, type: echo}, {name: f, type: echo, models: ['gpt-4o*']}]\n"
        "tokens:\n- {name: ok, key: k1, models: ['*-mini']}\n- {name: lost, key: k2, group: vip}\n"
        "- {name: strange, key: k3, models: [claude]}\n- {name: off, key: k4, group: vip, enabled: false}\n",
    )
    assert lines == [
        "channels[0].models: channel e has no models: nothing reaches it",
        "tokens[1].group: token lost reaches no channel and model of this configuration",
        "tokens[2].models: token strange reaches no channel and model of this configuration",
    ]


def test_models_without_a_price(tmp_path: Path) -> None:
    """A model is warned of unless it, or what it is mapped to, has a price in the file or in the built-in table."""
    content = (
        "channels: [{name: e, type: echo, models: [gpt-4o, nobody-knows, alias, free],"
        " model_mapping: {alias: gpt-4o}},"
        " {name: f, type: echo, models: ['gpt-4o*']}]\nprices: {free: {call: 0}}\n"
    )
    (line,) = warned(tmp_path, content)
    assert line.startswith("channels[0].models[1]: model nobody-knows has no price")


def test_a_price_like_none(tmp_path: Path) -> None:
    """An alias of a model without a price is warned of."""
    (line,) = warned(tmp_path, "prices: {one: {like: nobody-knows}, two: {like: gpt-4o}}\n")
    assert line == "prices.one.like: nobody-knows has no price"


def test_a_zone_of_the_machine(tmp_path: Path) -> None:
    """TZ belongs to the machine: one that zoneinfo does not know is a warning, not a fault."""
    assert warned(tmp_path, "log: {}\n", {"TZ": "CET-1CEST"}) == [
        "timezone: 'CET-1CEST' is no timezone of the database; UTC holds"
    ]


@given(st.text("ab*", max_size=6), st.text("ab*", max_size=6))
def test_patterns_meet(first: str, second: str) -> None:
    """Two patterns meet exactly when some text over their letters fits both."""
    assert advice.meet(first, second) == _meet(first, second)


def _meet(first: str, second: str) -> bool:
    if not first or not second:
        return not (first + second).strip("*")
    if first[0] == "*":
        return _meet(first[1:], second) or _meet(first, second[1:])
    if second[0] == "*":
        return _meet(first, second[1:]) or _meet(first[1:], second)
    return first[0] == second[0] and _meet(first[1:], second[1:])


# any text


WORDS = st.sampled_from(
    [
        *("relay", "channels", "tokens", "name", "type", "echo", "key", "keys", "models", "groups", "prices"),
        "include",
        *("listen", "default", "options", "override", "set", "file", "limits", "rpm", "quota", "admin", "portal"),
        *("weight", "1", "-5", "1.5", "$5", "30s", "32MiB", "true", "null", "~", "''", '"a"', "${A}", "${A:-b}"),
        *("${", "*a", "&a", "<<", "!x"),
    ]
)
SEPARATORS = st.sampled_from(
    [": ", "\n", "\n  ", "\n- ", "\n  - ", ", ", "{", "}", "[", "]", " ", "\n---\n", "\t", "#", "|\n "]
)


@settings(max_examples=150)
@given(st.text(max_size=60) | st.lists(WORDS | SEPARATORS, max_size=50).map("".join))
def test_any_text_ends_in_faults_or_a_configuration(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """No text makes the reader raise; there is a configuration exactly when there is no fault."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    loaded = read(path, {"A": "x"})
    assert (loaded.config is None) == bool(loaded.faults)
    assert all("\n" not in str(fault) for fault in (*loaded.faults, *loaded.warnings))


@pytest.mark.parametrize(
    ("written", "seconds"), [("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400)]
)
def test_durations_are_printed_as_written(written: str, seconds: float) -> None:
    """What `show` prints reads back as the same value."""
    assert units.duration_text(seconds) == written
    assert units.duration(units.duration_text(seconds)) == seconds


@given(st.integers(0, 2**50))
def test_units_survive_being_printed(number: int) -> None:
    """Sizes, amounts and durations read back as they were."""
    assert units.size(units.size_text(number)) == number
    assert units.money(units.money_text(number)) == number
    assert units.duration(units.duration_text(number / 1000)) == pytest.approx(number / 1000)

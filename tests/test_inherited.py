"""Rows of other programs' `channels` as channels of ours: every form of key, mapping and override, and what is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS, numbers
from newapi_proxy.config.inherited import Takeover, takeover
from newapi_proxy.config.model import Channel, Override
from newapi_proxy.secret import Secret
from newapi_proxy.store.channels import ChannelRow
from newapi_proxy.store.origin import Origin
from tests.fakes.service_account import account


def row(**fields: Any) -> ChannelRow:
    """A row of type 1 that serves, but for the fields given; objects become JSON text."""
    given: dict[str, Any] = {"id": 1, "type": 1, "name": "one", "key": "sk-up", "status": 1, "models": ("m",)}
    given |= {"groups": ("default",)} | fields
    given["key"] = Secret(given["key"])
    columns = {
        name: orjson.dumps(value).decode() if isinstance(value, (dict, list)) else value
        for name, value in given.items()
    }
    return ChannelRow(**columns)


def taken(*rows: ChannelRow, origin: Origin = "new-api-latest", **options: Mapping[str, Any]) -> Takeover:
    """What becomes of them beside a file that names the channel `filed`."""
    return takeover(rows, origin, options, ["filed"])


def one(origin: Origin = "new-api-latest", **fields: Any) -> Channel:
    """The one channel of one row, of which nothing had to be told."""
    found = taken(row(**fields), origin=origin)
    assert found.faults == ()
    return found.channels[0]


def told(**fields: Any) -> str:
    """The one thing that had to be told."""
    (fault,) = taken(row(**fields)).faults
    return fault


def keys(channel: Channel) -> list[str]:
    """The channel's keys in plain text."""
    return [key.reveal() for key in channel.keys]


def test_columns_that_all_types_share() -> None:
    """Name, address, models, groups, priority, weight, organisation, the switch for auto-disabling, the state."""
    found = one(
        base_url="https://up.example", models=("a", "b"), groups=("x", "y"), priority=3, weight=7, organization="org"
    )
    assert (found.name, found.type, found.base_url, found.models, found.groups) == (
        "one",
        "openai",
        "https://up.example",
        ("a", "b"),
        ("x", "y"),
    )
    assert (found.priority, found.weight, found.organization, found.auto_disable) == (3, 7, "org", True)
    assert not one(auto_ban=False).auto_disable
    assert [one(status=status).enabled for status in (1, 2, 0)] == [True, False, False]
    assert "was disabled automatically (too slow): `newapi-proxy channel enable`" in told(status=3, reason="too slow")


def test_keys_of_every_form() -> None:
    """One, one by line, a JSON list of accounts, one account of many lines; those that are disabled are left out."""
    assert keys(one(key="a")) == ["a"]
    assert keys(one(key="a\n\nb\n")) == ["a", "b"]
    info = {"is_multi_key": True, "multi_key_size": 3, "multi_key_status_list": {"1": 3, "2": 1}}
    assert keys(one(key="a\nb\nc", channel_info=info)) == ["a", "c"]
    assert told(key="a", channel_info={"multi_key_status_list": {"0": 3}}) == (
        "channel 1 (one): all of its keys are disabled; the channel is left out"
    )
    document = account()
    assert keys(one(type=41, key=document, other="us-east5")) == [document.strip()]
    assert len(keys(one(type=41, key=f"[{document},{document.replace('robot', 'other')}]", other="us-east5"))) in (1, 2)


def test_names_are_unique() -> None:
    """A second channel of a name, and one without, is known by its row; the file's name wins over a row's."""
    found = taken(row(id=1), row(id=2), row(id=3, name=""), row(id=4, name="filed"))
    assert ([channel.name for channel in found.channels], found.shadowed) == (["one", "one #2", "#3"], ("filed",))
    assert found.ids == {"one": 1, "one #2": 2, "#3": 3}


def test_what_other_means_is_the_providers_business() -> None:
    """An API version, a region or one per model, an account, a plugin, the generation of an interface."""
    azure = one(type=3, base_url="https://r.openai.azure.com", other="2024-06-01")
    assert azure.options == {"api_version": "2024-06-01", "strip_dots": True}
    assert one(type=3, base_url="https://r.openai.azure.com").options["api_version"] == "2024-12-01-preview"
    assert one(type=41, key=account(), other="europe-west1").options["region"] == "europe-west1"
    regions = {"default": "us-central1", "claude-3-5": "us-east5"}
    assert one(type=41, key=account(), other=orjson.dumps(regions).decode()).options["region"] == regions
    assert one(type=39, other="acc").options == {"account": "acc"}
    assert one(type=17, other="search").headers == {"X-DashScope-Plugin": "search"}
    assert (one(type=16).options, one(type=26).options) == ({"api": "v3"}, {"api": "v4"})
    assert one(type=24, other="v1").options == {"safety_settings": "BLOCK_NONE", "version": "v1"}
    assert one(type=7).options == {"responses": False}
    assert one(type=7).base_url == "https://api.ohmygpt.com"
    assert one(type=34).options == {"safety_mode": "NONE"}


def test_option_defaults_stand_below_the_row() -> None:
    """What the environment or a saved option says of a type holds where the row says nothing."""
    azure = {"api_version": "2025-01-01"}
    (first,) = taken(row(type=3, base_url="https://a.example"), azure=azure).channels
    (second,) = taken(row(type=3, base_url="https://a.example", other="2024-06-01"), azure=azure).channels
    assert (first.options["api_version"], second.options["api_version"]) == ("2025-01-01", "2024-06-01")


def test_setting_and_settings() -> None:
    """A proxy, thinking as content; fields that New API cuts out unless it is told not to."""
    found = one(setting={"proxy": "socks5://127.0.0.1:1080", "thinking_to_content": True, "force_format": True})
    assert (found.proxy, found.options["thinking_to_content"]) == ("socks5://127.0.0.1:1080", True)
    found = one(settings={"allow_service_tier": True, "disable_store": True})
    assert found.override.remove == ("inference_geo", "speed", "safety_identifier", "store")
    found = one(setting={"system_prompt": "be brief"})
    assert (found.system_prompt, found.system_prompt_mode) == ("be brief", "absent")
    assert one(setting={"system_prompt": "x", "system_prompt_override": True}).system_prompt_mode == "before"
    assert one("one-api", system_prompt="be brief").system_prompt_mode == "replace"
    assert "API keys in place" in told(type=41, key=account(), other="r", settings={"vertex_key_type": "api_key"})


def test_mappings() -> None:
    """Names take one step, in the latest New API as many as there are; a circle is no channel; statuses may be text."""
    chain = {"a": "b", "b": "c", "c": "c"}
    assert one(model_mapping=chain).model_mapping == {"a": "c", "b": "c", "c": "c"}
    assert one("new-api", model_mapping=chain).model_mapping == chain
    assert "round in a circle" in told(model_mapping={"a": "b", "b": "a"})
    assert one(status_code_mapping={"400": "500", "401": 502}).status_code_mapping == {"400": 500, "401": 502}
    assert "429 to no" in told(status_code_mapping={"429": "no"})
    assert "model_mapping is no JSON object" in told(model_mapping="{broken")


def test_overrides() -> None:
    """Flat fields are set; operations that hold always set, default and delete; the others are told."""
    assert one(param_override={"temperature": 0, "top_p": None}).override == Override(
        set={"temperature": 0, "top_p": None}
    )
    operations = [
        {"path": "a.b", "mode": "set", "value": 1},
        {"path": "c", "mode": "set", "value": 2, "keep_origin": True},
        {"path": "d", "mode": "delete"},
    ]
    assert one(param_override={"operations": operations}).override == Override(
        set={"a.b": 1}, default={"c": 2}, remove=("d",)
    )
    assert "override operation move" in told(param_override={"operations": [{"mode": "move", "from": "a", "to": "b"}]})
    assert one(header_override={"X-Team": "blue", "X-Own": "{api_key}"}).headers == {
        "X-Team": "blue",
        "X-Own": "{api_key}",
    }
    assert "header *" in told(header_override={"*": ""})
    assert "X-User" in told(header_override={"X-User": "{client_header:X-User}"})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": 23}, "type 23 (Tencent Hunyuan) is not served by this version; a channel of type hunyuan with a key"),
        ({"type": 15}, "a channel of type baidu with a key for that interface is"),
        ({"type": 21}, "type 21 (AIProxy library) is not served by this version; the channel is left out"),
        ({"type": 999}, "type 999 is not served"),
        ({"base_url": "nonsense"}, "base_url must be a URL"),
        ({"type": 8}, "base_url is required"),
        ({"type": 3}, "base_url is required"),
        ({"setting": {"proxy": "nonsense"}}, "proxy must be a URL"),
        ({"key": ""}, "key or keys is required"),
        ({"key": "käse"}, "must be ASCII"),
        ({"header_override": {"bad name": "x"}}, "is no header name"),
        ({"type": 39, "setting": {}, "other": ""}, ""),
    ],
)
def test_what_cannot_be_served_is_left_out_with_a_reason(fields: dict[str, Any], words: str) -> None:
    """Never half a channel: it is left out, and the reason names the row."""
    found = taken(row(**fields))
    if words:
        assert found.channels == ()
        assert found.faults[0].startswith("channel 1 (one): ")
        assert words in found.faults[0]
        assert found.faults[0].endswith("; the channel is left out")


def test_one_api_numbers_its_types_otherwise() -> None:
    """Above 27 the same number is another provider; parts of a credential stand in a column of their own."""
    meant = {28: "mistral", 29: "groq", 35: "cohere", 36: "deepseek", 39: "together", 40: "volcengine", 45: "xai"}
    meant |= {41: "novita", 48: "spark", 51: "gemini-openai"}
    assert {number: one("one-api", type=number).type for number in meant} == meant
    assert one("one-api", type=8, base_url="https://up.example").type == "openai"
    assert one("one-api", type=50, base_url="https://up.example/v4").type == "openai-compatible"
    assert taken(row(type=43), origin="one-api").faults[0].startswith("channel 1 (one): type 43 (Proxy)")


def test_what_a_socket_or_an_address_meant_before() -> None:
    """Spark's credential and version carry over to its present interface; Xinference and 360 are types of their own."""
    spark = one(type=18, key="app|secret|key", models="SparkDesk,SparkDesk-v3.5", other="v3.1")
    assert (spark.type, spark.base_url, keys(spark)) == ("spark", None, ["app|secret|key"])
    assert spark.options == {"version": "v3.1"}
    assert one("one-api", type=18, key="a|s|k", config={"api_version": "v4.0"}).options == {"version": "v4.0"}
    assert (one(type=19).type, one(type=19).base_url) == ("ai360", None)
    assert one(type=47, key="", base_url="http://localhost:9997").type == "xinference"


def test_a_bots_id_is_the_other_column() -> None:
    """New API's Coze channels ask one bot, whatever the model; One API's ask the one that the model's name is."""
    coze = one(type=49, key="pat_1", other="7379462189365198898")
    assert (coze.type, coze.base_url, coze.options) == ("coze", None, {"bot": "7379462189365198898"})
    older = one("one-api", type=34, key="pat_1", models="bot-7379462189365198898", config={"user_id": "1"})
    assert (older.type, older.base_url, older.options) == ("coze", "https://api.coze.com", {})


def test_one_api_keeps_parts_apart() -> None:
    """Bedrock's keys and Vertex' account in `config`, a version there too."""
    parts = {"region": "us-east-1", "ak": "A", "sk": "S"}
    assert keys(one("one-api", type=33, key="x", config=parts)) == ["A|S|us-east-1"]
    vertex = {"region": "us-east5", "vertex_ai_project_id": "p", "vertex_ai_adc": account()}
    found = one("one-api", type=42, key="x", config=vertex)
    assert (found.options["project"], found.options["region"], keys(found)) == ("p", "us-east5", [account()])
    azure = one("one-api", type=3, base_url="https://a.example", config={"api_version": "2024-02-01"})
    assert azure.options["api_version"] == "2024-02-01"


def test_every_number_has_one_meaning() -> None:
    """What the tables name exists, and a type's number leads back to it."""
    for one_api in (False, True):
        for number in range(80):
            meant = numbers.kind(number, one_api)
            assert meant is None or meant[0] in ADAPTERS, number
        for name in ADAPTERS:
            number = numbers.number(name, one_api)
            meant = numbers.kind(number, one_api)
            assert number == 0 or (meant is not None and meant[0] == name), name

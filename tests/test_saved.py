"""Options that New API's pages saved, and the configuration that a file and a database make together."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from newapi_proxy.config.joined import Joined, join
from newapi_proxy.config.load import DATABASE, read
from newapi_proxy.config.saved import saved
from newapi_proxy.secret import Secret
from newapi_proxy.store.channels import ChannelRow
from newapi_proxy.store.held import Held

CHANNEL = ChannelRow(
    id=4, type=1, name="theirs", key=Secret("sk-up"), status=1, models=("gpt-4o", "unpriced"), groups=("vip",)
)


def joined(folder: Path, text: str, **options: object) -> Joined:
    """The file of that text joined with a New API database of those options and one channel."""
    file = folder / "config.yaml"
    file.write_text(text)
    file.chmod(0o600)
    rows = {key: one if isinstance(one, str) else orjson.dumps(one).decode() for key, one in options.items()}
    loaded = read(file, {})
    assert loaded.faults == ()
    return join(loaded, Held([CHANNEL], rows, "new-api"))


def test_retries() -> None:
    """RetryTimes counts what comes after the first attempt; statuses to retry leave those that do not."""
    assert saved({"RetryTimes": "2"}).max_attempts == 3
    assert saved({}).max_attempts is None
    assert saved({"RetryTimes": "many"}).faults == ("the saved option RetryTimes is no number and is left out",)
    ends = saved({"AutomaticRetryStatusCodes": "100-199,300-399,401-407,409-499,500-503,505-523,525-599"}).no_retry
    assert ends == (400, 408, 504, 524)


@pytest.mark.parametrize("text", ["{broken", "[1]", '{"gpt-4o": "dear"}', '{"gpt-4o": -1}', '{"gpt-4o": true}'])
def test_a_broken_table_is_told_and_left_out(text: str) -> None:
    """Nothing becomes free, or priced, by what cannot be read."""
    found = saved({"ModelRatio": text})
    assert found.ratios == {}
    assert len(found.faults) == 1


def test_prices_per_call_follow_the_unit() -> None:
    """A database with another number of units a dollar sells a call for as many units as before."""
    found = saved({"ModelPrice": '{"dall-e-3": 0.04}', "QuotaPerUnit": "1000000"})
    assert found.ratios["model_price"] == {"dall-e-3": 0.08}


def test_options_of_types() -> None:
    """Safety settings, versions per model, the default for an answer's length."""
    found = saved(
        {
            "gemini.safety_settings": '{"default": "OFF"}',
            "gemini.version_settings": '{"default": "v1beta", "gemini-1.0-pro": "v1"}',
            "claude.default_max_tokens": '{"default": 4096}',
        }
    ).options
    assert found["gemini"] == {
        "safety_settings": {"default": "OFF"},
        "version": "v1beta",
        "version_map": {"gemini-1.0-pro": "v1"},
    }
    assert found["anthropic"] == {"default_max_tokens": 4096}


def test_the_file_stands_above_the_saved_options(tmp_path: Path) -> None:
    """Entries of both serve side by side; where both name the same thing the file's holds, and each has its origin."""
    both = joined(
        tmp_path,
        "groups: {vip: 0.5}\nrelay: {max_attempts: 7}\nratios: {model_ratio: {dall-e-3: 8, mine: 1}}\n",
        GroupRatio={"default": 2, "vip": 0.9, "svip": 0.8},
        RetryTimes="1",
        ModelRatio={"gpt-4o": 5, "mine": 9},
        ModelPrice={"dall-e-3": 0.04},
    )
    config, origins = both.config, both.loaded.origins
    assert config.groups == {"default": 2.0, "vip": 0.5, "svip": 0.8}
    assert (config.relay.max_attempts, config.ratios.model_price) == (7, {})
    assert config.ratios.model_ratio == {"dall-e-3": 8.0, "mine": 1.0, "gpt-4o": 5.0}
    assert (origins["groups.svip"], origins["groups.vip"].rpartition(":")[2]) == (DATABASE, "1")
    assert origins["ratios.model_ratio.gpt-4o"] == origins["channels[0].models"] == DATABASE
    assert "channels[0].headers" not in origins


def test_what_the_file_leaves_open_the_options_say(tmp_path: Path) -> None:
    """Retries and groups come from there; models that nothing prices are told."""
    both = joined(tmp_path, "tokens: [{name: t, key: sk-tttttt}]\n", RetryTimes="1", SelfUseModeEnabled="true")
    assert (both.config.relay.max_attempts, both.loaded.origins["relay.max_attempts"]) == (2, DATABASE)
    assert both.config.groups == {"default": 1.0, "vip": 1.0, "svip": 1.0}
    told = [str(one) for one in both.loaded.warnings]
    assert any("channel theirs: no price, so requests are refused, for unpriced" in one for one in told)
    assert any("SelfUseModeEnabled has no effect" in one for one in told)


def test_a_files_token_may_reach_the_databases_channels(tmp_path: Path) -> None:
    """No warning of a key that reaches nothing where a database's channel may serve it."""
    text = "channels: [{name: e, type: echo, models: [echo]}]\ntokens: [{name: t, key: sk-tttttt, models: [gpt-4o]}]\n"
    both = joined(tmp_path, text)
    assert not [one for one in both.loaded.warnings if "reaches no channel" in one.message]


def test_drawing_switches_and_our_address(tmp_path: Path) -> None:
    """New API's switches hold for the database's own channels; the address it is known by, where the file has none."""
    found = saved({"MjNotifyEnabled": "true", "MjForwardUrlEnabled": "false", "MjModeClearEnabled": "perhaps"})
    wanted = {"notify_hook": True, "forward_images": False}
    assert found.options == {"midjourney": wanted, "midjourney-plus": wanted}
    assert found.faults == ("the saved option MjModeClearEnabled is neither true nor false and is left out",)
    assert saved({"ServerAddress": "http://localhost:3000"}).public_url is None
    assert saved({"ServerAddress": "nowhere"}).public_url is None
    both = joined(tmp_path, "public_url: https://ours\n", ServerAddress="https://theirs")
    assert both.config.public_url == "https://ours"
    theirs = joined(tmp_path, "channels: []\n", ServerAddress="https://theirs")
    assert theirs.config.public_url == "https://theirs"
    assert theirs.loaded.origins["public_url"] == DATABASE

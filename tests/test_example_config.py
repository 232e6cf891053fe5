"""config.example.yaml: valid as it stands, each commented example valid too, every key and every type in it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.config import model, portal
from newapi_proxy.config.load import Loaded, read
from tests.fakes.service_account import account
from tests.fakes.wechatpay import private_pem, public_pem

EXAMPLE = Path(__file__).resolve().parents[1] / "config.example.yaml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
BLOCK = re.compile(r"^  # - name: .*\n(?:  #   .*\n)*", re.MULTILINE)

CHANNELS = [block for block in BLOCK.findall(TEXT) if "\n  #   type: " in block]
TOKENS = [block for block in BLOCK.findall(TEXT) if block not in CHANNELS]
TYPES = [re.findall(r"type: (\S+)", block)[0] for block in CHANNELS]


def environment() -> dict[str, str]:
    """A value for every variable that the examples name."""
    return {name: f"key-of-{name}".ljust(32, "-") for name in re.findall(r"\$\{([A-Z_]+)\}", TEXT)}


def load(folder: Path, text: str) -> Loaded:
    """The text as a file of the owner's, with the service account's file beside it."""
    files = {
        "config.yaml": text,
        "vertex-service-account.json": account(),
        "wechat-merchant-key.pem": private_pem("merchant"),
        "wechat-public-key.pem": public_pem("platform"),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
        (folder / name).chmod(0o600)
    return read(folder / "config.yaml", environment())


def uncommented(text: str) -> str:
    """The block without its comment signs."""
    return re.sub(r"^( *)# ", r"\1", text, flags=re.MULTILINE)


def test_it_is_valid_as_it_stands(tmp_path: Path) -> None:
    """One echo channel, one token, a price for it, no fault and no warning."""
    loaded = load(tmp_path, TEXT)
    assert (loaded.faults, loaded.warnings) == ((), ())
    assert loaded.config is not None
    config = loaded.config
    assert [(one.type, one.models) for one in config.channels] == [("echo", ("echo",))]
    (token,) = config.tokens
    assert token.key is not None
    assert (token.key.reveal(), token.quota) == ("sk-demo", None)
    assert (config.listen, config.database.reveal()) == ("127.0.0.1:3000", "sqlite:///newapi.db")
    assert config.prices["echo"].input


@pytest.mark.parametrize("block", CHANNELS, ids=TYPES)
def test_each_channel_example(block: str, tmp_path: Path) -> None:
    """Without its comment signs each channel is valid; a type that is not served yet gives just that warning."""
    loaded = load(tmp_path, TEXT.replace(block, uncommented(block)))
    assert loaded.faults == ()
    assert [one.message for one in loaded.warnings if "is not served" in one.message] == []
    assert loaded.config is not None
    assert len(loaded.config.channels) == 2


def test_every_type_has_an_example() -> None:
    """All types, and no others."""
    assert {"echo", *TYPES} == {*ADAPTERS}


def test_everything_at_once(tmp_path: Path) -> None:
    """The whole file without its comment signs, but for the head and the includes, is valid."""
    lines = []
    for line in TEXT[TEXT.index("listen:") :].splitlines():
        bare = re.sub(r"^( *)# ", r"\1", line)
        keep = re.match(r" *(- )?[a-z_][a-z0-9_.-]*:( |$)", bare) and not bare.startswith("include")
        lines.append(bare if keep else line)
    loaded = load(tmp_path, "\n".join(lines) + "\n")
    assert [str(one) for one in loaded.faults] == []
    assert loaded.config is not None
    assert len(loaded.config.tokens) == 2
    assert loaded.config.relay == model.Relay()
    assert loaded.config.media == model.MediaConfig()
    assert loaded.config.tasks == model.Tasks()
    assert loaded.config.log == model.Log()
    assert loaded.config.portal is not None
    assert loaded.config.portal.topup is not None
    assert loaded.config.portal.telegram is not None
    assert loaded.config.portal.session == portal.Portal().session
    sold = loaded.config.portal.topup
    unsaid = portal.TopUp()
    for name in ("price", "currency", "min_topup", "max_topup", "amounts"):
        assert getattr(sold, name) == getattr(unsaid, name)
    assert sold.easypay is not None
    assert sold.easypay.methods == portal.EasyPay(address="", id="", key=sold.easypay.key).methods
    assert sold.wechat is not None


@pytest.mark.parametrize(
    "struct",
    [
        model.Config, model.Admin, model.Relay, model.MediaConfig, model.Fetch, model.Tasks, model.Tier, model.Price,
        model.Ratios, model.Override, model.Group, model.Limits, model.Channel, model.Budget, model.Token, model.Log,
        model.Metrics, portal.Portal, portal.TopUp, portal.EasyPay, portal.WechatPay,
        portal.Telegram,
    ],
)  # fmt: skip
def test_every_key_is_documented(struct: type[msgspec.Struct]) -> None:
    """Each key of the model stands in the example."""
    for field in msgspec.structs.fields(struct):
        assert re.search(rf"\b{field.encode_name}\b", TEXT), field.encode_name


def test_nothing_points_at_a_file_of_ours() -> None:
    """Keys come from the environment; the only one written out is the demonstration's."""
    assert re.findall(r"sk-\w+", TEXT) == ["sk-demo"]

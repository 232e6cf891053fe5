"""The optional parts for people: what of them the file may say. A part that it does not name is not served."""

from __future__ import annotations

from typing import Annotated

import msgspec

from newapi_proxy.config.units import Duration, doc
from newapi_proxy.secret import Secret


class EasyPay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway of the EasyPay kind: the client's browser takes a signed form there, a signed notice comes back."""

    address: Annotated[str, doc("the gateway's root (PayAddress); its /submit.php takes the form")]
    id: Annotated[str, doc("the merchant's number (EpayId)")]
    key: Annotated[Secret, doc("the merchant's key, which signs both ways (EpayKey)")]
    methods: Annotated[dict[str, str], doc("the gateway's types that are offered, and what people call them")] = (
        msgspec.field(default_factory=lambda: {"alipay": "Alipay", "wxpay": "WeChat Pay"})
    )


class WechatPay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A merchant's account at WeChat Pay, API v3: orders are paid by scanning a code."""

    app_id: Annotated[str, doc("the application's id, wx…")]
    mch_id: Annotated[str, doc("the merchant's number")]
    serial: Annotated[str, doc("serial number of the merchant's certificate")]
    private_key: Annotated[Secret, doc("the merchant's RSA key in PEM form, best as {file: PATH}")]
    api_v3_key: Annotated[Secret, doc("the APIv3 key, 32 bytes, which notices are sealed with")]
    public_keys: Annotated[
        dict[str, Secret],
        doc("WeChat Pay's keys in PEM form, by PUB_KEY_ID_… or a certificate's serial number; the first is asked for"),
    ]
    notify_url: Annotated[str | None, doc("where notices go; absent: public_url and /api/wechatpay/notify")] = None
    address: Annotated[str, doc("the API's root")] = "https://api.mch.weixin.qq.com"


class TopUp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Credit that people buy or redeem. Amounts are whole USD of credit, New API's unit."""

    price: Annotated[float, doc("what 1 USD of credit costs, in the currency (Price)")] = 7.3
    currency: Annotated[str, doc("what the gateways take, three letters; WeChat Pay: CNY")] = "CNY"
    min_topup: Annotated[int, msgspec.Meta(ge=1, description="the smallest amount (MinTopUp)")] = 1
    max_topup: Annotated[int, msgspec.Meta(ge=1, le=1_000_000, description="the largest amount")] = 10_000
    amounts: Annotated[tuple[int, ...], doc("amounts that a page may offer")] = (10, 20, 50, 100, 200, 500)
    group_ratios: Annotated[dict[str, float], doc("factor on the price by the user's group (TopupGroupRatio)")] = {}
    discounts: Annotated[dict[int, float], doc("factor on the price of just this amount: 100: 0.95")] = {}
    redeem: Annotated[bool, doc("take the codes that `newapi-proxy redeem` makes")] = False
    easypay: Annotated[EasyPay | None, doc("sell by an EasyPay gateway; absent: not mounted")] = None
    wechat: Annotated[WechatPay | None, doc("sell by WeChat Pay; absent: not mounted")] = None


class Telegram(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bot whose widget signs people in. BotFather's /setdomain names our address to it."""

    bot: Annotated[str, doc("the bot's user name, without @ (TelegramBotName)")]
    token: Annotated[Secret, doc("the bot's token, NUMBER:TEXT (TelegramBotToken)")]


class Portal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is there for people beside the relay: pages for holders of keys and for the operator."""

    title: Annotated[str, doc("what the pages call this service")] = "newapi-proxy"
    session: Annotated[Duration, doc("how long a sign-in lasts")] = 43_200.0
    telegram: Annotated[Telegram | None, doc("sign in by Telegram; absent: not offered")] = None
    topup: Annotated[TopUp | None, doc("credit bought or redeemed; absent: not mounted")] = None

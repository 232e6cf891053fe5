"""A house with a channel for every provider, whose upstreams speak in `matrix_wires`: one request at a time, whole.

`PROVIDERS` says with what each provider is configured and which of its models stand for its formats. A provider that is
registered and not listed here fails the tests by its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from newapi_proxy.adapters import ADAPTERS, presets
from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.clock import SystemClock
from newapi_proxy.config.model import Channel, Config, Price, Relay, Token
from newapi_proxy.daemon.view import joined
from newapi_proxy.ports import Interrupt
from newapi_proxy.relay import exchange
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.relay.record import Visit
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import build
from newapi_proxy.store.db import Database
from tests.fakes import inbound, matrix_grammar, matrix_wires
from tests.fakes.ports import ListSink, Script, ScriptedIncoming
from tests.fakes.scripted import Say
from tests.fakes.service_account import account

FEATURES: Final = ("text", "tools", "image", "error", "stream")
KEY: Final = "sk-provider"


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """How a provider is configured, and the upstream model that makes it speak one of its formats."""

    type: str
    model: str = "model-1"
    key: str | None = KEY
    base_url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    way: str = ""  # which of its ways, where one model has several

    @property
    def name(self) -> str:
        """The channel's name, and what the client's model is called."""
        return f"{self.type}-{self.model}{self.way}".replace("/", "-").replace(":", "-").replace("@", "")

    @property
    def interface(self) -> str:
        """The type, and which of its interfaces where it has several."""
        return f"{self.type}{self.way}"


_UP: Final = "https://up.example"
_REGION: Final = {"region": "us-east-1"}
_SEEING: Final = {"deepseek": "deepseek-vl2"}
PROVIDERS: Final[Mapping[str, tuple[Provider, ...]]] = {
    "openai": (Provider(type="openai", model="gpt-4o"),),
    "azure": (Provider(type="azure", model="gpt-4o", base_url="https://x.openai.azure.com"),),
    "anthropic": (Provider(type="anthropic", model="claude-sonnet-4-5"),),
    "mistral": (Provider(type="mistral", model="mistral-large-latest"),),
    "zhipu": (
        Provider(type="zhipu", model="glm-4.6v", key="id.secret"),
        Provider(type="zhipu", model="chatglm_pro", key="id.secret", options={"api": "v3"}, way="-v3"),
    ),
    "custom": (Provider(type="custom", base_url=f"{_UP}/verbatim"),),
    "echo": (Provider(type="echo", key=None),),
    "gemini": (Provider(type="gemini", model="gemini-2.5-flash"),),
    "vertex": (
        Provider(type="vertex", model="gemini-2.5-flash", options={"project": "p", "region": "us-central1"}),
        Provider(type="vertex", model="claude-sonnet-4-5", options={"region": "us-east5"}, key=account()),
        Provider(type="vertex", model="llama-4-scout", options={"project": "p", "region": "us-east5"}),
    ),
    "bedrock": (
        Provider(type="bedrock", model="anthropic.claude-sonnet-4-5-20250929-v1:0", options=_REGION),
        Provider(
            type="bedrock",
            model="anthropic.claude-sonnet-4-5-20250929-v1:0",
            options={**_REGION, "bedrock_api": "invoke"},
            way="-invoke",
        ),
        Provider(type="bedrock", model="amazon.nova-pro-v1:0", options=_REGION, key="AKIAEXAMPLE|c2VjcmV0|us-east-1"),
    ),
    "ollama": (Provider(type="ollama", model="llama3.2-vision", key=None),),
    "cohere": (
        Provider(type="cohere", model="command-a-vision"),
        Provider(type="cohere", model="command-r", base_url="https://api.cohere.com/v1", way="-v1"),
    ),
    "dify": (
        Provider(type="dify", base_url=_UP),
        Provider(type="dify", base_url=_UP, options={"app": "agent"}, way="-agent"),
    ),
    "coze": (Provider(type="coze", model="bot-7379462189365198898"),),
    "cloudflare": (
        Provider(type="cloudflare", options={"account": "a"}),
        Provider(type="cloudflare", model="@cf/meta/llama", options={"account": "a", "api": "run"}, way="-run"),
    ),
    **{
        one.name: (
            Provider(type=one.name, model=_SEEING.get(one.name, "model-1"), base_url=None if one.base_url else _UP),
        )
        for one in presets.PRESETS
        if one.name != "cloudflare"
    },
}
SPEAKING: Final = tuple(name for name, one in ADAPTERS.items() if one.chat)


def providers() -> tuple[Provider, ...]:
    """Those whose type is registered."""
    return tuple(one for name in SPEAKING for one in PROVIDERS.get(name, ()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What came of one request: the client's answer, what went up, and the log line."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    sent: tuple[Outgoing, ...]
    shown: matrix_grammar.Shown
    charged: int

    @property
    def upstream(self) -> dict[str, Any]:
        """The body that the provider got."""
        sent = self.sent[-1]
        return dict(matrix_wires.Asked(sent.url, raw(sent)).body)


def raw(outgoing: Outgoing) -> bytes:
    """A request's body as bytes."""
    return outgoing.body if isinstance(outgoing.body, bytes) else orjson.dumps(outgoing.body)


Answering = Callable[[Outgoing], Script]


class Client:
    """The client at the port: answers each request by its own address and body; remembers them."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.played: list[Script] = []
        self.answer: Answering = lambda outgoing: Script(status=500)

    def says(self, say: Say, cut: int = 0) -> None:
        """What upstreams say from now on; `cut`: bytes per read, 0 all at once."""

        def answer(outgoing: Outgoing) -> Script:
            told = matrix_wires.answer(outgoing.url, raw(outgoing), say)
            return script(told.data, status=told.status, kind=told.kind, cut=cut, **say.headers)

        self.answer = answer

    async def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> ScriptedIncoming:
        """See ports.Client."""
        self.sent.append(outgoing)
        chosen = self.answer(outgoing)
        self.played.append(chosen)
        if chosen.refuse is not None:
            raise chosen.refuse
        return ScriptedIncoming(chosen, interrupt)


def script(data: bytes, *, status: int = 200, kind: str = "application/json", cut: int = 0, **headers: str) -> Script:
    """A script of these bytes."""
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)] if cut else [data]
    return Script(*(piece for piece in pieces if piece), status=status, headers={"content-type": kind, **headers})


class Theatre:
    """The house; `play` is one request through it."""

    def __init__(self, folder: Path, channels: tuple[Channel, ...], *, fetcher: Any = None, **relay: Any) -> None:
        self.client = Client()
        self._count = 0
        self._runner = asyncio.Runner()
        self._channels = channels
        self._fetcher = fetcher
        self._runner.run(self._open(folder, relay))

    async def _open(self, folder: Path, relay: dict[str, Any]) -> None:
        config = Config(
            relay=Relay(**{"max_attempts": 1, **relay}),
            prices={model: Price(input=2, output=4) for one in self._channels for model in one.models},
            channels=self._channels,
            tokens=(Token(name="t", key=Secret("sk-t")),),
        )
        self._database = await Database.open(f"sqlite:///{folder}/matrix.db", folder, "normal", None)
        rows = await self._database.write(lambda conn, items: [joined(conn, config, 1)], None)
        clock = SystemClock()
        snapshot = build(config, rows.tokens, rows.channel_ids)
        health = Health(clock, lambda channel, state: None)
        self.house = House(snapshot, self._database, self.client, health, clock, boot="b")
        self.house.fetcher = self._fetcher

    def forgive(self) -> None:
        """Forgets what was held against channels."""
        self.house.health = Health(self.house.clock, lambda channel, state: None)

    def close(self) -> None:
        """Closes the ledger."""
        self._runner.run(self._database.close())
        self._runner.close()

    def play(self, letter: str, model: str, *, stream: bool = False, leave_after: int = 0, **body: Any) -> Cell:
        """Asks for the model with `inbound.body(letter, **body)`, or with `tree` as it is.

        `leave_after`: the client goes after so many writes.
        """
        tree = body.pop("tree", None) or inbound.body(letter, model=model, stream=stream, **body)
        return self._runner.run(self._play(letter, model, tree, stream, ListSink(leave_after or None)))

    async def _play(self, letter: str, model: str, tree: Any, stream: bool, sink: ListSink) -> Cell:
        self._count += 1
        self.client.sent.clear()
        self.client.played.clear()
        path = inbound.route(letter, stream)
        assert path is not None
        visit = Visit(
            request_id=f"r{self._count}",
            method="POST",
            path=path,
            route=path,
            client_ip="127.0.0.1",
            arrived=self.house.clock.monotonic(),
            token=next(iter(self.house.snapshot.tokens.values())),
        )
        given = inbound.headers(letter, model, stream)
        await exchange.chat(self.house, visit, inbound.surface(letter, stream), orjson.dumps(tree), given, sink)
        assert sink.ended or sink.departed
        parse = matrix_grammar.stream if _streamed(sink) else matrix_grammar.whole
        return Cell(
            status=sink.status,
            headers=sink.headers,
            data=sink.body,
            sent=tuple(self.client.sent),
            shown=matrix_grammar.Shown() if sink.departed else parse(letter, sink.body),
            charged=await self._charged(visit.request_id),
        )

    async def _charged(self, request_id: str) -> int:
        await self._database.write(lambda conn, items: [None], None)  # what was asked for before is written
        sql = "SELECT coalesce(sum(charged), 0) FROM ledger WHERE request_id = ?"
        found = await self._database.read(lambda conn: conn.exec_driver_sql(sql, (request_id,)).scalar())
        return int(found or 0)


def _streamed(sink: ListSink) -> bool:
    return sink.headers.get("content-type", "").startswith("text/event-stream")


def channels() -> tuple[Channel, ...]:
    """A channel for each provider; its model's name in the client's mouth is the channel's."""
    return tuple(
        Channel(
            name=one.name,
            type=one.type,
            base_url=one.base_url,
            key=Secret(one.key) if one.key is not None else None,
            models=(one.name,),
            model_mapping={one.name: one.model},
            options=dict(one.options),
            auto_disable=False,
        )
        for one in providers()
    )

"""The rows of embeddings, rerank and moderations: what goes up to each provider, what comes back, what it costs."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import msgspec
import orjson
import pytest

from newapi_proxy.config.model import Channel, Override, Price
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Surface
from newapi_proxy.surfaces.embeddings import EMBEDDINGS
from newapi_proxy.surfaces.gemini_embeddings import EMBEDDINGS as GEMINI
from newapi_proxy.surfaces.moderations import MODERATIONS
from newapi_proxy.surfaces.rerank import RERANK
from tests.fakes import inbound
from tests.fakes.inbound import across
from tests.fakes.ports import ListSink, Script
from tests.fakes.stage import JSON, Stage, stage

Tree = dict[str, Any]

ONE: Final = [0.5, -1.0]
TWO: Final = [0.25, 2.0]
AWS: Final = "AKIDEXAMPLE|wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY|us-east-1"
PACKED: Final = base64.b64encode(struct.pack("<2f", *ONE)).decode()


def channel(type: str, model: str = "asked", **more: Any) -> Channel:
    """A channel of the type; the client asks for `asked`."""
    more.setdefault("base_url", "https://h.example")
    key = Secret(more.pop("key", "k"))
    return Channel(name="c", type=type, key=key, models=("asked",), model_mapping={"asked": model}, **more)


def says(body: Any, status: int = 200, **headers: str) -> Script:
    """An upstream's answer."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return Script(data, status=status, headers={**JSON, **headers})


class Told(msgspec.Struct, frozen=True):
    """What a client got, and what its request became."""

    status: int
    body: Any
    urls: list[str]
    sent: list[Tree]
    headers: Mapping[str, str]
    charged: int


async def told(folder: Path, one: Channel, scripts: list[Script], surface: Surface, **body: Any) -> Told:
    """One request by way of the channel; a token of prompt costs one unit, so the charge shows the usage."""
    async with stage(Path(mkdtemp(dir=folder)), (one,), *scripts) as made:
        sink: ListSink = await made.ask(surface, **body)
        return Told(
            status=sink.status,
            body=orjson.loads(sink.body),
            urls=[script.sent.url for script in made.client.opened if script.sent is not None],
            sent=made.sent,
            headers=sink.headers,
            charged=await charged(made),
        )


async def charged(made: Stage) -> int:
    """Units of all settled requests."""
    await made.house.db.write(lambda conn, items: [None], None)
    sql = "SELECT COALESCE(SUM(charged), 0) FROM ledger WHERE state = 'settled'"
    return await made.house.db.read(lambda conn: conn.exec_driver_sql(sql).scalar())


def vectors(body: Tree) -> list[Any]:
    """The vectors of an answer in OpenAI's format, in order; its envelope is right."""
    assert body["object"] == "list"
    assert [row["index"] for row in body["data"]] == list(range(len(body["data"])))
    assert {row["object"] for row in body["data"]} == {"embedding"}
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
    return [row["embedding"] for row in body["data"]]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is asked for the vectors of two texts, and answers."""

    channel: Channel
    urls: list[str]
    sent: list[Tree]
    answers: list[Any]
    prompt: int = 7


GOOGLE: Final = "https://h.example/v1beta/models/m"
VERTEX: Final = "https://h.example/v1/projects/p/locations/r/publishers/google/models/"
OPENAIS: Final = {
    "object": "list",
    "model": "m",
    "data": [
        {"object": "embedding", "index": 0, "embedding": ONE},
        {"object": "embedding", "index": 1, "embedding": TWO},
    ],
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}
ASKED: Final[Tree] = {"model": "m", "input": ["a b", "c"], "dimensions": 2}
WAYS: Final[dict[str, Way]] = {
    "openai": Way(
        channel=channel("openai", "m"),
        urls=["https://h.example/v1/embeddings"],
        sent=[ASKED],
        answers=[OPENAIS],
    ),
    "azure": Way(
        channel=channel("azure", "m.1", options={"api_version": "2024-10-21", "strip_dots": True}),
        urls=["https://h.example/openai/deployments/m1/embeddings?api-version=2024-10-21"],
        sent=[{**ASKED, "model": "m1"}],
        answers=[OPENAIS],
    ),
    "azure, newer": Way(
        channel=channel("azure", "m"),
        urls=["https://h.example/openai/v1/embeddings"],
        sent=[ASKED],
        answers=[OPENAIS],
    ),
    "cloudflare": Way(
        channel=channel("cloudflare", "m", options={"account": "x"}),
        urls=["https://h.example/client/v4/accounts/x/ai/v1/embeddings"],
        sent=[ASKED],
        answers=[{**OPENAIS, "usage": None}],
        prompt=3,
    ),
    "zhipu": Way(
        channel=channel("zhipu", "m"),
        urls=["https://h.example/api/paas/v4/embeddings"],
        sent=[ASKED],
        answers=[OPENAIS],
    ),
    "mistral": Way(
        channel=channel("mistral", "m"),
        urls=["https://h.example/v1/embeddings"],
        sent=[{"model": "m", "input": ["a b", "c"], "output_dimension": 2}],
        answers=[OPENAIS],
    ),
    "voyage": Way(
        channel=channel("voyage", "m"),
        urls=["https://h.example/v1/embeddings"],
        sent=[{"model": "m", "input": ["a b", "c"], "output_dimension": 2}],
        answers=[{**OPENAIS, "usage": {"total_tokens": 7}}],
    ),
    "jina": Way(
        channel=channel("jina", "m"),
        urls=["https://h.example/v1/embeddings"],
        sent=[ASKED],
        answers=[{**OPENAIS, "usage": {"total_tokens": 7}}],
    ),
    "tei": Way(channel=channel("tei", "m"), urls=["https://h.example/v1/embeddings"], sent=[ASKED], answers=[OPENAIS]),
    "gemini": Way(
        channel=channel("gemini", "m"),
        urls=[f"{GOOGLE}:batchEmbedContents"],
        sent=[
            {
                "requests": [
                    {"model": "models/m", "content": {"parts": [{"text": "a b"}]}, "outputDimensionality": 2},
                    {"model": "models/m", "content": {"parts": [{"text": "c"}]}, "outputDimensionality": 2},
                ]
            }
        ],
        answers=[{"embeddings": [{"values": ONE}, {"values": TWO}], "usageMetadata": {"promptTokenCount": 7}}],
    ),
    "gemini without usage": Way(
        channel=channel("gemini", "m"),
        urls=[f"{GOOGLE}:batchEmbedContents"],
        sent=[{}],
        answers=[{"embeddings": [{"values": ONE}, {"values": TWO}]}],
        prompt=3,
    ),
    "vertex predict": Way(
        channel=channel("vertex", "text-embedding-005", options={"project": "p", "region": "r"}),
        urls=[f"{VERTEX}text-embedding-005:predict"],
        sent=[{"instances": [{"content": "a b"}, {"content": "c"}], "parameters": {"outputDimensionality": 2}}],
        answers=[
            {
                "predictions": [
                    {"embeddings": {"values": ONE, "statistics": {"token_count": 5}}},
                    {"embeddings": {"values": TWO, "statistics": {"token_count": 2}}},
                ]
            }
        ],
    ),
    "vertex content": Way(
        channel=channel("vertex", "gemini-embedding-2", options={"project": "p", "region": "r"}),
        urls=[f"{VERTEX}gemini-embedding-2:embedContent"] * 2,
        sent=[
            {"content": {"parts": [{"text": "a b"}]}, "outputDimensionality": 2},
            {"content": {"parts": [{"text": "c"}]}, "outputDimensionality": 2},
        ],
        answers=[
            {"embedding": {"values": ONE}, "usageMetadata": {"promptTokenCount": 5}},
            {"embedding": {"values": TWO}, "usageMetadata": {"promptTokenCount": 2}},
        ],
    ),
    "cohere": Way(
        channel=channel("cohere", "m"),
        urls=["https://h.example/v2/embed"],
        sent=[
            {
                "model": "m",
                "texts": ["a b", "c"],
                "input_type": "search_document",
                "embedding_types": ["float"],
                "output_dimension": 2,
            }
        ],
        answers=[{"id": "1", "embeddings": {"float": [ONE, TWO]}, "meta": {"billed_units": {"input_tokens": 7}}}],
    ),
    "cohere, older": Way(
        channel=channel("cohere", "m", base_url="https://h.example/v1"),
        urls=["https://h.example/v1/embed"],
        sent=[
            {"model": "m", "texts": ["a b", "c"], "input_type": "search_document", "embedding_types": ["float"]},
        ],
        answers=[{"embeddings": [ONE, TWO], "meta": {"billed_units": {"input_tokens": 7}}}],
    ),
    "ollama": Way(
        channel=channel("ollama", "m", options={"keep_alive": "5m"}),
        urls=["https://h.example/api/embed"],
        sent=[{"model": "m", "input": ["a b", "c"], "dimensions": 2, "keep_alive": "5m"}],
        answers=[{"embeddings": [ONE, TWO], "prompt_eval_count": 7}],
    ),
    "bedrock titan": Way(
        channel=channel("bedrock", "amazon.titan-embed-text-v2:0", key=AWS),
        urls=["https://h.example/model/amazon.titan-embed-text-v2%3A0/invoke"] * 2,
        sent=[{"inputText": "a b", "dimensions": 2}, {"inputText": "c", "dimensions": 2}],
        answers=[{"embedding": ONE, "inputTextTokenCount": 5}, {"embedding": TWO, "inputTextTokenCount": 2}],
    ),
    "bedrock cohere": Way(
        channel=channel("bedrock", "cohere.embed-v4:0", key=AWS),
        urls=["https://h.example/model/cohere.embed-v4%3A0/invoke"],
        sent=[
            {
                "texts": ["a b", "c"],
                "input_type": "search_document",
                "output_dimension": 2,
                "embedding_types": ["float"],
            }
        ],
        answers=[{"embeddings": {"float": [ONE, TWO]}}],
        prompt=3,
    ),
    "bedrock nova": Way(
        channel=channel("bedrock", "amazon.nova-2-multimodal-embeddings-v1:0", key=AWS),
        urls=["https://h.example/model/amazon.nova-2-multimodal-embeddings-v1%3A0/invoke"] * 2,
        sent=[{}, {}],
        answers=[
            {"embeddings": [{"embeddingType": "TEXT", "embedding": ONE}]},
            {"embeddings": [{"embeddingType": "TEXT", "embedding": TWO}]},
        ],
        prompt=3,
    ),
}
EVERY: Final = pytest.mark.parametrize("name", WAYS)


@EVERY
async def test_vectors_of_every_provider(tmp_path: Path, name: str) -> None:
    """T-GEMI-079 and 080, T-VERT-033 and 034, T-OLLA-040, T-COHE-034 and 036, T-BEDR-040 (OC): texts go up in the
    provider's own words, vectors come back in order, and what upstream counted is what is charged."""
    way = WAYS[name]
    got = await told(
        tmp_path, way.channel, [says(one) for one in way.answers], EMBEDDINGS, **{**ASKED, "model": "asked"}
    )
    assert got.status == 200, got.body
    assert vectors(got.body) == [ONE, TWO]
    assert got.body["model"] == "asked"
    assert got.urls == way.urls
    for sent, wanted in zip(got.sent, way.sent, strict=True):
        assert sent == wanted or not wanted
    assert (got.body["usage"]["prompt_tokens"], got.charged) == (way.prompt, way.prompt)


@EVERY
async def test_base64_of_every_provider(tmp_path: Path, name: str) -> None:
    """T-OLLA-041, T-OPEN-017 (OC): who asks for base64 gets it, whatever the provider sends; OpenAI's own answer
    passes, as its clients read numbers too."""
    way = WAYS[name]
    asked = {**ASKED, "model": "asked", "encoding_format": "base64"}
    got = await told(tmp_path, way.channel, [says(one) for one in way.answers], EMBEDDINGS, **asked)
    packed = [PACKED, base64.b64encode(struct.pack("<2f", *TWO)).decode()]
    assert vectors(got.body) == ([ONE, TWO] if way.channel.type in ("openai", "azure") else packed)


@pytest.mark.parametrize("wanted", ["float", "base64", None])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("type_", ["openai", "siliconflow"])
async def test_large_answers(tmp_path: Path, type_: str, wanted: str | None, packed: bool) -> None:
    """An answer too large to be read for nothing is told as a small one: its own bytes where they are what is wanted,
    else written anew; usage is charged, or counted where it is missing."""
    row = PACKED if packed else ONE
    data = [{"object": "embedding", "index": number, "embedding": row} for number in range(6000)]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    asked = {"model": "asked", "input": "hello world", **({"encoding_format": wanted} if wanted else {})}
    for told_usage, cost in ((usage, 7), (None, 2)):
        answer = orjson.dumps({"object": "list", "model": "m", "data": data, "usage": told_usage, "new": 1})
        assert len(answer) > 256 * 1024
        async with stage(Path(mkdtemp(dir=tmp_path)), (channel(type_, "asked"),), says(answer)) as made:
            sink = await made.ask(EMBEDDINGS, **asked)
            body = orjson.loads(sink.body)
            right = PACKED if (packed or type_ != "openai") and wanted == "base64" else ONE
            assert vectors(body) == [right] * 6000
            assert body["new"] == 1
            assert await charged(made) == body["usage"]["prompt_tokens"] == cost
            if right == row and told_usage:
                assert sink.body == answer


async def test_base64_is_undone_for_who_wants_numbers(tmp_path: Path) -> None:
    """A server that answers base64 all the same is no reason for a client to get it."""
    row = {"object": "embedding", "index": 0, "embedding": PACKED}
    got = await told(
        tmp_path, channel("openai"), [says({**OPENAIS, "data": [row]})], EMBEDDINGS, model="asked", input="x"
    )
    assert vectors(got.body) == [ONE]


@EVERY
async def test_gemini_clients(tmp_path: Path, name: str) -> None:
    """T-GEMI-079 and 080, T-VERT-033 and 034, T-OLLA-040, T-COHE-034 and 036 (GG): Google's format is served by every
    provider, and by Google itself with the client's own body."""
    way = WAYS[name]
    rows = [
        {"model": "models/asked", "content": {"parts": [{"text": text}]}, "outputDimensionality": 2}
        for text in ("a b", "c")
    ]
    got = await told(tmp_path, way.channel, [says(one) for one in way.answers], GEMINI, in_path="asked", requests=rows)
    assert got.status == 200, got.body
    assert [row["values"] for row in got.body["embeddings"]] == [ONE, TWO]
    assert got.urls == way.urls
    for sent, wanted in zip(got.sent, way.sent, strict=True):
        assert sent == wanted or not wanted
    assert got.charged == way.prompt


async def test_one_content_of_gemini_passes_whole(tmp_path: Path) -> None:
    """T-GEMI-079, T-VERT-034 (GG): a single content goes to the same method, unknown fields and all."""
    body = {"content": {"parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "eA=="}}]}, "new": 1}
    answer = {"embedding": {"values": ONE, "shape": [2]}, "usageMetadata": {"promptTokenCount": 3}}
    got = await told(tmp_path, channel("gemini", "m"), [says(answer)], GEMINI, in_path="asked", **body)
    assert got.urls == [f"{GOOGLE}:embedContent"]
    assert got.sent == [body]
    assert got.body == answer
    hosted = channel("vertex", "gemini-embedding-2", options={"project": "p", "region": "r"})
    got = await told(tmp_path, hosted, [says(answer)], GEMINI, in_path="asked", **body)
    assert got.sent == [body]
    assert got.body["embedding"]["values"] == ONE


async def test_settings_of_the_providers_own_pass(tmp_path: Path) -> None:
    """T-JINA-003, T-COHE-034 (OC): a provider's own fields reach it, another's are named as left out."""
    asked = {"model": "asked", "input": ["x"], "task": "retrieval.query", "late_chunking": True, "user": "u"}
    got = await told(tmp_path, channel("jina", "m"), [says(OPENAIS)], EMBEDDINGS, **asked)
    assert got.sent == [{"model": "m", "input": ["x"], "task": "retrieval.query", "late_chunking": True}]
    assert got.headers["x-dropped-params"] == "user"
    answer = {"embeddings": {"float": [ONE]}, "meta": {"billed_units": {"input_tokens": 1}}}
    asked = {"model": "asked", "input": "x", "input_type": "clustering", "task": "y"}
    got = await told(tmp_path, channel("cohere", "m"), [says(answer)], EMBEDDINGS, **asked)
    assert got.sent[0]["input_type"] == "clustering"
    assert got.headers["x-dropped-params"] == "task"


async def test_openai_gets_what_the_client_sent(tmp_path: Path) -> None:
    """T-OPEN-017 (OC): the body is the client's but for the model's name, and so is the answer."""
    asked = {"model": "asked", "input": [[1, 2], [3]], "encoding_format": "base64", "user": "u", "new": {"deep": [1]}}
    row = {"object": "embedding", "index": 0, "embedding": PACKED}
    answer = orjson.dumps({**OPENAIS, "data": [row], "model": "asked", "new": 1}, option=orjson.OPT_INDENT_2)
    one = channel("openai", "asked", override=Override(set={"user": "house"}), headers={"x-team": "blue"})
    async with stage(tmp_path, (one,), says(answer)) as made:
        sink = await made.ask(EMBEDDINGS, **asked)
        assert made.sent == [{**asked, "user": "house"}]
        assert made.client.opened[0].sent.headers["x-team"] == "blue"
        assert sink.body == answer


async def test_one_text_is_a_list_for_jina(tmp_path: Path) -> None:
    """T-JINA-001 (OC): a bare text becomes a list of one."""
    got = await told(tmp_path, channel("jina", "m"), [says(OPENAIS)], EMBEDDINGS, model="asked", input="x")
    assert got.sent[0]["input"] == ["x"]


@pytest.mark.parametrize("type_", ["jina", "voyage", "mistral", "cohere", "gemini", "ollama", "zhipu"])
async def test_token_numbers_of_nobody_known(tmp_path: Path, type_: str) -> None:
    """T-JINA-002 (OC): token numbers of an encoding that nobody here knows are refused, and nothing is sent."""
    got = await told(tmp_path, channel(type_, "m"), [], EMBEDDINGS, model="asked", input=[1, 2])
    assert (got.status, got.body["error"]["param"]) == (400, "input")
    assert (got.urls, got.charged) == ([], 0)


async def test_token_numbers_of_openai_become_texts(tmp_path: Path) -> None:
    """T-JINA-002 (OC): numbers whose encoding the model's name tells are the text they are, for who wants texts."""
    one = Channel(
        name="c", type="ollama", base_url="https://h.example", key=Secret("k"), models=("text-embedding-3-small",)
    )
    answer = {"embeddings": [ONE, TWO], "prompt_eval_count": 4}
    asked = {"model": "text-embedding-3-small", "input": [[15339, 1917], [9906]]}
    got = await told(tmp_path, one, [says(answer)], EMBEDDINGS, **asked)
    assert got.sent[0]["input"] == ["hello world", "Hello"]
    got = await told(tmp_path, one, [], EMBEDDINGS, model="text-embedding-3-small", input=[999_999_999])
    assert got.status == 400


async def test_inputs_are_counted(tmp_path: Path) -> None:
    """T-TOKN-009 (OC): where upstream is silent, texts are counted by their tokens, token numbers by their number."""
    silent = {**OPENAIS, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
    for given, count in (("hello world", 2), (["hello world", "hello"], 3), ([1, 2, 3], 3), ([[1], [2, 3]], 3)):
        got = await told(tmp_path, channel("openai"), [says(silent)], EMBEDDINGS, model="asked", input=given)
        assert got.charged == count


async def test_a_hundred_texts_for_cohere(tmp_path: Path) -> None:
    """T-COHE-035 (OC, GG): more texts than Cohere takes go up in batches, vectors keep their order, usage is summed."""
    numbers = [[float(number)] for number in range(200)]
    answers = [
        says({"embeddings": {"float": numbers[start : start + 96]}, "meta": {"billed_units": {"input_tokens": 10}}})
        for start in (0, 96, 192)
    ]
    texts = [str(number) for number in range(200)]
    got = await told(tmp_path, channel("cohere"), answers, EMBEDDINGS, model="asked", input=texts)
    assert [len(one["texts"]) for one in got.sent] == [96, 96, 8]
    assert vectors(got.body) == numbers
    assert (got.body["usage"]["prompt_tokens"], got.charged) == (30, 30)


async def test_a_batch_that_fails_costs_nothing(tmp_path: Path) -> None:
    """A failure of a later batch is the request's: no vectors, no charge."""
    good = says({"embeddings": {"float": [ONE] * 96}, "meta": {"billed_units": {"input_tokens": 10}}})
    bad = says({"message": "no"}, status=400)
    got = await told(tmp_path, channel("cohere"), [good, bad], EMBEDDINGS, model="asked", input=["x"] * 97)
    assert (got.status, got.charged) == (400, 0)


async def test_an_old_ollama(tmp_path: Path) -> None:
    """T-OLLA-042 (OC, GG): a server that does not know /api/embed is asked by its older endpoint, text by text."""
    unknown = Script(b"404 page not found", status=404, headers={"content-type": "text/plain"})
    got = await told(
        tmp_path,
        channel("ollama", "m"),
        [unknown, says({"embedding": ONE}), says({"embedding": TWO})],
        EMBEDDINGS,
        model="asked",
        input=["hello", "world"],
    )
    assert vectors(got.body) == [ONE, TWO]
    assert [url.rpartition("/")[2] for url in got.urls] == ["embed", "embeddings", "embeddings"]
    assert [one["prompt"] for one in got.sent[1:]] == ["hello", "world"]
    assert got.charged == 2


async def test_a_model_that_ollama_does_not_have(tmp_path: Path) -> None:
    """A 404 that speaks of the model is one: the older endpoint is not asked."""
    missing = says({"error": 'model "m" not found, try pulling it first'}, status=404)
    got = await told(tmp_path, channel("ollama", "m"), [missing], EMBEDDINGS, model="asked", input="x")
    assert (got.status, got.body["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("name", [name for name in WAYS if len(WAYS[name].answers) == 1])
async def test_answers_that_are_none(tmp_path: Path, name: str) -> None:
    """What holds no vectors is a failed attempt, told as such and not charged."""
    broken = [b"{}", b"<html>", b'{"embeddings": [1, 2]}', b'{"data": 5}', b"[]", b""]
    one = msgspec.structs.replace(WAYS[name].channel, auto_disable=False)
    async with stage(tmp_path, (one,), *map(says, broken)) as made:
        for _ in broken:
            assert (await made.ask(EMBEDDINGS, **{**ASKED, "model": "asked"})).status == 502
        assert await charged(made) == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["x", 5]}, "input.1"),
        ({"input": [[1, "x"]]}, "input.0.1"),
        ({"input": [1, 2.5]}, "input.1"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "dimensions": "many"}, "dimensions"),
        ({"input": "x", "model": None}, "model"),
    ],
)
async def test_requests_that_are_none(tmp_path: Path, body: Tree, param: str) -> None:
    """A fault of the client's is told with its place, before anything is sent or held."""
    got = await told(tmp_path, channel("openai"), [], EMBEDDINGS, **{"model": "asked", **body})
    assert (got.status, got.body["error"]["code"], got.body["error"]["param"]) == (400, "invalid_text_request", param)


async def test_errors_of_jina(tmp_path: Path) -> None:
    """T-JINA-006 (OC): `detail` is the message, as text and as a list."""
    for detail in ("It is wrong", [{"loc": ["body", "input"], "msg": "It is wrong"}]):
        got = await told(
            tmp_path, channel("jina"), [says({"detail": detail}, status=422)], EMBEDDINGS, model="asked", input="x"
        )
        assert got.status == 400
        assert "It is wrong" in got.body["error"]["message"]


@across("OC", "OR", "AM", "GG")
async def test_no_chat_with_jina(tmp_path: Path, letter: str) -> None:
    """T-JINA-005: a chat is refused in the client's format, nothing is sent."""
    async with stage(tmp_path, (channel("jina"),)) as made:
        body = inbound.body(letter, inbound.HI)
        sink = await made.ask(inbound.surface(letter), in_path="asked", **{**body, "model": "asked"})
        assert sink.status == 400
        assert made.client.opened == []
        if letter in ("OC", "OR"):
            assert orjson.loads(sink.body)["error"]["code"] == "unsupported_endpoint"


RANKS: Final = {
    "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9},
}
QUERY: Final[Tree] = {"model": "asked", "query": "what", "documents": ["one", {"text": "two"}]}


def places(body: Tree) -> list[tuple[int, float]]:
    """Indexes and scores of an answer."""
    assert body["usage"]["prompt_tokens"] > 0
    assert body["usage"]["total_tokens"] >= body["usage"]["prompt_tokens"]
    return [(row["index"], row["relevance_score"]) for row in body["results"]]


@pytest.mark.parametrize("top_n", [None, 0, 1])
async def test_ranks_by_jina(tmp_path: Path, top_n: int | None) -> None:
    """T-JINA-004 (OC): the body passes with what is Jina's own; no number, null and 0 mean all; the total is
    charged."""
    answer = {**RANKS, "usage": {"total_tokens": 9}}
    got = await told(tmp_path, channel("jina", "m"), [says(answer)], RERANK, **QUERY, top_n=top_n, own=True)
    assert got.urls == ["https://h.example/v1/rerank"]
    assert got.sent == [{**QUERY, "model": "m", "own": True, **({"top_n": 1} if top_n else {})}]
    assert places(got.body) == [(1, 0.9), (0, 0.1)]
    assert (got.body["usage"]["prompt_tokens"], got.charged) == (9, 9)


async def test_the_number_by_voyages_name(tmp_path: Path) -> None:
    """A body of Voyage's names is served by others too."""
    got = await told(tmp_path, channel("jina", "m"), [says(RANKS)], RERANK, **QUERY, top_k=1)
    assert got.sent == [{**QUERY, "model": "m", "top_n": 1}]


async def test_channels_without_the_endpoint_are_passed_over(tmp_path: Path) -> None:
    """A model that two channels list goes to the one whose provider has the endpoint, also when the other comes first
    in priority; a channel that fails gives way to the next that has it."""
    many = (
        msgspec.structs.replace(channel("anthropic", "m"), name="a", priority=9),
        msgspec.structs.replace(channel("cohere", "m"), name="b", priority=5),
        msgspec.structs.replace(channel("deepseek", "m"), name="c", priority=4),
        msgspec.structs.replace(channel("jina", "m"), name="d", priority=1),
    )
    answer = {**OPENAIS, "data": OPENAIS["data"][:1], "usage": {"total_tokens": 4}}
    async with stage(tmp_path, many, says({"message": "no"}, status=500), says(answer)) as made:
        sink = await made.ask(EMBEDDINGS, model="asked", input="x")
        assert vectors(orjson.loads(sink.body)) == [ONE]
        urls = [one.sent.url for one in made.client.opened]
        assert urls == ["https://h.example/v2/embed", "https://h.example/v1/embeddings"]
        assert await charged(made) == 4


async def test_documents_come_back_where_they_are_wanted(tmp_path: Path) -> None:
    """A client that wants documents has them with their text, also from a server that sends none, or bare texts."""
    rows = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1, "document": "one"}]
    for wanted in (True, None):
        got = await told(
            tmp_path, channel("openai"), [says({**RANKS, "results": rows})], RERANK, **QUERY, return_documents=wanted
        )
        told_back = [row.get("document") for row in got.body["results"]]
        assert told_back == [{"text": "two"} if wanted else None, {"text": "one"}]


async def test_an_answer_of_the_format_stays_as_it_is(tmp_path: Path) -> None:
    """Bytes that lack nothing are the client's, unknown fields and all; `results` is added beside `data`."""
    answer = orjson.dumps({**RANKS, "new": 1}, option=orjson.OPT_INDENT_2)
    async with stage(tmp_path, (channel("openai", "asked"),), says(answer)) as made:
        assert (await made.ask(RERANK, **QUERY)).body == answer
    data = {"object": "list", "data": RANKS["results"], "model": "m", "usage": {"total_tokens": 9}}
    got = await told(tmp_path, channel("openai", "m"), [says(data)], RERANK, **QUERY)
    assert got.body == {
        **data,
        "model": "asked",
        "results": RANKS["results"],
        "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9},
    }


@pytest.mark.parametrize("wanted", [True, None, False])
async def test_ranks_by_cohere(tmp_path: Path, wanted: bool | None) -> None:
    """T-COHE-037 (OC): texts go up, all are asked for, documents come back out of the request unless refused."""
    answer = {
        "id": "x",
        "results": RANKS["results"],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 3}},
    }
    got = await told(tmp_path, channel("cohere", "m"), [says(answer)], RERANK, **QUERY, return_documents=wanted)
    assert got.urls == ["https://h.example/v2/rerank"]
    assert got.sent == [{"model": "m", "query": "what", "documents": ["one", "two"], "top_n": 2}]
    assert places(got.body) == [(1, 0.9), (0, 0.1)]
    documents = [None, None] if wanted is False else [{"text": "two"}, {"text": "one"}]
    assert [row.get("document") for row in got.body["results"]] == documents
    assert got.charged == got.body["usage"]["prompt_tokens"] == 3  # by the token: counted here, searches do not matter


async def test_searches_are_charged_by_the_call(tmp_path: Path) -> None:
    """T-COHE-037 (OC): where a call has the price, every search unit is one."""
    answer = {"results": RANKS["results"], "meta": {"billed_units": {"search_units": 3}}}
    one = channel("cohere", "m")
    async with stage(tmp_path, (one,), says(answer), prices={"*": Price(call=0.002)}) as made:
        await made.ask(RERANK, **QUERY)
        assert await charged(made) == 3000


async def test_ranks_by_an_older_cohere(tmp_path: Path) -> None:
    """Version 1 takes the documents as they are and gives them back."""
    one = channel("cohere", "m", base_url="https://h.example/v1")
    answer = {"id": "x", "results": [{"index": 0, "relevance_score": 0.9, "document": {"text": "one"}}]}
    got = await told(tmp_path, one, [says(answer)], RERANK, **QUERY, top_n=1, max_chunks_per_doc=5, overlap_tokens=2)
    assert got.urls == ["https://h.example/v1/rerank"]
    assert got.sent == [
        {**QUERY, "model": "m", "top_n": 1, "return_documents": True, "max_chunks_per_doc": 5},
    ]
    assert got.body["results"][0]["document"] == {"text": "one"}
    assert got.headers["x-dropped-params"] == "overlap_tokens"


async def test_ranks_by_voyage(tmp_path: Path) -> None:
    """The number has another name, documents are texts, the answer is called `data`."""
    answer = {"object": "list", "data": RANKS["results"], "model": "m", "usage": {"total_tokens": 9}}
    got = await told(tmp_path, channel("voyage", "m"), [says(answer)], RERANK, **QUERY, top_n=2, truncation=True)
    assert got.sent == [
        {"model": "m", "query": "what", "documents": ["one", "two"], "top_k": 2, "truncation": True},
    ]
    assert places(got.body) == [(1, 0.9), (0, 0.1)]
    assert got.charged == 9


async def test_ranks_by_a_server_at_home(tmp_path: Path) -> None:
    """Text Embeddings Inference answers a bare list, best first, of all there is: the client gets as many as it asked
    for, with documents where it wants them."""
    answer = [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]
    got = await told(tmp_path, channel("tei", "m"), [says(answer)], RERANK, **QUERY, top_n=1, return_documents=True)
    assert got.urls == ["https://h.example/rerank"]
    assert got.sent == [{"query": "what", "texts": ["one", "two"]}]
    assert got.body["results"] == [{"index": 1, "relevance_score": 0.9, "document": {"text": "two"}}]
    assert got.charged == got.body["usage"]["prompt_tokens"] == 3


async def test_usage_beside_the_results(tmp_path: Path) -> None:
    """Tokens that stand in `meta` are the usage."""
    answer = {"results": RANKS["results"], "meta": {"tokens": {"input_tokens": 11, "output_tokens": 0}}}
    got = await told(tmp_path, channel("siliconflow", "m"), [says(answer)], RERANK, **QUERY)
    assert got.body["usage"] == {"prompt_tokens": 11, "completion_tokens": 0, "total_tokens": 11}
    assert got.charged == 11


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": ""}, "invalid_query"),
        ({"documents": []}, "invalid_documents"),
        ({"documents": None}, "invalid_documents"),
        ({"documents": "one"}, "invalid_text_request"),
        ({"documents": [5]}, "invalid_text_request"),
        ({"query": 5}, "invalid_text_request"),
        ({"top_n": -1}, "invalid_text_request"),
        ({"top_n": "all"}, "invalid_text_request"),
        ({"model": ""}, "invalid_text_request"),
    ],
)
async def test_rerank_requests_that_are_none(tmp_path: Path, body: Tree, code: str) -> None:
    """A fault of the client's is told in its own words, nothing is sent."""
    got = await told(tmp_path, channel("jina"), [], RERANK, **{**QUERY, **body})
    assert (got.status, got.body["error"]["code"], got.urls) == (400, code, [])


@pytest.mark.parametrize("type_", ["jina", "openai", "cohere", "voyage", "tei"])
async def test_rerank_answers_that_are_none(tmp_path: Path, type_: str) -> None:
    """What holds no order is a failed attempt, told as such and not charged."""
    broken = [b"{}", b"<html>", b'{"results": 5}', b'{"results": [1]}', b'[{"index": "x"}]', b'{"error": "no"}']
    async with stage(tmp_path, (channel(type_, auto_disable=False),), *map(says, broken)) as made:
        for _ in broken:
            assert (await made.ask(RERANK, **QUERY)).status == 502
        assert await charged(made) == 0


VERDICT: Final = {"id": "modr-1", "model": "m", "results": [{"flagged": True, "categories": {"violence": True}}]}


async def test_moderations_pass(tmp_path: Path) -> None:
    """T-OPEN-021 (OC): the request passes, so does the answer; it costs what the price says."""
    asked = {"model": "asked", "input": [{"type": "text", "text": "hello world"}], "new": 1}
    got = await told(tmp_path, channel("openai", "m"), [says(VERDICT)], MODERATIONS, **asked)
    assert got.urls == ["https://h.example/v1/moderations"]
    assert got.sent == [{**asked, "model": "m"}]
    assert got.body == {**VERDICT, "model": "asked"}
    assert got.charged == 2


async def test_moderations_cost_nothing_by_themselves(tmp_path: Path) -> None:
    """T-OPEN-021 (OC): OpenAI's own moderation models are free unless they are given a price."""
    one = Channel(
        name="c", type="openai", base_url="https://h.example", key=Secret("k"), models=("omni-moderation-latest",)
    )
    async with stage(tmp_path, (one,), says(VERDICT), prices={}) as made:
        sink = await made.ask(MODERATIONS, model="omni-moderation-latest", input="x")
        assert sink.status == 200
        assert await charged(made) == 0


async def test_moderations_without_a_model(tmp_path: Path) -> None:
    """No model means the stable one for routing and price, and the latest for upstream."""
    one = Channel(
        name="c", type="openai", base_url="https://h.example", key=Secret("k"), models=("text-moderation-stable",)
    )
    got = await told(tmp_path, one, [says(VERDICT)], MODERATIONS, input="x")
    assert got.sent == [{"input": "x", "model": "text-moderation-latest"}]


async def test_moderations_by_mistral(tmp_path: Path) -> None:
    """Mistral tells categories alone; strict clients read `flagged`."""
    answer = {"id": "1", "model": "m", "results": [{"categories": {"a": False, "b": True}}, {"categories": {}}]}
    got = await told(tmp_path, channel("mistral", "m"), [says(answer)], MODERATIONS, model="asked", input=["x", "y"])
    assert [row["flagged"] for row in got.body["results"]] == [True, False]


async def test_moderations_without_input(tmp_path: Path) -> None:
    """Nothing to look at is the client's fault."""
    got = await told(tmp_path, channel("openai"), [], MODERATIONS, model="asked", input="")
    assert (got.status, got.body["error"]["code"]) == (400, "invalid_text_request")


@pytest.mark.parametrize("surface", [EMBEDDINGS, RERANK, MODERATIONS])
async def test_the_echo_answers_them_all(tmp_path: Path, surface: Surface) -> None:
    """The provider without a network answers every kind, the same each time, and is charged for."""
    one = channel("echo")
    body = {**QUERY, "query": "two", "input": ["two words", "one"]}
    first = await told(tmp_path, one, [], surface, **body)
    again = await told(tmp_path, one, [], surface, **body)
    assert first.status == 200
    assert first.body == again.body
    assert first.charged == 3

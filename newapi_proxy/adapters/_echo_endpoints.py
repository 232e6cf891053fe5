"""What the provider without a network says on other endpoints than chat: vectors, an order, a verdict, silence.

Deterministic, so that what comes back can be checked by hand: a text's vector comes of its words, a document's score is
the share of the query's words in it. Usage is words.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from typing import Any, Final

from newapi_proxy.wire import floats, tree

Node = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]

DIMENSIONS: Final = 16
RATE: Final = 8000  # samples of a second, one byte each
_POINT: Final = (  # a PNG of one transparent point
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
_JSON: Final = {"content-type": "application/json"}


def vectors(body: Node) -> Answer:
    """Unit vectors: texts that share words point in like directions."""
    given = body["input"]
    if not isinstance(given, list) or (given and isinstance(given[0], int)):
        given = [given]
    wished = body.get("dimensions")
    size = wished if isinstance(wished, int) and 0 < wished <= 4096 else DIMENSIONS
    data: list[Node] = []
    for index, one in enumerate(given):
        values = _vector(_words(one), size)
        written = floats.packed(values) if body.get("encoding_format") == "base64" else values
        data.append({"object": "embedding", "index": index, "embedding": written})
    count = sum(len(_words(one)) for one in given)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return _said({"object": "list", "data": data, "model": body.get("model"), "usage": usage})


def order(body: Node) -> Answer:
    """The documents by how many of the query's words they hold, in their own order where that is equal."""
    documents = [one.get("text", "") if isinstance(one, dict) else one for one in body["documents"]]
    query = set(_words(body["query"]))
    scores = [len(query & set(_words(one))) / max(1, len(query)) for one in documents]
    ranks = sorted(range(len(documents)), key=lambda index: -scores[index])
    results = [
        {"index": index, "relevance_score": round(scores[index], 6), "document": {"text": documents[index]}}
        for index in ranks[: body.get("top_n") or len(ranks)]
    ]
    count = len(_words(body["query"])) + sum(len(_words(one)) for one in documents)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return _said({"model": body.get("model"), "object": "list", "results": results, "usage": usage})


def verdict(body: Node) -> Answer:
    """Nothing is ever wrong with what is said to an echo."""
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]
    row = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.0}}
    count = sum(len(_words(one.get("text", "") if isinstance(one, dict) else one)) for one in given)
    results = [row] * (len(given) if all(isinstance(one, str) for one in given) else 1)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return _said({"id": "modr-echo", "model": body.get("model"), "results": results, "usage": usage})


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(number) for number in value]
    return (value if isinstance(value, str) else tree.dumps(value)).lower().split()


def _vector(words: list[str], size: int) -> list[float]:
    values = [0.0] * size
    for word in words or [""]:
        digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
        for place in range(size):
            values[place] += digest[place % len(digest)] / 127.5 - 1 + place / 4096
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [round(value / length, 6) for value in values]


def _said(node: Node) -> Answer:
    return 200, dict(_JSON), tree.encode(node)


def pictures(body: Node) -> Answer:
    """As many pictures as are asked for: one transparent point each."""
    data: list[Node] = [{"b64_json": _POINT} for _ in range(int(body.get("n") or 1))]
    usage = {"input_tokens": len(_words(body.get("prompt") or "")), "output_tokens": len(data)}
    total = usage["input_tokens"] + usage["output_tokens"]
    return _said({"created": 0, "data": data, "usage": {**usage, "total_tokens": total}})


def sound(body: Node) -> Answer:
    """Silence, a tenth of a second for each word, as a WAV file."""
    samples = bytes([128]) * (RATE // 10 * len(_words(body["input"])))
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE, 1, 8)
    data = struct.pack("<4sI", b"data", len(samples)) + samples
    head = struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(data), b"WAVE")
    return 200, {"content-type": "audio/wav"}, head + form + data


def heard(body: Node) -> Answer:
    """What the client said it would hear: its prompt."""
    return _said({"text": body.get("prompt") or "echo"})


_PATHS: Final[dict[str, Callable[[Node], Answer]]] = {
    "embeddings": vectors,
    "rerank": order,
    "moderations": verdict,
    "images/generations": pictures,
    "images/edits": pictures,
    "images/variations": pictures,
    "audio/speech": sound,
    "audio/transcriptions": heard,
    "audio/translations": heard,
}
ENDPOINTS: Final = {f"/v1/{path}": said for path, said in _PATHS.items()}
"""What answers on which path."""

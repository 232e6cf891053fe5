"""How each make of model counts: corrections of tiktoken's count, and which formula holds.

Data, and one look-up. Source: provider-translation E.5, and recorded usage where that has ranges.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from newapi_proxy.billing.encodings import OLDER, bare

# What `declared` counts: names and values alone; the markup of tools too, briefly or in full. "tagged": that module
# counts prompts and answers. "": neither does.
Layout = Literal["", "plain", "brief", "full", "tagged", "harmony", "instructed"]
# A call in an answer that is charged by names and values alone, and counted with its JSON.
_BARE: Final[dict[Layout, int]] = {"plain": -3, "brief": -4, "full": 1}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's own count relates to tiktoken's.

    `prompt` and `completion` are factors on text, `digits` says that each digit is a token. Flat tokens: `request` per
    request, `untold` more where no instruction takes its place and thinking is not off, `message` per further message
    that is no leading system's, `tools` where there are tools, `each` per tool, `call` per call in the history with its
    result; `answer` per answer, `called` per call in it, `several` more where it has several; `argument` per argument
    of a call, then or now. `tool` is the factor on the definitions as JSON. `schema`: what structured output adds to
    its schema, None where it costs nothing; `item`: flat tokens per embedded text. `keeps`: thoughts of earlier turns
    are shown to the model again.
    `formula`: the prompt formula of OpenAI's chat holds (then only the answer's fields apply besides). `layout`: the
    prompt is counted by `declared` or `harmony`, likewise, by `instructed` (with `request`), or with the answer by
    `tagged`: then no field applies.
    """

    prompt: float = 1.0
    completion: float = 1.0
    request: int = 0
    untold: int = 0
    message: int = 0
    tools: int = 0
    each: int = 8
    tool: float = 1.0
    call: int = 20
    argument: int = 0
    schema: int | None = 3
    item: int = 0
    digits: bool = False
    keeps: bool = False
    formula: bool = False
    answer: int = 0
    called: int = 8
    several: int = 0
    layout: Layout = ""

    def around(self, calls: int, *, plain: bool) -> int:
        """The tokens around the calls of one answer, beside their names and arguments."""
        each = _BARE.get(self.layout, self.called) if plain else self.called
        return calls * (each + (self.several if calls > 1 else 0))


OPENAI: Final = Family(formula=True, several=7)
# First match in the lower-case name wins. Factors and flat tokens: the middle of the measured ranges of E.5 and of
# recorded usage; makers whose tokenizer is not public stay within a few per cent only.
_FAMILIES: Final[tuple[tuple[re.Pattern[str], Family], ...]] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"gpt-oss", Family(layout="harmony", answer=10, called=11)),
        (r"claude", Family(layout="tagged")),
        (r"gemini-1", Family(layout="plain", called=-3, schema=None)),
        (r"gemini-(2[.-]0|pro|ultra)", Family(layout="plain", called=-3)),
        (r"gemini-2", Family(layout="brief", called=7)),
        (r"gemini-(3-|3$)", Family(layout="full", called=8)),
        (r"gemini|learnlm", Family(layout="full", called=8, keeps=True)),
        (r"gemma", Family(request=10, message=5)),
        (r"llama-?4", Family(prompt=1.02, completion=1.02, request=18, message=5, tools=645, answer=2, called=41)),
        (r"deepseek-r1-distill", Family(completion=1.01, request=3, message=1)),
        (r"llama-?3[-:](?!\d[-.:])", Family(prompt=1.02, completion=1.04, request=10, message=5, answer=1, called=12)),
        (r"llama", Family(prompt=1.02, completion=1.04, request=35, message=5, answer=1, called=12)),
        (
            OLDER,
            Family(
                prompt=1.05,
                completion=1.07,
                answer=1,
                called=3,
                request=4,
                message=2,
                tools=6,
                tool=1.2,
                call=4,
                schema=None,
                digits=True,
                item=2,
                keeps=True,
            ),
        ),
        (r"(mistral|magistral)-small", Family(layout="instructed", request=15, answer=1, called=2)),
        (
            r"mistral|ministral|codestral|devstral|magistral|pixtral",
            Family(layout="instructed", request=3, answer=1, called=2),
        ),
        (
            r"deepseek-v4",
            Family(
                completion=1.01,
                request=4,
                untold=79,
                message=1,
                tools=216,
                tool=1.25,
                call=34,
                argument=9,
                called=25,
            ),
        ),
        (
            r"deepseek[-.]",
            Family(completion=1.01, request=4, message=1, tools=216, tool=1.25, call=34, argument=11, called=25),
        ),
        (
            r"glm-?5",
            Family(
                prompt=1.02,
                completion=1.01,
                request=12,
                message=2,
                tools=87,
                each=10,
                tool=1.27,
                call=5,
                answer=1,
            ),
        ),
        (
            r"glm",
            Family(prompt=1.02, completion=1.01, request=6, message=2, tools=95, each=10, tool=1.27, call=5, answer=1),
        ),
        (r"kimi-k2(?!\.)", Family(request=11, message=4, tools=7, each=13, tool=1.27, call=20)),
        (r"command", Family(each=0, call=8, called=2)),
        (
            r"nova-2",
            Family(completion=0.97, request=45, message=3, tools=807, each=0, tool=1.35, call=47, answer=2, called=9),
        ),
        (
            r"nova-|titan",
            Family(completion=0.97, message=2, tools=340, each=0, tool=1.35, call=36, answer=2, called=9),
        ),
        (r"qwen|qwq|qvq", Family(completion=1.05, request=10, message=5, tools=145, answer=2, called=18)),
        (
            r"grok-4(\.1)?-fast",
            Family(request=156, message=5, tools=150, tool=0.9, call=12, argument=6, called=12),
        ),
        (r"grok-code", Family(request=204, message=5, tools=130, tool=0.9, call=12, argument=6, called=12)),
        (
            r"grok-4\.[2-9]",
            Family(request=192, message=5, tools=27, each=0, tool=1.3, call=4, keeps=True, called=14),
        ),
        (r"grok", Family(message=5, tools=150, tool=0.9, call=12, argument=6, called=12)),
        (r"sonar", Family(request=1)),
        (r"^(gpt-[5-9]|o[1-9])", Family(formula=True, answer=6, several=7)),
        (r"palmyra", Family(request=32, tools=101, called=12)),
    )
)


def family(model: str) -> Family:
    """The corrections for a model; unknown names count as OpenAI's (E.1: o200k_base, factor 1)."""
    name = bare(model)
    for pattern, found in _FAMILIES:
        if pattern.search(name):
            return found
    return OPENAI

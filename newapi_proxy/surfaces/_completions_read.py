"""A legacy completions request into an Ask. Knows the fields of provider-translation A.2 and nothing of providers.

A single text is one user's turn for providers of other formats; lists of prompts, token numbers and what only this
format promises (`echo`, `best_of`, `logprobs`, `suffix`) are for those that have the endpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import Ask, Controls, Text, Turn
from newapi_proxy.surfaces._openai_fields import (
    Node,
    bad,
    flag_in,
    list_of,
    model_in,
    number_in,
    object_in,
    text_in,
    text_of,
    usage_wanted,
    whole_in,
)
from newapi_proxy.wire import tree

DIALECT: Final = "openai.completions"
MOST_TOKENS: Final = (2**31 - 1) // 2
MOST_CHOICES: Final = 128
MOST_PROMPTS: Final = 2048
_HOMED: Final = frozenset(
    {"model", "prompt", "suffix", "max_tokens", "temperature", "top_p", "top_k", "n", "best_of", "logprobs", "echo"}
    | {"stop", "stream", "stream_options", "user"}
)
_STEERING: Final[dict[str, Callable[[Node, str], object]]] = {
    "frequency_penalty": number_in,
    "presence_penalty": number_in,
    "repetition_penalty": number_in,
    "min_p": number_in,
    "seed": whole_in,
    "logit_bias": object_in,
}


def read(body: bytes, model: str) -> Ask:
    """The Ask; `model` of the path fills a missing one. Raises ClientError 400 with the path of the fault."""
    sent = tree.read(body)
    if model and not sent.get("model"):
        sent = {**sent, "model": model}
    model = model_in(sent)
    prompts = _prompts(sent.get("prompt"))
    stream = flag_in(sent, "stream") or False
    single = prompts[0] if len(prompts) == 1 and type(prompts[0]) is str else None
    steering: dict[str, Any] = {}
    for name, check in _STEERING.items():
        if check(sent, name) is not None:
            steering[name] = sent[name]
    # money is held for every answer that is made, those that `best_of` throws away included
    alternatives = max(_choices(sent, "n"), _choices(sent, "best_of", 0))
    return Ask(
        dialect=DIALECT,
        model=model,
        tree=sent,
        size=len(body),
        stream=stream,
        usage_wanted=usage_wanted(sent),
        turns=() if single is None else (_turn(single),),
        controls=Controls(
            max_tokens=_max_tokens(sent),
            temperature=number_in(sent, "temperature"),
            top_p=number_in(sent, "top_p"),
            top_k=whole_in(sent, "top_k"),
            stop=_stop(sent.get("stop")),
            n=alternatives * len(prompts),
            user=text_in(sent, "user") or None,
            steering=steering,
        ),
        own=_own(sent, single is None),
        unknown=tuple(name for name in sent if name not in _HOMED and name not in _STEERING),
    )


def _turn(prompt: str) -> Turn:
    """The prompt as others are told it: one user's message, no system text (A.2)."""
    return Turn(role="user", parts=(Text(text=prompt, path="prompt"),), plain=True, path="prompt")


def _prompts(value: Any) -> list[Any]:
    """The prompts: texts, or lists of token numbers."""
    if value is None or value in ("", []):
        raise bad("field prompt is required", "prompt")
    if type(value) is str:
        return [value]
    given = list_of(value, "prompt")
    if type(given[0]) is int:
        return [_numbers(given, "prompt")]
    if len(given) > MOST_PROMPTS:
        raise bad(f"prompt must not hold more than {MOST_PROMPTS} prompts.", "prompt")
    if type(given[0]) is list:
        return [_numbers(list_of(one, f"prompt.{at}"), f"prompt.{at}") for at, one in enumerate(given)]
    return [text_of(one, f"prompt.{at}") for at, one in enumerate(given)]


def _numbers(given: list[Any], path: str) -> list[Any]:
    """A prompt of token numbers, each checked: true and false are none."""
    wrong = next((at for at, one in enumerate(given) if type(one) is not int), None)
    if wrong is not None:
        raise bad(f"{path}.{wrong} must be a token number.", f"{path}.{wrong}")
    return given


def _choices(sent: Node, name: str, least: int = 1) -> int:
    """How many answers a field asks for; 1 where it is absent."""
    count = whole_in(sent, name)
    if count is not None and not least <= count <= MOST_CHOICES:
        raise bad(f"{name} must be between {least} and {MOST_CHOICES}.", name)
    return count or 1


def _max_tokens(sent: Node) -> int | None:
    """The limit; the format's own default of 16 is left to servers that have the endpoint."""
    tokens = whole_in(sent, "max_tokens")
    if tokens is not None and not 0 <= tokens <= MOST_TOKENS:
        raise ClientError("max_tokens is invalid", code="invalid_text_request", param="max_tokens")
    return tokens


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if type(value) is str:
        return (value,)
    return tuple(text_of(one, f"stop.{at}") for at, one in enumerate(list_of(value, "stop")))


def _own(sent: Node, several: bool) -> tuple[str, ...]:
    """What only the endpoint itself can do (A.2)."""
    found = ["prompt"] if several else []
    if text_in(sent, "suffix"):
        found.append("suffix")
    if flag_in(sent, "echo"):
        found.append("echo")
    if _choices(sent, "best_of", 0) > 1:
        found.append("best_of")
    logprobs = sent.get("logprobs")
    if logprobs is True or (logprobs is not False and whole_in(sent, "logprobs") is not None):
        found.append("logprobs")
    return tuple(found)

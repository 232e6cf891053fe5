"""The body of a generateContent request: the client's own of this format, or one made from an ask of another.

Pure; shared by every host of this format. Source: provider-translation B.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from newapi_proxy.adapters._gemini_contents import SIGNED, conversation
from newapi_proxy.adapters._gemini_draft import Draft, Quirks
from newapi_proxy.adapters._gemini_media import resolve
from newapi_proxy.adapters._gemini_models import traits
from newapi_proxy.adapters._gemini_thinking import think
from newapi_proxy.adapters._gemini_tools import choose, tools
from newapi_proxy.adapters._inlining import inlined_contents
from newapi_proxy.adapters._schema import openapi
from newapi_proxy.adapters.base import Target, refuse_own
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Controls, Format, Reasoning
from newapi_proxy.wire import tree

Tree = dict[str, Any]

MOST_STOPS: Final = 5
MOST_CHOICES: Final = 8
_INT32: Final = 2**31 - 1
_TIERS: Final = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}
_CATEGORIES: Final = (
    "HARM_CATEGORY_HARASSMENT",
    "HARM_CATEGORY_HATE_SPEECH",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "HARM_CATEGORY_DANGEROUS_CONTENT",
    "HARM_CATEGORY_CIVIC_INTEGRITY",
)
_MODALITIES: Final = {"text": "TEXT", "image": "IMAGE"}
_PLAIN: Final = {"presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty"}
_ELSEWHERE: Final = ("web_search_options",)  # read by the tools
_LABEL_LENGTH: Final = 63


def native(ask: Ask, to: Target, quirks: Quirks) -> Draft:
    """The client's own body for an upstream of the same format: what it cannot be given as it is, and no more."""
    draft = Draft(traits(to.model), quirks)
    draft.body = dict(inlined_contents(ask.tree, ask.turns) if ask.fetched else ask.tree)
    thoughts = [part for turn in ask.turns for part in turn.parts if isinstance(part, Reasoning) and part.signature]
    if any(part.format != SIGNED for part in thoughts):
        own = {part.signature for part in thoughts if part.format == SIGNED}
        draft.body["contents"] = [_own(content, own) for content in draft.body["contents"]]
    defaults = safety(to.options)
    if defaults and "safetySettings" not in draft.body and "safety_settings" not in draft.body:
        draft.body["safetySettings"] = defaults
    if not quirks.invocations:
        _without_invocations(draft)
    generation = _first(draft.body, "generationConfig", "generation_config")
    config = generation[1] if isinstance(generation[1], dict) else {}
    if ask.controls.thinking is not None and "thinkingConfig" not in config and "thinking_config" not in config:
        config = dict(config)  # thinking that the model's name asked for
        think(ask, config, draft)
        draft.body[generation[0]] = config
    return draft


def built(ask: Ask, to: Target, quirks: Quirks) -> Draft:
    """The body for an ask of another format. Raises Unsupported with the path of what cannot be expressed."""
    refuse_own(ask)
    draft = Draft(traits(to.model), quirks)
    spoken = conversation(ask, draft)
    body, config = draft.body, dict[str, Any]()
    body["contents"] = spoken.contents
    given = tools(ask, draft)
    system = spoken.system
    if ask.controls.format is not None:
        _format(ask.controls.format, config, system, draft, beside_tools=bool(given))
    if system:
        body["systemInstruction"] = {"parts": system}
    if given:
        body["tools"] = given
        choose(ask, draft)
    _sample(ask, config, draft)
    most = ask.controls.max_tokens
    config["maxOutputTokens"] = to.options.default_max_tokens if most is None else most
    config["mediaResolution"] = resolve(spoken.media, draft)
    think(ask, config, draft)
    body["safetySettings"] = safety(to.options)
    _steer(ask.controls, config, draft)
    _rest(ask, draft)
    config = {name: value for name, value in config.items() if value is not None}
    if config:
        body["generationConfig"] = config
    draft.body = {name: value for name, value in body.items() if value is not None}
    draft.dropped += ask.unknown
    return draft


def safety(options: Any) -> list[Tree] | None:
    """The channel's safety settings as upstream takes them; None where it has none."""
    wish = getattr(options, "safety_settings", None)
    if not wish:
        return None
    if isinstance(wish, str):
        wish = {"default": wish}
    if isinstance(wish, Mapping):
        named = dict(wish)
        rest = named.pop("default", None)
        if rest is not None:
            named = {**dict.fromkeys(_CATEGORIES, rest), **named}
        return [{"category": category, "threshold": threshold} for category, threshold in named.items()]
    return [dict(one) for one in wish]


def _first(body: Tree, *names: str) -> tuple[str, Any]:
    """The first of the names that stands in the body, with its value: clients of this format spell each in two ways."""
    return next(((name, body[name]) for name in names if name in body), (names[0], None))


def _without_invocations(draft: Draft) -> None:
    """Takes out the flag that some hosts refuse."""
    name, config = _first(draft.body, "toolConfig", "tool_config")
    inner = {"includeServerSideToolInvocations", "include_server_side_tool_invocations"}
    if isinstance(config, dict) and not inner.isdisjoint(config):
        draft.body[name] = {key: value for key, value in config.items() if key not in inner}
        draft.dropped.append(f"{name}.includeServerSideToolInvocations")


# Upstream answers 400 to thinking that another provider signed; it comes back as thought parts (A.7).
def _own(content: Any, own: set[str | None]) -> Any:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return content
    kept = [part for part in parts if not _foreign(part, own)]
    return content if len(kept) == len(parts) else {**content, "parts": kept}


def _foreign(part: Any, own: set[str | None]) -> bool:
    if not isinstance(part, dict) or part.get("thought") is not True:
        return False
    return _first(part, "thoughtSignature", "thought_signature")[1] not in own


# JSON mode beside tools is refused by models before the third generation: there it is asked in words.
def _format(wanted: Format, config: Tree, system: list[Tree], draft: Draft, *, beside_tools: bool) -> None:
    if beside_tools and not draft.traits.json_with_tools:
        words = "Answer with one JSON object and nothing else: no text around it, no Markdown fence."
        if wanted.schema:
            words += f" The object must fit this JSON Schema:\n{tree.dumps(wanted.schema)}"
        system.append({"text": words})
        return
    config["responseMimeType"] = "application/json"
    if wanted.schema and draft.traits.json_schema:
        config["responseJsonSchema"] = wanted.schema
    elif wanted.schema:
        config["responseSchema"] = openapi(wanted.schema)


def _sample(ask: Ask, config: Tree, draft: Draft) -> None:
    """Limits and sampling under their native names. Raises Unsupported for more answers than upstream gives."""
    controls = ask.controls
    config["temperature"] = controls.temperature
    config["topP"] = controls.top_p
    config["topK"] = controls.top_k
    if controls.stop:
        config["stopSequences"] = list(controls.stop[:MOST_STOPS])
    if len(controls.stop) > MOST_STOPS:
        draft.dropped.append("stop_sequences~" if "stop_sequences" in ask.tree else "stop~")
    if controls.n > MOST_CHOICES:
        raise Unsupported(f"{draft.quirks.name} gives at most {MOST_CHOICES} answers per request (n).", "n")
    if controls.n != 1:
        config["candidateCount"] = controls.n


def _steer(controls: Controls, config: Tree, draft: Draft) -> None:
    """What only steers: the fields that have a like here, the others dropped."""
    for name, value in controls.steering.items():
        if value is None or value is False or name in _ELSEWHERE:
            continue
        match name:
            case "seed":
                config["seed"] = value if -_INT32 <= value <= _INT32 else value % _INT32
                draft.dropped += [] if config["seed"] == value else ["seed~"]
            case "presence_penalty" | "frequency_penalty" if draft.traits.penalties:
                config[_PLAIN[name]] = value
            case "logprobs":
                config["responseLogprobs"] = True
                config.setdefault("logprobs", value if type(value) is int else None)
            case "top_logprobs":
                config["responseLogprobs"] = True
                config["logprobs"] = value or None
            case "modalities":
                config["responseModalities"] = _modalities(value, draft)
            case "safety_settings" if isinstance(value, list):
                draft.body["safetySettings"] = value
            case "metadata" if draft.quirks.labels and isinstance(value, dict):
                _label(value, draft)
            case _:
                draft.dropped.append(name)


def _modalities(value: Any, draft: Draft) -> list[str] | None:
    """`responseModalities`, None for text alone. Raises Unsupported for sound: chat models have none."""
    words = value if isinstance(value, list) else [value]
    if any(one not in _MODALITIES for one in words):
        raise Unsupported(f"{draft.quirks.name} answers chats in text and images only (modalities).", "modalities")
    return None if words == ["text"] else [_MODALITIES[one] for one in words]


def _label(metadata: Tree, draft: Draft) -> None:
    """`labels` of the pairs whose form upstream takes: lower case, digits, `_` and `-`."""
    labels: Tree = {}
    for name, value in metadata.items():
        if _labels(name) and name[0].isalpha() and (value == "" or _labels(value)):
            labels[name] = value
        else:
            draft.dropped.append(f"metadata.{name}")
    if labels:
        draft.body["labels"] = labels


def _labels(word: Any) -> bool:
    """Whether upstream takes the word as a name or value of a label."""
    if not isinstance(word, str) or not 0 < len(word) <= _LABEL_LENGTH:
        return False
    return word.isascii() and word == word.lower() and word.replace("_", "a").replace("-", "a").isalnum()


def _rest(ask: Ask, draft: Draft) -> None:
    """What has a field of its own in the ask and none, or another, here."""
    controls = ask.controls
    anthropic = ask.dialect == "anthropic"
    if controls.user is not None and "safety_identifier" not in controls.steering:
        draft.dropped.append("metadata.user_id" if anthropic else "user")
    if controls.parallel_tools is False:
        draft.dropped.append("tool_choice.disable_parallel_tool_use" if anthropic else "parallel_tool_calls")
    tier = controls.service_tier
    if tier is None or tier == "auto":
        return
    if draft.quirks.tiers and tier in _TIERS:
        draft.body["serviceTier"] = _TIERS[tier]
    else:
        draft.dropped.append("service_tier")

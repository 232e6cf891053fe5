"""The formats that clients speak, by route."""

from __future__ import annotations

from typing import Final

from newapi_proxy.surfaces import gemini, gemini_embeddings, images
from newapi_proxy.surfaces.anthropic import COUNT, MESSAGES
from newapi_proxy.surfaces.base import Surface
from newapi_proxy.surfaces.compaction import COMPACTION
from newapi_proxy.surfaces.completions import COMPLETIONS
from newapi_proxy.surfaces.embeddings import EMBEDDINGS
from newapi_proxy.surfaces.moderations import MODERATIONS
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.surfaces.rerank import RERANK
from newapi_proxy.surfaces.responses import INPUT_TOKENS, RESPONSES
from newapi_proxy.surfaces.speech import SPEECH
from newapi_proxy.surfaces.transcription import TRANSCRIPTIONS, TRANSLATIONS

SURFACES: Final[dict[str, Surface]] = {
    "/v1/responses": RESPONSES,
    "/v1/responses/input_tokens": INPUT_TOKENS,
    "/v1/responses/compact": COMPACTION,
    "/v1/chat/completions": CHAT,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT,
    "/v1/completions": COMPLETIONS,
    "/v1/engines/{model}/chat/completions": CHAT,
    "/v1/engines/{model}/completions": COMPLETIONS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/engines/{model}/embeddings": EMBEDDINGS,
    "/v1/rerank": RERANK,
    "/v1/moderations": MODERATIONS,
    "/v1/images/generations": images.GENERATIONS,
    "/v1/images/edits": images.EDITS,
    "/v1/images/variations": images.VARIATIONS,
    "/v1/audio/speech": SPEECH,
    "/v1/audio/transcriptions": TRANSCRIPTIONS,
    "/v1/audio/translations": TRANSLATIONS,
    "/v1beta/models/{model}:generateContent": gemini.GENERATE,
    "/v1beta/models/{model}:streamGenerateContent": gemini.STREAM,
    "/v1beta/models/{model}:countTokens": gemini.COUNT,
    "/v1beta/models/{model}:embedContent": gemini_embeddings.EMBEDDINGS,
    "/v1beta/models/{model}:batchEmbedContents": gemini_embeddings.EMBEDDINGS,
    "/v1/models/{model}:embedContent": gemini_embeddings.EMBEDDINGS,
    "/v1/models/{model}:batchEmbedContents": gemini_embeddings.EMBEDDINGS,
    "/v1/models/{model}:generateContent": gemini.GENERATE,
    "/v1/models/{model}:streamGenerateContent": gemini.STREAM,
    "/v1/models/{model}:countTokens": gemini.COUNT,
}

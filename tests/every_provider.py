"""A provider of every kind at one server, for what has to hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pandas as pd
from audit import ASK
from google import genai
from google.genai import types
from mistralai.client import Mistral

import frameenrich
from frameenrich.providers.anthropic.batch import AnthropicBatch
from frameenrich.providers.gemini.batch import GeminiBatch
from frameenrich.providers.live.provider import LiveProvider
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.providers.openai.batch import OpenAIBatch

KEY = "sk-secret-key"
KINDS = ["openai", "azure", "live", "anthropic", "mistral", "gemini"]


def provider_at(kind: str, origin: str, http: Any = None, attempts: int = 1, key: str = KEY) -> Any:
    """Return a provider whose client asks one server, with a given HTTP client."""
    made: dict[str, Callable[[], Any]] = {
        "openai": lambda: OpenAIBatch(
            openai.OpenAI(api_key=key, base_url=f"{origin}/v1", http_client=http),
            attempts=attempts,
        ),
        "azure": lambda: OpenAIBatch(
            openai.AzureOpenAI(
                api_key=key, azure_endpoint=origin, api_version="2024-10-21", http_client=http
            ),
            attempts=attempts,
        ),
        "live": lambda: LiveProvider(
            openai.OpenAI(api_key=key, base_url=f"{origin}/v1", http_client=http),
            attempts=attempts,
        ),
        "anthropic": lambda: AnthropicBatch(
            anthropic.Anthropic(api_key=key, base_url=origin, http_client=http), attempts=attempts
        ),
        "mistral": lambda: MistralBatch(
            Mistral(api_key=key, server_url=origin, client=http), attempts=attempts
        ),
        "gemini": lambda: GeminiBatch(
            genai.Client(
                vertexai=False,
                api_key=key,
                http_options=types.HttpOptions(base_url=origin, httpx_client=http),
            ),
            attempts=attempts,
        ),
    }
    return made[kind]()


def send(frame: pd.DataFrame, provider: Any, store: Path) -> frameenrich.Job:
    """Send a frame; one provider wants to know how long an answer may be."""
    return frameenrich.llmbatch(frame).submit(
        ASK, "m", provider=provider, store=store, params={"max_tokens": 9}
    )

"""Official clients, pointed at a server on loopback."""

from __future__ import annotations

import anthropic
import httpx2
from google import genai
from google.genai import types
from mistralai.client import Mistral

KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
PLAIN = httpx2.Client(verify=False)  # loopback: spares each client the certificates


def mistral_client(key: str, origin: str) -> Mistral:
    """A client of its SDK."""
    return Mistral(api_key=key, server_url=origin, client=PLAIN)


def gemini_client(key: str, origin: str) -> genai.Client:
    """A client of its SDK."""
    options = types.HttpOptions(base_url=origin, timeout=10_000)
    return genai.Client(vertexai=False, api_key=key, http_options=options)


def claude_client(key: str, origin: str) -> anthropic.Anthropic:
    """A client of its SDK."""
    return anthropic.Anthropic(api_key=key, base_url=origin, http_client=PLAIN)

"""A request's body as a person reads it: who said what, and the images that went with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from frameenrich.model import Json


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked: ``messages`` are pairs of role and text, ``images`` URLs in their order."""

    messages: tuple[tuple[str, str], ...]
    images: tuple[str, ...] = ()


def read_prompt(body: Mapping[str, Json]) -> Prompt:
    """The prompt in a request's body, for each endpoint that can be asked.

    Examples
    --------
    >>> read_prompt({"model": "m", "messages": [{"role": "user", "content": "Red mug"}]})
    Prompt(messages=(('user', 'Red mug'),), images=())
    """
    asked = body.get("messages", body.get("input", body.get("prompt", "")))
    turns = [("system", body["instructions"])] if isinstance(body.get("instructions"), str) else []
    turns += _turns(asked, "prompt" if "prompt" in body else "input")
    texts = tuple((role, _text(content)) for role, content in turns)
    return Prompt(texts, tuple(url for _, content in turns for url in _images(content)))


def _turns(asked: Json, role: str) -> list[tuple[str, Any]]:
    if not isinstance(asked, list):
        return [(role, asked)]
    return [
        (str(turn.get("role", role)), turn.get("content", ""))
        if isinstance(turn, dict)
        else (role, turn)
        for turn in asked
    ]


def _text(content: Json) -> str:
    if not isinstance(content, list):
        return str(content)
    return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))


def _images(content: Json) -> Iterator[str]:
    """The URLs of image parts, in the forms of chat completions and of responses."""
    for part in content if isinstance(content, list) else ():
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str):
            yield url

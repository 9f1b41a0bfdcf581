"""Show rendered requests as text for people."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from frameenrich.model import Json
from frameenrich.text import NO_MATH


@dataclass(frozen=True)
class Preview:
    """Rendered requests: (key, body) pairs, and the columns that `collect` will add.

    ``slow`` names what makes the template render row by row, if something does. ``nulls`` counts
    the rows of the whole frame that would print a null, with their columns and the first row.
    """

    requests: tuple[tuple[str, dict[str, Any]], ...]
    columns: tuple[str, ...]
    slow: str | None = None
    nulls: str | None = None

    def __str__(self) -> str:
        blocks = []
        for key, body in self.requests:
            texts = "\n".join(f"[{role}] {text}" for role, text in turns(body))
            blocks.append(f"row {key}\n{texts}")
        slow = f"\n-> renders row by row, some five times slower: {self.slow}" if self.slow else ""
        nulls = f"\n-> {self.nulls}" if self.nulls else ""
        return "\n\n".join(blocks) + f"\n\n-> columns: {', '.join(self.columns)}{nulls}{slow}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # JupyterLab breaks its own <pre> within words.
        style = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
        return f"<pre class='{NO_MATH}' style='{style}'>{html.escape(str(self))}</pre>"


def turns(body: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Return the messages of a request as (role, text), for every endpoint.

    Examples
    --------
    >>> turns({"messages": [{"role": "user", "content": "Hello"}]}), turns({"input": "Hello"})
    ([('user', 'Hello')], [('input', 'Hello')])
    """
    turns_in = body.get("messages", body.get("input", body.get("prompt", ())))
    # Embeddings, moderations and completions have one text and no roles: show the member's name.
    if isinstance(turns_in, str):
        return [("prompt" if "prompt" in body else "input", turns_in)]
    shown = []
    for message in turns_in:
        content = message["content"]
        if not isinstance(content, str):  # texts and images: each image as its URL or its size
            texts = (part.get("text") or _shown_image(part["image_url"]) for part in content)
            content = "\n".join(texts)
        shown.append((message["role"], content))
    return shown


def _shown_image(image: Json) -> str:
    url = image["url"] if isinstance(image, dict) else image
    if not url.startswith("data:"):
        return f"[image] {url}"
    # Megabytes of base64 would fill the screen. Four characters are three bytes, less the padding.
    kind, _, content = url.removeprefix("data:").partition(";base64,")
    return f"[image] {kind}, {len(content) * 3 // 4 - content.count('='):,} bytes"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's prompt: ``messages`` are pairs of role and text, ``images`` URLs in order."""

    messages: tuple[tuple[str, str], ...]
    images: tuple[str, ...] = ()


def read_prompt(body: Mapping[str, Json]) -> Prompt:
    """Read the prompt in a request's body, at any endpoint.

    Examples
    --------
    >>> read_prompt({"model": "m", "messages": [{"role": "user", "content": "Red mug"}]})
    Prompt(messages=(('user', 'Red mug'),), images=())
    """
    turns_in = body.get("messages", body.get("input", body.get("prompt", "")))
    # Bodies may be ready requests that we did not write, so no member is sure to have its type.
    turns = [("system", body["instructions"])] if isinstance(body.get("instructions"), str) else []
    turns += _turns(turns_in, "prompt" if "prompt" in body else "input")
    texts = tuple((role, _text(content)) for role, content in turns)
    return Prompt(texts, tuple(url for _, content in turns for url in _images(content)))


def _turns(turns_in: Json, role: str) -> list[tuple[str, Any]]:
    if not isinstance(turns_in, list):
        return [(role, turns_in)]
    return [
        (str(turn.get("role", role)), turn.get("content", ""))
        if isinstance(turn, dict)
        else (role, turn)
        for turn in turns_in
    ]


def _text(content: Json) -> str:
    if not isinstance(content, list):
        return str(content)
    return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))


def _images(content: Json) -> Iterator[str]:
    """Yield the URLs of image parts, in the forms of chat completions and of responses."""
    for part in content if isinstance(content, list) else ():
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str):
            yield url

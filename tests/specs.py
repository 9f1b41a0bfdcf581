"""Specs of jobs and lines of requests, for tests of what goes out."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from frameenrich.jsonl import encode, encode_all
from frameenrich.model import JobSpec, Message, OutputSpec
from frameenrich.rendering.body import (
    BodyTemplate,
    LineWriter,
)

CHAT, RESPONSES, COMPLETIONS = "/v1/chat/completions", "/v1/responses", "/v1/completions"
ANY_TEXT = st.text(
    st.characters(exclude_categories=())
    | st.sampled_from('"\\\n\r\u2028\u2029\x85\x00\ud83d\ude00'),
    max_size=20,
)


def make_spec(
    endpoint: str = CHAT,
    messages: int = 1,
    params: dict[str, Any] | None = None,
    output: OutputSpec | None = None,
    model: str = "gpt-4o-mini",
) -> JobSpec:
    """Return a spec with so many messages."""
    roles = ["user"] if messages == 1 else ["system", *["user"] * (messages - 1)]
    return JobSpec(
        name="llmbatch",
        model=model,
        messages=tuple(Message(role, "{{ x }}") for role in roles),
        endpoint=endpoint,
        url=endpoint,
        params=params or {},
        output=output or OutputSpec(),
    )


def a_line(spec: JobSpec, own: str, texts: list[str], constant: tuple[int, ...] = ()) -> bytes:
    """Write one row's line, with some messages folded into the constant pieces."""
    writer = BodyTemplate(spec, {i: encode(texts[i]) for i in constant})
    contents = [encode_all([text]) for i, text in enumerate(texts) if i not in constant]
    bodies = writer.bodies(contents, 1)
    line = LineWriter(spec.url).together([own.encode()], bodies)
    assert list(LineWriter(spec.url).lines([own.encode()], bodies)) == [line]
    return line

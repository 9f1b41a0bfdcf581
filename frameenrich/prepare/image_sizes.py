"""Know the longest side of a picture that a model looks at; more pixels only cost an upload."""

from __future__ import annotations

import re

_OPENAI = 2048


_SIDES = (
    # OpenAI fits every picture into a square of 2,048 pixels before it is cut into tiles.
    (re.compile(r"gpt-4o(-mini)?|gpt-4\.1(-mini|-nano)?|gpt-4-turbo|gpt-4\.5-preview"), _OPENAI),
    (re.compile(r"o1|o3|o4-mini|gpt-5(\.[12])?(-mini|-nano)?"), _OPENAI),
    (re.compile(r"claude-3(-[57])?-[a-z]+|claude-(opus|sonnet|haiku)-4(-[0-6])?"), 1568),
    (re.compile(r"gemini-(1\.5|2\.0|2\.5)-(pro|flash|flash-lite|flash-8b)"), 3072),
)
"""Patterns of whole names: for a model that nobody knows yet, pictures go out as they are."""


_LOW_DETAIL = 512
"""The longest side that OpenAI's models look at with ``image_detail="low"``."""


_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{3}|latest)$")


def side_looked_at(model: str, detail: str | None) -> int | None:
    """Return the longest side that a model looks at; None where that is not known.

    Examples
    --------
    >>> side_looked_at("gpt-4o-2024-08-06", None), side_looked_at("gpt-4o", "low")
    (2048, 512)
    >>> side_looked_at("claude-sonnet-4-5-20250929", None), side_looked_at("my-model", None)
    (1568, None)
    """
    # A fine-tuned model ("ft:base:...") looks as its base does; Gemini's names may have a path.
    name = model.removeprefix("ft:").partition(":")[0].removeprefix("models/")
    name = _SNAPSHOT.sub("", name)
    side = next((side for names, side in _SIDES if names.fullmatch(name)), None)
    # Only OpenAI's API knows a detail; others would refuse or ignore it.
    return _LOW_DETAIL if side == _OPENAI and detail == "low" else side

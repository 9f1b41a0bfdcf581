"""Split a model's thinking from its answer."""

from __future__ import annotations

import re

from frameenrich.answers.json_text import end_of_json_around

_TAGS = "think|thinking|thought|reasoning"
_BLOCK = re.compile(rf"<({_TAGS})(?:\s[^<>]*)?>(.*?)</\1\s*>\s*", re.DOTALL | re.IGNORECASE)
_OPEN = re.compile(rf"<({_TAGS})(?:\s[^<>]*)?>", re.IGNORECASE)
_CLOSE = {tag: re.compile(rf"</{tag}\s*>", re.IGNORECASE) for tag in _TAGS.split("|")}
# Magistral, Kimi and Seed write tags of their own, at the very beginning. `answers.gate` takes no
# text that holds one.
_OTHER_TAGS = (("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"), ("<seed:think>", "</seed:think>"))
# Some chat templates write the opening tag into the prompt, so that an answer has only the other.
# It counts before a line end or JSON only, since prose may name it.
_ONLY_CLOSED = re.compile(
    rf"(.*?)</({_TAGS})>[ \t]*(?:\r?\n\s*|(?=[{{\[]))", re.DOTALL | re.IGNORECASE
)
_CLOSED_AT_END = re.compile(rf"(.*)</({_TAGS})>\s*\Z", re.DOTALL | re.IGNORECASE)


class UnclosedThinkingError(ValueError):
    """An answer that ends while the model still thinks."""


def split_thinking(text: str, *, anywhere: bool) -> tuple[str, str | None]:
    r"""Split an answer from the thinking before it.

    Parameters
    ----------
    text : str
        The answer as it came.
    anywhere : bool
        Whether thinking may also stand after other words: where JSON or a label is wanted, these
        are chatter; in a plain text they are the answer.

    Returns
    -------
    (str, str or None)
        The answer, and the thinking; None where there is none.

    Raises
    ------
    UnclosedThinkingError
        The thinking never ends.

    Examples
    --------
    >>> split_thinking("<think>pots?</think>\nKitchen", anywhere=True)
    ('Kitchen', 'pots?')
    >>> split_thinking("A mug.", anywhere=False)
    ('A mug.', None)
    """
    text = _with_usual_tags(text)
    if "<" not in text or text.lstrip()[:1] in {"{", "["}:
        return text, None  # tags inside of JSON are its own words
    thoughts: list[str] = []
    rest = _from_tag(text)
    # A text between two blocks stays: of plain text only leading blocks are thinking.
    while (match := _block_outside_json(rest) if anywhere else _BLOCK.match(rest)) is not None:
        thoughts.append(match[2])
        rest = _from_tag(rest[: match.start()] + rest[match.end() :])
    closed = None if thoughts else _ONLY_CLOSED.match(rest)
    if closed is None and not thoughts and anywhere:
        closed = _CLOSED_AT_END.match(rest)  # a JSON in it was a draft, and no answer came
    if closed is not None and not _OPEN.search(closed[1]):
        thoughts.append(closed[1])
        rest = rest[closed.end() :]
    chatter = rest.partition("{")[0]  # beyond it, a tag is a word of the JSON
    if _OPEN.match(rest) or (anywhere and _OPEN.search(chatter)):
        raise UnclosedThinkingError
    return (rest, "\n\n".join(map(str.strip, thoughts))) if thoughts else (text, None)


def _block_outside_json(text: str) -> re.Match[str] | None:
    """Find the next thinking that is none of the words of an answer."""
    start = around = 0
    unclosed: set[str] = set()
    while (opening := _OPEN.search(text, start)) is not None:
        tag = opening[1].lower()
        # A tag that is closed nowhere is sought once: an answer may repeat it thousands of times.
        if tag not in unclosed and _CLOSE[tag].search(text, opening.end()) is None:
            unclosed.add(tag)
        if tag in unclosed:
            start = opening.end()
        elif (end := end_of_json_around(text, opening.start(), around)) is None:
            return _BLOCK.match(text, opening.start())
        else:
            start = around = end
    return None


def _with_usual_tags(text: str) -> str:
    start = text.lstrip()
    for opening, closing in _OTHER_TAGS:
        if start.startswith(opening):
            return start.replace(opening, "<think>", 1).replace(closing, "</think>", 1)
    return text


def _from_tag(text: str) -> str:
    """Drop the blanks before a tag; those before an answer may be words of it."""
    stripped = text.lstrip()
    return stripped if _OPEN.match(stripped) else text

"""Split a model's thinking from its answer."""

from __future__ import annotations

import re
from typing import NamedTuple

from frameenrich.answers.json_text import end_of_json_around, is_one_json
from frameenrich.answers.labels import MODEL_ENDS

_TAGS = "think|thinking|thought|reasoning"
_BLOCK = re.compile(rf"<({_TAGS})(?:\s[^<>]*)?>(.*?)</\1\s*>\s*", re.DOTALL | re.IGNORECASE)
_OPEN = re.compile(rf"<({_TAGS})(?:\s[^<>]*)?>", re.IGNORECASE)
_CLOSE = {tag: re.compile(rf"</{tag}\s*>", re.IGNORECASE) for tag in _TAGS.split("|")}
# Magistral, Kimi and Seed write tags of their own, at the very beginning. `answers.gate` takes no
# text that holds one.
_OTHER_TAGS = (("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"), ("<seed:think>", "</seed:think>"))
_ANY_OPEN = re.compile(rf"{_OPEN.pattern}|\[THINK\]|◁think▷|<seed:think>", re.IGNORECASE)
# Some chat templates write the opening tag into the prompt, so that an answer has only the other.
_CLOSED = re.compile(rf"</(?:{_TAGS}|seed:think)\s*>|\[/THINK\]|◁/think▷", re.IGNORECASE)
_LINE_END = re.compile(rf"[ \t]*(?:\r?\n|\Z)|{MODEL_ENDS.pattern}")


class UnclosedThinkingError(ValueError):
    """An answer that ends while the model still thinks."""


class Split(NamedTuple):
    """Holds an answer, the thinking before it, and whether a stray mark behind it was taken off."""

    answer: str
    thinking: str | None = None
    mended: bool = False


def split_thinking(text: str, *, anywhere: bool) -> Split:
    r"""Split an answer from the thinking before it.

    A closing tag without its opening ends the thinking, too, and what is behind it counts alone.
    Where nothing is behind it, the words before were a draft, and no answer came; only one whole
    JSON value, bare or in a fence, is an answer with a stray tag.

    Parameters
    ----------
    text : str
        The answer as it came.
    anywhere : bool
        Whether thinking may also stand after other words: where JSON or a label is wanted, these
        are chatter; in a plain text they are the answer, and may name a tag within a line.

    Returns
    -------
    Split
        The answer, empty where none came; the thinking, None where there is none; and whether a
        stray tag was taken off.

    Raises
    ------
    UnclosedThinkingError
        The thinking never ends.

    Examples
    --------
    >>> split_thinking("<think>pots?</think>\nKitchen", anywhere=True)
    Split(answer='Kitchen', thinking='pots?', mended=False)
    >>> split_thinking("A mug.", anywhere=False)
    Split(answer='A mug.', thinking=None, mended=False)
    >>> split_thinking('Perhaps {"a": 1}</think>', anywhere=True).answer
    ''
    >>> split_thinking('{"a": 1}</think>', anywhere=True)
    Split(answer='{"a": 1}', thinking=None, mended=True)
    """
    rest = _with_usual_tags(text)
    thoughts: list[str] = []
    if not _begins_as_json(rest):  # tags inside of JSON are its own words
        rest = _from_tag(rest)
        # A text between two blocks stays: of plain text only leading blocks are thinking.
        while match := _block_outside_json(rest) if anywhere else _BLOCK.match(rest):
            thoughts.append(match[2])
            rest = _from_tag(rest[: match.start()] + rest[match.end() :])
    mended = False
    # A plain text whose thinking was found may well name the tag.
    while (anywhere or not thoughts) and (closed := _stray_end(rest, anywhere=anywhere)):
        before, behind = rest[: closed.start()], _or_nothing(rest[closed.end() :].lstrip())
        if _outside_json(_ANY_OPEN, before):
            break
        if not behind and is_one_json(before):
            rest, mended = before.rstrip(), True
            break
        thoughts.append(before)
        rest = behind
    chatter = "" if _begins_as_json(rest) else rest.partition("{")[0]  # beyond, a word of the JSON
    if _OPEN.match(rest) or (anywhere and _OPEN.search(chatter)):
        raise UnclosedThinkingError
    if not thoughts:
        return Split(rest if mended else text, None, mended)
    return Split(_or_nothing(rest), "\n\n".join(map(str.strip, thoughts)), mended)


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


def _stray_end(text: str, *, anywhere: bool) -> re.Match[str] | None:
    """Find the first closing tag that ends thinking and is no word of an answer."""
    prose_first = not _begins_as_json(text)
    start = 0
    while (match := _CLOSED.search(text, start)) is not None:
        behind = match.end()
        ends_line = _LINE_END.match(text, behind) is not None
        # Thinking leaves braces open. No line ends within a string of JSON, so this one is outside.
        if prose_first and ends_line:
            return match
        end = end_of_json_around(text, match.start(), start)
        if end is None and (anywhere or ends_line or text[behind : behind + 1] in {"{", "["}):
            return match
        start = end or behind
    return None


def _or_nothing(text: str) -> str:
    """Return a text; an empty one where it is only what a server leaves of its model's end."""
    return "" if MODEL_ENDS.fullmatch(text.strip()) else text


def _begins_as_json(text: str) -> bool:
    return text.lstrip()[:1] in {"{", "["}


def _outside_json(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Find the next mark that is none of the words of an answer."""
    start = 0
    while (match := pattern.search(text, start)) is not None:
        end = end_of_json_around(text, match.start(), start)
        if end is None:
            return match
        start = end
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

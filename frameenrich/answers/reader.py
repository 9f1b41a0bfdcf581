"""Read a responses file in chunks: whole lines in, a block of what they hold out.

Nearly every line is an ordinary chat answer. A chunk's lines are opened together, by types that
hold no more than is needed, and an ordinary answer never becomes a `Result`; what is not ordinary
is judged alone and in full. Both ways give the same.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from frameenrich.answers.gate import Taken, make_gate
from frameenrich.answers.judge import READERS, read_answer, read_result
from frameenrich.answers.output import Output
from frameenrich.answers.result_table import USAGE, ParsedLines
from frameenrich.jsonl import DECODE_ERRORS, ResponseLine
from frameenrich.model import Result, Usage

_DETAILS = (*USAGE, "raw", "repaired")
"""Details that an ordinary answer has beside its text."""


_HTTP_OK = 200


_MOST_TOKENS = 2**63 - 1


_NEWLINE, _OPENS, _CLOSES = b"\n{}"


Chunk = bytes | memoryview
"""Some whole lines."""


# Members are Any where another type would only make the whole chunk be opened line by line.


class _Message(msgspec.Struct, gc=False):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: Any = None
    logprobs: Any = None
    error: Any = None


class _Body(msgspec.Struct, gc=False):
    choices: tuple[_Choice, ...] = ()
    error: Any = None


class _Tokens(msgspec.Struct, gc=False):
    prompt_tokens: Any = None
    completion_tokens: Any = None


class _BodyWithUsage(_Body, gc=False):
    model: Any = None
    usage: _Tokens | None = None


_UNOPENED = ResponseLine[Any, Any]()


@dataclass(frozen=True)
class _RawLines:
    """A chunk's lines, each cut out on access, which only the odd ones need."""

    chunk: Chunk
    ends: npt.NDArray[np.intp]

    def __getitem__(self, position: int) -> bytes:
        start = self.ends[position - 1] + 1 if position else 0
        return bytes(self.chunk[start : self.ends[position]])


@dataclass(frozen=True)
class _Lines:
    """A chunk's lines: opened, and as they came."""

    opened: list[Any]
    raw: Sequence[bytes] | _RawLines

    def about(self, wanted: Container[str]) -> _Lines:
        """Return the lines about some requests, and those that do not say of which they are."""
        at = [
            i
            for i, line in enumerate(self.opened)
            if line.custom_id.__class__ is not str or line.custom_id in wanted
        ]
        if len(at) == len(self.opened):
            return self
        return _Lines([self.opened[i] for i in at], [self.raw[i] for i in at])


def _one_a_line(chunk: Chunk, ends: npt.NDArray[np.intp], count: int) -> bool:
    """Tell whether each of `count` objects has a line of its own, and no line anything else.

    No object has a line's end between ``}`` and ``{`` in it, so as many of those as there are
    objects stand between them.
    """
    if len(ends) != count:
        return False
    data = np.frombuffer(chunk, np.uint8)
    return bool((data[ends - 1] == _CLOSES).all() and (data[ends[:-1] + 1] == _OPENS).all())


def _line_ends(chunk: Chunk) -> npt.NDArray[np.intp]:
    # A search in C for each line is faster than a comparison of each byte.
    data, ends, end = bytes(chunk), [], -1
    find = data.find
    while (end := find(b"\n", end + 1)) >= 0:
        ends.append(end)
    return np.array(ends, np.intp)


def _check_text(data: Chunk) -> None:
    """Refuse what is not UTF-8, also in members that msgspec passes over."""
    # msgspec skips fields we did not ask for, so without this check a line's validity would depend
    # on the requested columns. ASCII bytes are positive as int8: only other texts are decoded.
    if np.frombuffer(data, np.int8).min(initial=0) < 0:
        str(data, "utf-8")


class ResponseReader:
    """Read chunks of whole lines.

    Parameters
    ----------
    output : Output
        How answers are read.
    details : collection of str
        What is wanted beside values, statuses and errors.
    """

    def __init__(self, output: Output, details: Collection[str] = ()) -> None:
        self._output, self._gate = output, make_gate(output)
        self._with_details = not set(_DETAILS).isdisjoint(details)
        # Usage is read only where somebody wants it, as its members cost time on every line.
        lines: Any = (
            ResponseLine[_BodyWithUsage | None, Any]
            if self._with_details
            else ResponseLine[_Body | None, Any]
        )
        self._decoder = msgspec.json.Decoder(lines)

    def read(self, chunk: Chunk, wanted: Container[str] | None = None) -> ParsedLines:
        r"""Return what a chunk's lines hold; nothing in them can raise.

        Lines about other requests than the `wanted` are passed over, unless that is None.

        Examples
        --------
        >>> from frameenrich.prepare.output_options import output_from_options
        >>> line = b'{"custom_id": "row-1", "response": {"status_code": 500, "body": {}}}\n'
        >>> block = ResponseReader(output_from_options()).read(line)
        >>> block.ids, block.detail("error")
        (['row-1'], ['HTTP 500 without a reason'])
        """
        lines = self._open(chunk)
        if wanted is not None:
            lines = lines.about(wanted)
        texts = self._texts(lines.opened)
        accepted = self._accepted(texts)
        ids = [line.custom_id for line in lines.opened]
        odd: dict[int, Result] = {}
        # The quick way only ever accepts: what it refuses is judged alone, with every rule.
        for position in accepted.refused:
            result = self._judged(lines, position, texts[position])
            ids[position] = None
            if result is not None:
                odd[position], ids[position] = result, result.custom_id
                for column, value in zip(accepted.columns, result.values or (), strict=False):
                    column[position] = value
        return ParsedLines(
            ids,
            accepted.columns,
            odd,
            self._details_of(lines.opened, texts) if self._with_details else {},
        )

    def _accepted(self, texts: list[str | None]) -> Taken:
        if self._gate is not None:
            return self._gate(texts)
        nothing: list[list[Any]] = [[None] * len(texts) for _ in self._output.fields]
        return Taken(nothing, list(range(len(texts))))

    def _open(self, chunk: Chunk) -> _Lines:
        # One call opens all lines of a chunk, and an ordinary answer never becomes a `Result`.
        # That each object has a line to itself is checked at the line ends.
        ends = _line_ends(chunk)
        try:
            _check_text(chunk)
            opened = self._decoder.decode_lines(chunk)
        except DECODE_ERRORS:
            opened = []
        if _one_a_line(chunk, ends, len(opened)):
            return _Lines(opened, _RawLines(chunk, ends))
        # One bad line fails the call for all, so each is opened alone.
        lines = [stripped for line in bytes(chunk).split(b"\n") if (stripped := line.strip())]
        return _Lines(list(map(self._open_one, lines)), lines)

    def _open_one(self, line: bytes) -> Any:
        try:
            _check_text(line)
            return self._decoder.decode(line)
        except DECODE_ERRORS:
            return _UNOPENED

    def _texts(self, opened: list[Any]) -> list[str | None]:
        """Return the answer's text where a line is an ordinary chat answer, stopped by itself."""
        if self._output.spec.kind in READERS or self._output.spec.samples > 1:
            return [None] * len(opened)
        texts = list(map(_ordinary_text, opened))
        if self._with_details:
            pairs = zip(texts, opened, strict=True)
            return [None if text is None or not _has_usage(line) else text for text, line in pairs]
        return texts

    def _judged(self, lines: _Lines, position: int, text: str | None) -> Result | None:
        if text is None or not text.strip():
            return read_result(lines.raw[position], self._output)
        line = lines.opened[position]
        usage = _usage(line) if self._with_details else Usage()
        return read_answer(line.custom_id, text, self._output, usage)

    def _details_of(self, opened: list[Any], texts: list[str | None]) -> dict[str, Sequence[Any]]:
        nothing = (None,) * len(_DETAILS)
        cells = [
            nothing if text is None else (*msgspec.structs.astuple(_usage(line)), text, False)
            for text, line in zip(texts, opened, strict=True)
        ]
        return dict(zip(_DETAILS, zip(*cells, strict=True), strict=True)) if cells else {}


def _ordinary_text(line: Any) -> str | None:
    response = line.response
    if response is None or response.status_code != _HTTP_OK or line.error is not None:
        return None
    body = response.body
    # Several choices or an error beside them need a judgement; here only the plain case is taken.
    if body is None or body.error is not None or len(body.choices) != 1:
        return None
    (choice,) = body.choices
    message = choice.message
    # With log probabilities the answer is judged in full, which finds a label's confidence; tool
    # calls may say another answer.
    if (
        message is None
        or choice.finish_reason != "stop"
        or message.refusal
        or choice.error
        or choice.logprobs is not None
        or message.tool_calls
    ):
        return None
    text, own = message.content, line.custom_id
    return text if text.__class__ is str and own and own.__class__ is str else None


def _has_usage(line: Any) -> bool:
    """Tell whether an ordinary answer's line holds its usage and model, as most do."""
    body = line.response.body
    tokens = body.usage
    message = body.choices[0].message
    if message.reasoning_content or message.reasoning:
        return False  # it goes into a column of its own
    return (
        tokens is not None
        and body.model.__class__ is str
        and all(
            n.__class__ is int and 0 <= n <= _MOST_TOKENS
            for n in (tokens.prompt_tokens, tokens.completion_tokens)
        )
    )


def _usage(line: Any) -> Usage:
    """Return the usage of an ordinary answer."""
    body = line.response.body
    return Usage(body.model, body.usage.prompt_tokens, body.usage.completion_tokens, "stop")

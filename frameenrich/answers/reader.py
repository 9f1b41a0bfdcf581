"""Read a responses file in chunks: whole lines in, a block of what they hold out.

Nearly every line is an ordinary chat answer. A chunk's lines are opened together, by types that
hold no more than is needed, and an ordinary answer never becomes a `Result`; what is not ordinary
is judged alone and in full. Both ways give the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np

from frameenrich.answers.gate import Taken, make_gate
from frameenrich.answers.judge import READERS, read_answer, read_result
from frameenrich.answers.output import Output
from frameenrich.answers.result_table import USAGE, ParsedLines
from frameenrich.jsonl import DECODE_ERRORS
from frameenrich.model import Result, Usage

_DETAILS = (*USAGE, "raw", "repaired")
"""Details that an ordinary answer has beside its text."""


Chunk = bytes | memoryview
"""Some whole lines."""


# The types are the rule: what they take is an ordinary answer, so no line is looked at in Python.
# Several choices or an error beside them need a judgement; with log probabilities a label's
# confidence is found, and tool calls may say another answer: all these are judged in full.

_Nothing = Literal[""] | None


_NoItems = Annotated[list[Any], msgspec.Meta(max_length=0)] | None


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Message(msgspec.Struct, gc=False):
    content: str
    refusal: _Nothing = None
    tool_calls: _NoItems = None
    function_call: None = None


class _MessageWithThinking(_Message, gc=False):
    reasoning_content: _Nothing = None  # thinking goes into a column of its own
    reasoning: _Nothing = None


Message = TypeVar("Message")


class _Choice(msgspec.Struct, Generic[Message], gc=False):
    message: Message
    finish_reason: Literal["stop"]
    logprobs: None = None
    error: None = None


class _Body(msgspec.Struct, gc=False):
    choices: tuple[_Choice[_Message]]
    error: None = None
    output: None = None  # where answers of the Responses API stand


class _Tokens(msgspec.Struct, gc=False):
    prompt_tokens: _Count
    completion_tokens: _Count


class _BodyWithUsage(msgspec.Struct, gc=False):
    choices: tuple[_Choice[_MessageWithThinking]]
    model: str
    usage: _Tokens
    error: None = None
    output: None = None


Body = TypeVar("Body")


class _Answered(msgspec.Struct, Generic[Body], gc=False):
    body: Body
    status_code: Literal[200]


class _OrdinaryLine(msgspec.Struct, Generic[Body], gc=False):
    """A line with an ordinary chat answer, stopped by itself."""

    custom_id: Annotated[str, msgspec.Meta(min_length=1)]
    response: _Answered[Body]
    error: None = None


class _Named(msgspec.Struct, gc=False):
    custom_id: Any = None


_decode_named = msgspec.json.Decoder(_Named).decode


@dataclass(frozen=True)
class _Lines:
    """A chunk's lines: the ordinary ones opened, None for the others, which are kept as they came.

    ``numbers`` says which of the chunk's lines these are.
    """

    opened: list[Any]
    odd: dict[int, bytes]
    data: bytes
    numbers: Sequence[int]

    def raw(self, position: int) -> bytes:
        """Return a line as it came."""
        if (line := self.odd.get(position)) is not None:
            return line
        # An ordinary line whose text is blank: only the odd lines were cut out and kept.
        return self._all[self.numbers[position]]

    @cached_property
    def _all(self) -> list[bytes]:
        # Kept, since a whole chunk may be blank: its lines are cut apart once, not for each.
        return _filled(self.data)

    def about(self, wanted: Container[str]) -> _Lines:
        """Return the lines about some requests, and those that do not say of which they are."""
        at = []
        for position, line in enumerate(self.opened):
            custom_id = _id_in(self.odd[position]) if line is None else line.custom_id
            if custom_id is None or custom_id in wanted:
                at.append(position)
        odd = {i: self.odd[position] for i, position in enumerate(at) if position in self.odd}
        return _Lines([self.opened[i] for i in at], odd, self.data, at)


def _filled(data: bytes) -> list[bytes]:
    """Cut lines apart and leave out the blank ones."""
    return [stripped for line in data.split(b"\n") if (stripped := line.strip())]


def _id_in(line: bytes) -> str | None:
    try:
        custom_id = _decode_named(line).custom_id
    except DECODE_ERRORS:
        return None
    return custom_id if custom_id.__class__ is str else None


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
        # Several answers to a request, and answers that are no text, are judged in full.
        self._ordinary = output.spec.kind not in READERS and output.spec.samples == 1
        self._with_details = not set(_DETAILS).isdisjoint(details)
        # Usage is read only where somebody wants it, as its members cost time on every line.
        lines: Any = _OrdinaryLine[_BodyWithUsage] if self._with_details else _OrdinaryLine[_Body]
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(lines).decode

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
        ids = [None if line is None else line.custom_id for line in lines.opened]
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
        data = bytes(chunk)
        if not self._ordinary:
            lines = _filled(data)
            return _Lines([None] * len(lines), dict(enumerate(lines)), data, range(len(lines)))
        decode = self._decode
        try:
            _check_text(data)
        except UnicodeDecodeError:
            decode = self._decode_checked
        opened: list[Any] = []
        odd: dict[int, bytes] = {}
        # One loop in C cuts a line out and opens it while it is in the processor's own cache. It
        # ends at a line that is not ordinary: that one is kept as it came, and it goes on behind.
        source = io.BytesIO(data)
        while source.tell() < len(data):
            try:
                opened.extend(map(decode, source))
            except DECODE_ERRORS:
                end = source.tell()
                line = data[data.rfind(b"\n", 0, end - 1) + 1 : end].strip()
                if line:
                    odd[len(opened)] = line
                    opened.append(None)
        return _Lines(opened, odd, data, range(len(opened)))

    def _decode_checked(self, line: bytes) -> Any:
        _check_text(line)
        return self._decode(line)

    def _texts(self, opened: list[Any]) -> list[str | None]:
        """Return the answer's text where a line is an ordinary chat answer."""
        return [
            None if line is None else line.response.body.choices[0].message.content
            for line in opened
        ]

    def _judged(self, lines: _Lines, position: int, text: str | None) -> Result | None:
        if text is None or not text.strip():
            return read_result(lines.raw(position), self._output)
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


def _usage(line: Any) -> Usage:
    """Return the usage of an ordinary answer."""
    body = line.response.body
    return Usage(body.model, body.usage.prompt_tokens, body.usage.completion_tokens, "stop")

"""Blocks of results as the results that they stand for, one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from frameenrich.answers.gate import make_gate
from frameenrich.answers.output import Output
from frameenrich.answers.reader import ResponseReader
from frameenrich.answers.result_table import DETAILS, STATUSES, USAGE, ParsedLines
from frameenrich.model import Result, RowStatus, Usage


def results_of(block: ParsedLines) -> list[Result | None]:
    """Return each line's result, made of the block's columns; None for a line without a row."""
    names = [name for name in DETAILS if name != "answer_id"]
    told = [dict(zip(names, cells, strict=True)) for cells in zip(*map(block.detail, names))]  # noqa: B905 - no line, no cells
    return [
        None if custom_id is None else _result(custom_id, STATUSES[code], values, own)
        for custom_id, code, values, own in zip(
            block.ids, block.codes, _rows(block), told, strict=True
        )
    ]


def _rows(block: ParsedLines) -> list[tuple[Any, ...]]:
    """Return each line's values, one a field."""
    return list(zip(*block.columns, strict=True)) or [()] * len(block.ids)


def _result(custom_id: str, status: RowStatus, values: Any, told: dict[str, Any]) -> Result:
    usage = Usage(**{name: told.pop(name) for name in USAGE})
    good = values if status is RowStatus.OK else None
    return Result(custom_id, status, good, usage=usage, **told)


def taken_alone(output: Output, text: str) -> tuple[Any, ...] | None:
    """Return the values that the gate takes of an answer; None where it leaves it to others."""
    gate = make_gate(output)
    if gate is None or (taken := gate([text])).refused:
        return None
    return tuple(cell for (cell,) in taken.columns)


def read_lines(lines: Sequence[bytes], output: Output) -> list[Result | None]:
    """Return what lines come to that are read together, as a chunk of a file."""
    chunk = b"".join(line + b"\n" for line in lines)
    return results_of(ResponseReader(output, DETAILS).read(chunk))


def read_texts(texts: Sequence[str], output: Output) -> list[Result]:
    """Return what texts come to that each answer a chat request, read together."""
    lines = []
    for number, text in enumerate(texts):
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        inner = {"status_code": 200, "body": {"choices": [choice]}}
        lines.append(json.dumps({"custom_id": f"row-{number}", "response": inner}).encode())
    results = read_lines(lines, output)
    assert None not in results
    return [result for result in results if result is not None]

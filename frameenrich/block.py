"""Some response lines' results together: what is ordinary column by column, the rest one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from frameenrich.model import Result, RowStatus

STATUSES = list(RowStatus)
CODES = {status: code for code, status in enumerate(STATUSES)}
OK_CODE = CODES[RowStatus.OK]

# Terminal escapes and the characters that turn text around; newlines and tabs are fine.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

USAGE = ("model", "prompt_tokens", "completion_tokens", "finish_reason")


@dataclass(frozen=True)
class Block:
    """What some lines hold, in their order.

    Parameters
    ----------
    ids : sequence of str or None
        The custom_id of each; None where no row can be told from the line.
    values : sequence of tuple
        One value a field of each; Nones where it is no good answer.
    odd : mapping of int to Result
        By their place, the lines that were judged in full. Every other one is a good answer of
        which nothing else is to be said.
    told : mapping of str to sequence
        What is told of those others, by the detail's name, as far as it is wanted.
    """

    ids: Sequence[str | None]
    values: Sequence[tuple[Any, ...]]
    odd: Mapping[int, Result]
    told: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Sequence[Result], fields: int) -> Block:
        """A block of results, each judged in full."""
        blank = (None,) * fields
        values = [blank if result.values is None else result.values for result in results]
        return cls([r.custom_id for r in results], values, dict(enumerate(results)))

    @property
    def codes(self) -> npt.NDArray[np.uint8]:
        """Each line's status, as its number in `STATUSES`."""
        codes = np.full(len(self.ids), OK_CODE, dtype=np.uint8)
        for place, result in self.odd.items():
            codes[place] = CODES[result.status]
        return codes

    def detail(self, name: str) -> Sequence[Any]:
        """One detail of each line (`frameenrich.tally.DETAILS`, and ``bad_raw``)."""
        if name == "answer_id":
            return self.ids
        cells = list(self.told.get(name, (None,) * len(self.ids)))
        for place, result in self.odd.items():
            cells[place] = _of_result(name, result)
        return cells


def _of_result(name: str, result: Result) -> Any:
    if name == "bad_raw":
        return None if result.status is RowStatus.OK else result.raw
    if name == "error":
        return None if result.error is None else _printable(result.error)
    return getattr(result.usage if name in USAGE else result, name)


def _printable(reason: str) -> str:
    """A reason that can be printed: models and servers speak in it."""
    if not _CONTROL.search(reason):
        return reason
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], reason)

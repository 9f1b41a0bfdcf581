"""A job's answers as people judge them: fields with labels, values, scores and prompts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import xxhash

from frameenrich.answers.column_names import column_name
from frameenrich.answers.output import Output
from frameenrich.evaluation.answer_field import AnswerField
from frameenrich.evaluation.scores import field_scores
from frameenrich.evaluation.spent import reviewed_before, shown_rows
from frameenrich.identity.keys import sidecar_keys
from frameenrich.lifecycle.last_requests import last_lines
from frameenrich.model import FLAGGED, RowStatus
from frameenrich.rendering.readable import Prompt, read_prompt
from frameenrich.store.folder import JobFolder


@dataclass(frozen=True)
class JobAnswers:
    """The answers of a whole job, as `Job.collect` returns them with ``usage=True``.

    What nobody judges by may be left out (`lifecycle.collect.UNJUDGED`).

    ``scored`` says whether its rows may have scores.
    """

    folder: JobFolder
    output: Output
    frame: pd.DataFrame
    scored: bool = True

    @cached_property
    def fields(self) -> dict[str, AnswerField]:
        """The fields that can be judged, by name; a single value is called after the job."""
        spec, columns = self.folder.spec, self.frame.columns
        found = {}
        for each in self.output.fields:
            name, column = each.name or spec.name, column_name(spec, each)
            if each.kind == "any":  # a parser's columns are known only from what it made
                # They stand between the key and the status, as `collect` laid the frame out.
                end = columns.get_loc(f"{spec.name}_status")
                made = [str(c) for c in columns[len(self.folder.key_names) : end]]
                return {c.removeprefix(spec.prefix): AnswerField(c, c, "string") for c in made}
            if each.kind != "vector" and not each.suffix and column in columns:
                known = {"category": each.categories, "boolean": (True, False)}
                found[name] = AnswerField(name, column, each.kind, known.get(each.kind))
        return found

    @property
    def _statuses(self) -> pd.Series:
        return self.frame[f"{self.folder.spec.name}_status"]

    def have(self, status: RowStatus) -> npt.NDArray[np.bool_]:
        """Tell which rows have a status."""
        # Compared as a column: a million texts as Python's objects take 60 MB.
        return (self._statuses == str(status)).fillna(False).to_numpy(dtype=np.bool_)

    @cached_property
    def usable(self) -> npt.NDArray[np.int64]:
        """Positions of the rows that are ``ok``."""
        return np.flatnonzero(self.have(RowStatus.OK))

    @cached_property
    def _shown(self) -> npt.NDArray[np.bool_]:
        return shown_rows(self.folder)

    @cached_property
    def _reviewed_before(self) -> npt.NDArray[np.bool_]:
        return reviewed_before(self.folder)

    @property
    def spent(self) -> npt.NDArray[np.bool_]:
        """Marks of the rows that can say nothing new (`frameenrich.evaluation.spent`)."""
        marks: npt.NDArray[np.bool_] = self._shown | self._reviewed_before
        return marks

    @cached_property
    def fresh(self) -> npt.NDArray[np.int64]:
        """Positions of the usable rows that are not spent."""
        return self.usable[~self.spent[self.usable]]

    @property
    def spent_notes(self) -> list[str]:
        """Notes on how many usable rows are spent, and why."""
        shown = int(self._shown[self.usable].sum())
        before = int((self._reviewed_before & ~self._shown)[self.usable].sum())
        return [
            *([f"{shown:,} rows are spent: the prompt shows them as examples"] if shown else []),
            *(
                [f"{before:,} rows are spent: they were reviewed before this prompt was written"]
                if before
                else []
            ),
        ]

    @cached_property
    def flagged(self) -> int:
        """The number of rows with a terminal status other than ``ok``."""
        return int(self._statuses.isin([str(status) for status in FLAGGED]).sum())

    @cached_property
    def keys(self) -> pa.Table:
        """The keys of all rows, as the sidecar has them."""
        return sidecar_keys(self.folder.sidecar(columns=self.folder.key_columns))

    def values(self, name: str, positions: npt.NDArray[np.int64]) -> list[Any]:
        """Return a field's answers for some rows as Python objects; None for a null."""
        cells = self.frame[self.fields[name].column].iloc[positions].tolist()
        # `isna` of a list is an array, which has no truth value.
        return [None if pd.api.types.is_scalar(c) and pd.isna(c) else _plain(c) for c in cells]

    def hashes(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """Hash all answers of each row; the hash changes when a later round replaces one.

        A row that is not usable has an empty one.
        """
        columns = [self.values(name, positions) for name in self.fields]
        usable = np.isin(positions, self.usable)
        rows = zip(*columns, strict=True) if columns else [()] * len(positions)
        return [
            xxhash.xxh3_64_hexdigest(json.dumps([as_text(v) for v in row]).encode()) if ok else ""
            for row, ok in zip(rows, usable, strict=True)
        ]

    @cached_property
    def _field_scores(self) -> dict[str, tuple[str, npt.NDArray[np.float64]]]:
        if not self.scored:
            return {}
        found = field_scores(self)
        missing = [name for name in self.fields if name not in found]
        if not missing:
            return found
        # For scores that nothing else gives: it needs reviews, which are made of this module.
        from frameenrich.evaluation.learned_scores import learned_scores  # noqa: PLC0415

        return {**found, **learned_scores(self, missing)}

    def scores(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
        """Return a field's scores for some rows; None where it has no scores."""
        found = self._field_scores.get(name)
        return None if found is None else found[1][positions]

    @property
    def score_sources(self) -> dict[str, str]:
        """The source of each field's scores; fields without scores are left out."""
        return {name: source for name, (source, _) in self._field_scores.items()}

    def prompts(self, positions: npt.NDArray[np.int64]) -> list[Prompt]:
        """Return the last prompt of each of some rows."""
        column = self.folder.sidecar(columns=["custom_id"])["custom_id"]
        ids: list[str | None] = column.take(pa.array(positions)).to_pylist()
        found = _prompts(self.folder, {own for own in ids if own is not None})
        return [found.get(own or "", Prompt(())) for own in ids]


def _prompts(folder: JobFolder, ids: Collection[str]) -> Mapping[str, Prompt]:
    lines = last_lines(folder, ids)
    return {own: read_prompt(json.loads(line)["body"]) for own, line in lines}


def own_message(prompt: Prompt) -> str:
    """Return the text that a row was rendered into: the user's last message."""
    # The last one: examples go before it, as earlier turns of the conversation.
    texts = [text for role, text in prompt.messages if role == "user"]
    return texts[-1] if texts else "\n".join(text for _, text in prompt.messages)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def as_text(value: Any) -> str:
    """Format a value as a sheet shows it.

    Examples
    --------
    >>> as_text(True), as_text(None), as_text(["a"]), as_text(2)
    ('true', '', '["a"]', '2')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)

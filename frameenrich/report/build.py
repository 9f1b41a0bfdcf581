"""Build what a report shows from a job's folder and its answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc
import xxhash

from frameenrich.answers.arrow_column import TAKEN_ROWS, Positions
from frameenrich.answers.column_names import column_name
from frameenrich.answers.output import Output
from frameenrich.atomic import named_file
from frameenrich.errors import InputError
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.lifecycle.last_requests import last_lines
from frameenrich.lifecycle.regenerate import history
from frameenrich.lifecycle.results import SIDECAR_ID_COLUMNS
from frameenrich.lifecycle.usage import JobUsage
from frameenrich.model import FLAGGED
from frameenrich.pricing.money import show_usd
from frameenrich.rendering.readable import Prompt, read_prompt
from frameenrich.rendering.thumbnails import thumbnail
from frameenrich.report.charts import Chart, chart_of, number_chart
from frameenrich.report.checked import checks, drawn, verdicts
from frameenrich.report.linked_path import LinkedPath
from frameenrich.report.page import Report, grouped, page
from frameenrich.report.page_rows import Column, Row
from frameenrich.report.rightness import review_call, rights
from frameenrich.report.without_keys import without_keys
from frameenrich.store.folder import JobFolder

MAX_FLAGGED = 50_000
"""The most flagged rows that a page holds; nobody reads more of them."""


# Images are inlined as data: URLs, so their number and size bound the size of the one file.
_MAX_IMAGES = 1_000


_MAX_IMAGE_CHARACTERS = 24_000_000


_MAX_CHARTS = 12


@dataclass(frozen=True)
class Answers:
    """The results of `Job.collect` (with ``usage=True``) and `Job.usage`.

    ``shown`` are the positions of the rows that the page holds, which `whole_rows` gives with
    their keys and long values, some at a time: ``at_once``. The frame of all rows need not have
    these; ``shortened`` are the columns that lack some values for their length.
    """

    folder: JobFolder
    frame: pd.DataFrame
    shown: Positions
    whole_rows: Callable[[Positions], pd.DataFrame]
    used: JobUsage
    reading: Output
    whole: bool
    at_once: int
    shortened: AbstractSet[str]

    def said(self, what: str) -> pd.Series | None:
        """Return one of the job's own columns, such as ``status``; None where it is missing."""
        name = f"{self.folder.spec.name}_{what}"
        return self.frame[name] if name in self.frame.columns else None

    @property
    def output(self) -> pd.DataFrame:
        """The output columns alone: those between the key and the status."""
        names = list(self.frame.columns)
        end = names.index(f"{self.folder.spec.name}_status")
        found = self.frame.iloc[:, len(self.folder.key_names) : end]
        # Both stand between key and status too, but say how sure a row is: they get charts below.
        sure = [f"{self.folder.spec.name}_{what}" for what in ("confidence", "agreement")]
        return found.drop(columns=[name for name in sure if name in found.columns])

    @property
    def keys(self) -> list[str]:
        """Return one text per row that names it."""
        parts = self.frame.iloc[:, : len(self.folder.key_names)]
        return [", ".join(map(str, key)) for key in parts.itertuples(index=False, name=None)]


def write_report(
    path: str | os.PathLike[str], report: Report, *, secrets: Iterable[str] = ()
) -> Path:
    """Write a job's report, whole or not at all.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    made_at = _moment(datetime.now(UTC))
    shown = without_keys(report, secrets)
    _write(Path(path), page(shown, version=version("frameenrich"), made_at=made_at))
    return LinkedPath(path)


def _write(path: Path, texts: Iterable[str]) -> None:
    try:
        with named_file(path, private=True) as file:  # it holds rows, as the store does
            for text in texts:
                file.write(text.encode())
    except OSError as error:
        raise InputError(
            f"The report cannot be written to {path}: {error.strerror}.",
            "Choose another file.",
            path=str(path),
        ) from None


def make_report(answers: Answers) -> Report:
    """Collect what the report shows; its rows are read when the page is made."""
    folder = answers.folder
    statuses, errors = (answers.frame[f"{folder.spec.name}_{n}"] for n in ("status", "error"))
    counts = {str(status): int(n) for status, n in statuses.value_counts().items()}
    reasons, groups = grouped(_in_blocks(statuses), _in_blocks(errors))
    columns = tuple(_columns(answers))
    thumbs = _Thumbnails()
    judged = JobAnswers(folder, answers.reading, answers.frame)
    held = int(statuses.iloc[answers.shown].isin([str(status) for status in FLAGGED]).sum())
    return Report(
        job=folder.id,
        name=folder.spec.name,
        facts=_facts(folder),
        figures=tuple(_figures(answers)),
        counts=counts,
        columns=columns,
        rows=_rows(answers, judged, columns, groups, thumbs),
        charts=tuple(_charts(answers, columns)),
        reasons=reasons,
        notes=chain(
            _sample_notes(counts, len(answers.shown), held),
            _chart_notes(columns, whole=answers.whole),
            thumbs.notes(),
        ),
        # Rows are rendered into the user's last message; the turns before it are examples.
        own_turn=max(
            (i for i, each in enumerate(folder.spec.messages) if each.role == "user"), default=0
        ),
        rights=tuple(rights(judged)),
        review_call=review_call(judged),
        checks=tuple(checks(judged)),
        drawn=tuple(drawn(judged)),
    )


# --- which rows ---------------------------------------------------------------------------------


def rows_shown(is_flagged: npt.NDArray[np.bool_], rows: int) -> Positions:
    """Choose the positions of the flagged rows and of a repeatable sample of `rows` others."""
    flagged = _sample(np.flatnonzero(is_flagged), MAX_FLAGGED)
    others = _sample(np.flatnonzero(~is_flagged), rows)
    # The sample comes in random order; readers look for rows in the order of their frame.
    return np.sort(np.concatenate([flagged, others]))


def _sample(positions: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    if len(positions) <= size:
        return positions
    # A fixed seed, so that the same job makes the same page.
    return np.random.default_rng(0).choice(positions, size, replace=False)


def _in_blocks(cells: pd.Series) -> Iterator[Any]:
    """Yield a column's cells, nulls as None; of a million no more than a block are objects."""
    for start in range(0, len(cells), TAKEN_ROWS):
        yield from _cells(cells.iloc[start : start + TAKEN_ROWS], 0)


def _sample_notes(counts: Mapping[str, int], shown: int, held: int) -> Iterator[str]:
    """Yield a note on the rows that the page lacks: it has so many, `held` of them flagged."""
    total = sum(counts.values())
    if shown == total:
        return
    flagged = sum(n for status, n in counts.items() if status in FLAGGED)
    every = f"all {flagged:,} flagged rows" if held == flagged else f"{held:,} of the flagged rows"
    yield (
        f"The list below holds {every} and a random sample of {shown - held:,} of the other "
        f"{total - flagged:,}. Counts and charts are of all rows."
    )


def _chart_notes(columns: Sequence[Column], *, whole: bool) -> Iterator[str]:
    if not whole:
        yield "Long texts and the lengths of answers have no charts in a job of this size."
    if len(columns) > _MAX_CHARTS:
        yield f"Charts are of the first {_MAX_CHARTS} of the {len(columns):,} columns."


# --- the rows -----------------------------------------------------------------------------------


def _rows(
    answers: Answers,
    judged: JobAnswers,
    columns: Sequence[Column],
    groups: npt.NDArray[np.int32],
    thumbs: _Thumbnails,
) -> Iterator[Row]:
    """Yield the page's rows; some of them are in memory at a time."""
    shown, said_by = answers.shown, verdicts(judged)
    scores = _scores(answers, judged)
    for start in range(0, len(shown), answers.at_once):
        chosen = shown[start : start + answers.at_once]
        part = replace(answers, frame=answers.whole_rows(chosen))
        # Prompts and images are read back only for the rows that the page holds.
        ids = _cells(part.said("custom_id"), len(chosen))
        prompts = _prompts(answers.folder, {i for i in ids if i is not None}, thumbs)
        values = [list(part.output.iloc[:, i]) for i in range(len(columns))]
        said = {name: _cells(part.said(what), len(chosen)) for name, what in _SAID.items()}
        histories, keys = _histories(part, chosen), part.keys
        for i, position in enumerate(chosen.tolist()):
            own = {name: cells[i] for name, cells in said.items()}
            cells = tuple(_shown(v[i], c.kind) for v, c in zip(values, columns, strict=True))
            prompt, images = prompts.get(ids[i], (None, ()))
            yield Row(
                key=keys[i],
                # Other rows have nulls in every column; None says that there is no answer.
                values=cells if own["status"] == "ok" else None,
                group=None if groups[position] < 0 else int(groups[position]),
                prompt=prompt,
                images=images,
                history=tuple(histories.get(position, ())),
                custom_id=ids[i],
                score=scores[start + i],
                verdicts=said_by.get(position, ()),
                **own | {"repaired": bool(own["repaired"])},
            )


def _scores(answers: Answers, judged: JobAnswers) -> list[float | None]:
    """Return the score of each row on the page: that of its least sure field."""
    rows, agreement = answers.shown, answers.said("agreement")
    if agreement is not None:
        # It is that share, and large jobs have it without the votes themselves.
        known = [agreement.iloc[rows].to_numpy(np.float64, na_value=np.nan)]
    else:
        each = [judged.scores(name, rows) for name in judged.fields]
        known = [scores for scores in each if scores is not None]
    if not known or not len(rows):
        return [None] * len(rows)
    return [None if np.isnan(score) else float(score) for score in np.min(np.stack(known), axis=0)]


_SAID = {
    "status": "status",
    "error": "error",
    "raw": "raw",
    "attempt": "attempt",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "cost_usd": "cost_usd",
    "model": "model",
    "finish_reason": "finish_reason",
    "repaired": "repaired",
}


def _cells(column: pd.Series | None, count: int) -> list[Any]:
    """Return a column's cells as Python objects, nulls as None."""
    if column is None:
        return [None] * count
    cells: list[Any] = column.astype(object).where(column.notna(), None).tolist()
    return cells


def _histories(part: Answers, chosen: Positions) -> dict[int, list[Mapping[str, Any]]]:
    """Map the position of each flagged row of a part to its earlier attempts."""
    folder = part.folder
    if folder.rounds() == 1:
        return {}
    statuses = part.frame[f"{folder.spec.name}_status"]
    flagged = chosen[statuses.isin([str(status) for status in FLAGGED]).to_numpy(dtype=np.bool_)]
    sidecar = folder.sidecar_rows(flagged, [*SIDECAR_ID_COLUMNS])
    # Rows that share a request have the slot of the first of them.
    ids = sidecar["custom_id"].combine_chunks()
    slots = pc.index_in(ids, value_set=ids).to_pylist()
    earlier = history(folder, part.reading, slots, sidecar)
    return dict(zip(flagged.tolist(), earlier, strict=True))


def _columns(answers: Answers) -> Iterator[Column]:
    """Yield the output columns, with their kinds by field and dtype."""
    spec, fields = answers.folder.spec, answers.reading.fields
    kinds = {column_name(spec, field): field.kind for field in fields}
    for name, column in answers.output.items():
        yield Column(str(name), _kind(column, kinds.get(str(name))))


def _kind(column: pd.Series, field_kind: str | None) -> str:
    """Name the kind of a column by its field or dtype, or by its cells."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return "bool"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "number"
    if column.dtype != object:
        return "text"
    # By the field where it says so: in the frame of a large job objects are null.
    cells = column.dropna()
    nested = field_kind == "object" or any(isinstance(c, dict | list | tuple) for c in cells)
    return "json" if nested else "text"


def _shown(value: Any, kind: str) -> Any:
    """Convert a cell to what the page shows: a number, a truth value or a text."""
    if isinstance(value, np.ndarray):
        some = ", ".join(f"{number:.4g}" for number in value[:6])
        return f"[{some}, ... {len(value):,} numbers]"
    if kind == "json" and value is not None:
        return json.dumps(value, ensure_ascii=False, default=str)
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if kind in {"number", "bool"}:
        return value.item() if isinstance(value, np.generic) else value
    return str(value)


# --- the prompts --------------------------------------------------------------------------------


_Prompts = tuple[Prompt, tuple[tuple[str, str], ...]]


def _prompts(folder: JobFolder, ids: set[str], thumbs: _Thumbnails) -> dict[str | None, _Prompts]:
    """Return the last prompt of each custom_id, and its images as thumbnails."""
    found: dict[str | None, _Prompts] = {}
    same: dict[str, str] = {}
    for custom_id, line in last_lines(folder, ids):
        prompt = read_prompt(json.loads(line)["body"])  # takes a lone surrogate
        # What all rows are told stands in memory once, however long and many they are.
        messages = tuple((role, same.setdefault(text, text)) for role, text in prompt.messages)
        found[custom_id] = Prompt(messages), tuple(map(thumbs.take, prompt.images))
    return found


@dataclass
class _Thumbnails:
    """Thumbnails of images, up to the limits of a page."""

    seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    characters: int = 0
    held: int = 0
    left_out: int = 0

    def take(self, url: str) -> tuple[str, str]:
        """Return an image for the page: ``src``, ``url`` or ``note``, and its text."""
        if not url.startswith("data:"):
            return "url", url
        # Keyed by a hash: the URL holds the whole image, and rows often share one.
        name = xxhash.xxh3_128_hexdigest(url.encode())
        if name not in self.seen:
            self.seen[name] = self._new(url)
        return self.seen[name]

    def _new(self, url: str) -> tuple[str, str]:
        full = self.held >= _MAX_IMAGES or self.characters >= _MAX_IMAGE_CHARACTERS
        small = None if full else thumbnail(url)
        if small is None:
            self.left_out += full
            return "note", f"image of {len(url) * 3 // 4:,} bytes, not in this page"
        self.held += 1
        self.characters += len(small)
        return "src", small

    def notes(self) -> Iterator[str]:
        """Yield a note on the images that were left out."""
        if self.left_out:
            yield f"{self.left_out:,} images are left out: the page holds {self.held:,} of them."


# --- the whole ----------------------------------------------------------------------------------


def _facts(folder: JobFolder) -> tuple[str, ...]:
    submitted = datetime.fromtimestamp(folder.created_at, UTC)
    rounds = folder.rounds()
    return (
        f"{folder.spec.model} through {folder.spec.provider}",
        f"submitted {_moment(submitted)}",
        *([f"{rounds} rounds"] if rounds > 1 else []),
        f"job {folder.id}",
    )


def _moment(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _figures(answers: Answers) -> Iterator[tuple[str, str]]:
    """Yield totals over all rows and rounds."""
    used = answers.used
    if used.requests:
        yield "Tokens in", f"{used.prompt_tokens:,}"
        yield "Tokens out", f"{used.completion_tokens:,}"
        yield "Cost", "not known" if used.usd is None else show_usd(used.usd)
    if used.reused:
        yield "Reused answers", f"{used.reused:,}"
    repaired = answers.said("repaired")
    if repaired is not None and repaired.fillna(False).any():
        yield "Mended before reading", f"{int(repaired.sum()):,}"
    attempts = answers.said("attempt")
    if attempts is not None and (attempts > 1).any():
        yield "Asked more than once", f"{int((attempts > 1).sum()):,}"


def _charts(answers: Answers, columns: Sequence[Column]) -> Iterator[Chart]:
    """Yield charts of the output columns, then of the answers' scores, lengths and costs."""
    output, usable = answers.output, answers.frame[f"{answers.folder.spec.name}_status"] == "ok"
    for i, column in enumerate(columns[:_MAX_CHARTS]):
        # A chart without the long texts would not be of all rows.
        if column.kind == "json" or column.name in answers.shortened:
            continue
        chart = chart_of(column.name, f"v{i}", output.iloc[:, i])
        nulls = int((usable & output.iloc[:, i].isna()).sum())
        if chart is not None:
            # Bars are of values, so their shares would pass for those of all usable rows.
            said = (chart.summary, f"{nulls:,} null" if nulls else "")
            yield replace(chart, summary=", ".join(filter(None, said)))
    raw = answers.said("raw") if answers.whole else None
    costs = answers.said("cost_usd")
    measures = [
        ("Confidence", "conf", answers.said("confidence")),
        ("Agreement of a row's answers", "conf", answers.said("agreement")),
        ("Answer length, characters", "len", None if raw is None else raw.str.len()),
        ("Tokens in, per row", "in", answers.said("prompt_tokens")),
        ("Tokens out, per row", "out", answers.said("completion_tokens")),
        # Nothing is known of the cost of answers that do not tell their tokens.
        (
            "Cost in USD, per row",
            "cost",
            costs if costs is not None and (costs > 0).any() else None,
        ),
    ]
    found = (number_chart(title, name, v) for title, name, v in measures if v is not None)
    yield from (chart for chart in found if chart is not None)

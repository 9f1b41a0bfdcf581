"""Build what a report shows from a job's folder and its answers."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xxhash

from frameenrich.answers.arrow_column import SHORT_BYTES, TAKEN_ROWS, Positions
from frameenrich.answers.output import Output
from frameenrich.atomic import named_file
from frameenrich.errors import InputError
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.lifecycle.last_requests import last_lines
from frameenrich.lifecycle.regenerate import history
from frameenrich.lifecycle.results import read_results
from frameenrich.lifecycle.usage import JobUsage
from frameenrich.model import FLAGGED
from frameenrich.pricing.money import show_usd
from frameenrich.rendering.readable import Prompt, read_prompt
from frameenrich.rendering.thumbnails import thumbnail
from frameenrich.report.charts import Chart, chart_of, number_chart
from frameenrich.report.checked import checks, drawn, verdicts
from frameenrich.report.linked_path import LinkedPath
from frameenrich.report.page import Column, Report, Row, grouped, page
from frameenrich.report.rightness import review_call, rights
from frameenrich.store.folder import JobFolder
from frameenrich.text import secret_forms, without_secrets

MAX_FLAGGED = 50_000
"""The most flagged rows that a page holds; nobody reads more of them."""


# Images are inlined as data: URLs, so their number and size bound the size of the one file.
_MAX_IMAGES = 1_000


_MAX_IMAGE_CHARACTERS = 24_000_000


_MAX_CHARTS = 12


_WRITTEN_CHARACTERS = 1_000_000


ALL_ROWS = 50_000
"""Of a job with more rows, long texts are read of the rows on the page only."""


_BYTES_AT_MOST = 4
"""The most bytes of a character in UTF-8."""


@dataclass(frozen=True)
class Answers:
    """The results of `Job.collect` (with ``usage=True``) and `Job.usage`.

    ``page`` are the rows that the page holds, at the positions ``shown``. Where the frame of all
    rows is not ``whole``, long texts are in the page's rows only.
    """

    folder: JobFolder
    frame: pd.DataFrame
    page: pd.DataFrame
    shown: Positions
    used: JobUsage
    reading: Output
    whole: bool = True

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
    text = page(report, version=version("frameenrich"), made_at=made_at)
    _write(Path(path), _without_keys(text, secrets))
    return LinkedPath(path)


def _write(path: Path, text: str) -> None:
    try:
        with named_file(path, private=True) as file:  # it holds rows, as the store does
            # In pieces: a second copy of a page of 40 MB is not needed.
            for start in range(0, len(text), _WRITTEN_CHARACTERS):
                file.write(text[start : start + _WRITTEN_CHARACTERS].encode())
    except OSError as error:
        raise InputError(
            f"The report cannot be written to {path}: {error.strerror}.",
            "Choose another file.",
            path=str(path),
        ) from None


def _without_keys(text: str, secrets: Iterable[str]) -> str:
    """Remove this process's API keys, which a server may have put in an answer."""
    # A server's error may repeat the key it refused, and a report is made to be passed on.
    known = [value for name, value in os.environ.items() if name.endswith("_API_KEY")]
    forms = {form for key in (*secrets, *known) for form in secret_forms(key)}
    longest_first: list[str] = sorted(forms, key=len, reverse=True)
    return without_secrets(text, longest_first)


def make_report(answers: Answers) -> Report:
    """Collect what the report shows."""
    folder, chosen = answers.folder, answers.shown.tolist()
    statuses, errors = (answers.frame[f"{folder.spec.name}_{n}"] for n in ("status", "error"))
    counts = {str(status): int(n) for status, n in statuses.value_counts().items()}
    reasons, groups = grouped(_in_blocks(statuses), _in_blocks(errors))
    # Objects are null in a short frame, so the page's cells are looked at, too.
    on_page = replace(answers, frame=answers.page).output.items()
    columns = tuple(
        Column(str(name), _kind(column, cells))
        for (name, column), (_, cells) in zip(answers.output.items(), on_page, strict=True)
    )
    thumbs = _Thumbnails()
    judged = JobAnswers(folder, answers.reading, answers.frame)
    shown = _rows(answers, judged, columns, chosen, thumbs)
    return Report(
        job=folder.id,
        name=folder.spec.name,
        facts=_facts(folder),
        figures=tuple(_figures(answers)),
        counts=counts,
        columns=columns,
        rows=shown,
        charts=tuple(_charts(answers, columns)),
        reasons=reasons,
        groups=[None if group < 0 else group for group in groups[answers.shown].tolist()],
        notes=(*_sample_notes(counts, shown, whole=answers.whole), *thumbs.notes()),
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


def _sample_notes(counts: Mapping[str, int], shown: Sequence[Row], *, whole: bool) -> Iterator[str]:
    total = sum(counts.values())
    if len(shown) == total:
        return
    flagged = sum(n for status, n in counts.items() if status in FLAGGED)
    held = sum(row.status in FLAGGED for row in shown)
    every = f"all {flagged:,} flagged rows" if held == flagged else f"{held:,} of the flagged rows"
    yield (
        f"The list below holds {every} and a random sample of {len(shown) - held:,} of the other "
        f"{total - flagged:,}. Counts and charts are of all rows."
    )
    if not whole:
        yield "Long texts and the lengths of answers have no charts in a job of this size."


# --- the rows -----------------------------------------------------------------------------------


def _rows(
    answers: Answers,
    judged: JobAnswers,
    columns: Sequence[Column],
    chosen: Sequence[int],
    thumbs: _Thumbnails,
) -> list[Row]:
    # Prompts and images are read back only for the rows that the page holds.
    part = replace(answers, frame=answers.page)
    ids = _cells(part.said("custom_id"), len(chosen))
    prompts = _prompts(answers.folder, {i for i in ids if i is not None}, thumbs)
    values = [list(part.output.iloc[:, i]) for i in range(len(columns))]
    said = {name: _cells(part.said(what), len(chosen)) for name, what in _SAID.items()}
    histories = _histories(part, chosen)
    keys, scores, said_by = part.keys, _scores(judged, chosen), verdicts(judged)
    rows = []
    for i, position in enumerate(chosen):
        own = {name: cells[i] for name, cells in said.items()}
        cells = tuple(_shown(v[i], c.kind) for v, c in zip(values, columns, strict=True))
        prompt, images = prompts.get(ids[i], (None, ()))
        rows.append(
            Row(
                key=keys[i],
                # Other rows have nulls in every column; None says that there is no answer.
                values=cells if own["status"] == "ok" else None,
                prompt=prompt,
                images=images,
                history=tuple(histories.get(position, ())),
                custom_id=ids[i],
                score=scores[i],
                verdicts=said_by.get(position, ()),
                **own | {"repaired": bool(own["repaired"])},
            )
        )
    return rows


def _scores(judged: JobAnswers, chosen: Sequence[int]) -> list[float | None]:
    """Return each row's score: that of its least sure field."""
    rows = np.array(chosen, np.int64)
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


def _histories(part: Answers, chosen: Sequence[int]) -> dict[int, list[Mapping[str, Any]]]:
    """Map the position of each flagged row on the page to its earlier attempts."""
    statuses = part.frame[f"{part.folder.spec.name}_status"]
    if part.folder.rounds() == 1:
        return {}
    flagged = np.array([i for i, s in zip(chosen, statuses, strict=True) if s in FLAGGED], np.int64)
    slots = read_results(part.folder, part.reading, values="none").at(flagged)
    earlier = history(part.folder, part.reading, slots.tolist())
    return dict(zip(flagged.tolist(), earlier, strict=True))


def _kind(column: pd.Series, some: pd.Series) -> str:
    """Name the kind of a column by its dtype, or by its cells and `some` that are whole."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return "bool"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "number"
    cells = chain(column.dropna(), some.dropna()) if column.dtype == object else ()
    plain = not any(isinstance(cell, dict | list | tuple) for cell in cells)
    return "text" if plain else "json"


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
        yield from [("Cost", show_usd(used.usd))] if used.usd is not None else []
    if used.reused:
        yield "Reused answers", f"{used.reused:,}"
    repaired = answers.said("repaired")
    if repaired is not None and repaired.fillna(False).any():
        yield "Mended before reading", f"{int(repaired.sum()):,}"
    attempts = answers.said("attempt")
    if attempts is not None and (attempts > 1).any():
        yield "Asked more than once", f"{int((attempts > 1).sum()):,}"


def _has_long(name: Hashable, *frames: pd.DataFrame) -> bool:
    """Tell whether texts of a column were dropped for their length, by those that are known."""
    texts = [frame[name].dropna() for frame in frames]
    return any(
        isinstance(own.dtype, pd.StringDtype)
        and bool((own.str.len() * _BYTES_AT_MOST > SHORT_BYTES).any())
        for own in texts
    )


def _charts(answers: Answers, columns: Sequence[Column]) -> Iterator[Chart]:
    """Yield charts of the output columns, then of the answers' scores, lengths and costs."""
    output = answers.output
    wanted_charts = [
        chart_of(column.name, f"v{i}", output.iloc[:, i])
        for i, column in enumerate(columns[:_MAX_CHARTS])
        if column.kind != "json"
        and (answers.whole or not _has_long(output.columns[i], answers.page, output))
    ]
    raw = answers.said("raw") if answers.whole else None
    measures = [
        ("Confidence", "conf", answers.said("confidence")),
        ("Agreement of a row's answers", "conf", answers.said("agreement")),
        ("Answer length, characters", "len", None if raw is None else raw.str.len()),
        ("Tokens in, per row", "in", answers.said("prompt_tokens")),
        ("Tokens out, per row", "out", answers.said("completion_tokens")),
        ("Cost in USD, per row", "cost", answers.said("cost_usd")),
    ]
    wanted_charts += [number_chart(title, name, v) for title, name, v in measures if v is not None]
    yield from (chart for chart in wanted_charts if chart is not None)

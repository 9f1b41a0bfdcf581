"""Promise 12 in any order of things: corrections are kept and counted, or replaced on request."""

from __future__ import annotations

import io
import json
import re
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from frameenrich.errors import FrameEnrichError, FrameEnrichWarning

TITLES, SKUS = ["mug", "cup", "pan"], ["x1", "x2", "x3"]
FIELDS = {"colour": str, "width": int}
COLOURS, WIDTHS = ["red", "blue", "007", "tan "], [3, 7, 40]
CELLS = st.tuples(st.just("colour"), st.sampled_from([*COLOURS, "by hand", None])) | st.tuples(
    st.just("width"), st.sampled_from([*WIDTHS, 99, None])
)
ANSWER = st.fixed_dictionaries(
    {"colour": st.sampled_from(COLOURS), "width": st.sampled_from(WIDTHS)}
) | st.just("no JSON")
STEPS = st.one_of(
    st.tuples(st.just("answer"), st.lists(ANSWER, min_size=1, max_size=3)),
    st.tuples(st.just("edit"), st.tuples(st.integers(0, 2), CELLS)),
    st.tuples(st.just("collect"), st.booleans()),
    st.tuples(st.just("regenerate"), st.none()),
    st.tuples(st.just("file"), st.sampled_from(["csv", "parquet", "excel"])),
    st.tuples(st.just("rows"), st.sampled_from(["reversed", "filtered", "twice", "merged"])),
    st.tuples(st.just("older"), st.none()),
)


@dataclass
class Notebook:
    """A frame as somebody works on it, and what should be in it: the rule, written again."""

    store: Path
    frame: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({"sku": SKUS, "title": TITLES})
    )
    said: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: {0: [], 1: [], 2: []})
    """Every whole answer of each row."""

    def __post_init__(self) -> None:
        self.ask: dict[str, Any] = {"store": self.store}
        self.job = self.frame.llmbatch.submit(
            "{{ title }}?", "m", response_model=FIELDS, provider="file", key="sku", **self.ask
        )

    def answer(self, answers: list[Any]) -> None:
        """Import responses to some of the requests that wait, in their order."""
        waiting = self.job.collect()["llmbatch_status"].eq("pending").sum()
        lines = [line for path in self.job.requests for line in Path(path).read_text().splitlines()]
        lines = lines[len(lines) - int(waiting) :]
        path = self.store / "responses.jsonl"
        with path.open("w") as file:
            for line, answer in zip(lines, answers, strict=False):
                request = json.loads(line)
                row = next(n for n, t in enumerate(TITLES) if f'"{t}?"' in line)
                content = answer if isinstance(answer, str) else json.dumps(answer)
                message = {"role": "assistant", "content": content}
                body = {
                    "model": "m",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                }
                response = {"status_code": 200, "body": body}
                reply = {"custom_id": request["custom_id"], "response": response, "error": None}
                file.write(json.dumps(reply) + "\n")
                if isinstance(answer, dict):
                    self.said[row].append(answer)
        if path.stat().st_size:
            self.job.import_responses(path)

    def edit(self, how: tuple[int, tuple[str, Any]]) -> None:
        """Write into a cell of an answer, as a person does."""
        row, (column, value) = how
        if column in self.frame.columns and row < len(self.frame):
            self.frame[column] = self.frame[column].astype(object)
            self.frame.loc[self.frame.index[row], column] = value

    def file(self, form: str) -> None:
        """Save the frame and read it again."""
        if form == "csv":
            self.frame = pd.read_csv(io.StringIO(self.frame.to_csv(index=False)))
        elif form == "excel":
            book = io.BytesIO()
            self.frame.to_excel(book, index=False)
            self.frame = pd.read_excel(book, engine="openpyxl")
        else:
            file = io.BytesIO()
            self.frame.infer_objects().to_parquet(file)
            self.frame = pd.read_parquet(file)

    def rows(self, how: str) -> None:
        """Sort, filter, repeat or merge the rows, as people do between two collects."""
        frame = self.frame
        if how == "reversed":
            frame = frame.iloc[::-1]
        elif how == "filtered" and len(frame) > 1:
            frame = frame.iloc[1:]
        elif how == "twice" and len(frame) == len(TITLES):
            frame = pd.concat([frame, frame.iloc[:1]])
        elif how == "merged" and "shelf" not in frame:
            frame = frame.merge(pd.DataFrame({"sku": SKUS, "shelf": [1, 2, 3]}), on="sku")
        self.frame = frame.reset_index(drop=True)

    def older(self, _: None) -> None:
        """Ask another question under the same name before: a job whose answers are nobody's."""
        for name in ("llmbatch", "other"):
            whole = pd.DataFrame({"sku": SKUS, "title": TITLES})
            whole.llmbatch.submit(
                "Older: {{ title }}?",
                "m",
                response_model=FIELDS,
                prefix="" if name == "llmbatch" else "other_",
                name=name,
                provider="file",
                key="sku",
                **self.ask,
            )

    def regenerate(self, _: None) -> None:
        """Ask what is flagged again, but for what somebody filled in."""
        with warnings.catch_warnings(action="ignore", category=FrameEnrichWarning):
            try:
                self.frame.llmbatch.regenerate(self.job, **self.ask)
            except FrameEnrichError:
                assert self.job.collect()["llmbatch_status"].isin(["ok", "pending"]).any()

    def collect(self, overwrite: bool) -> None:
        """Collect, and compare each cell and the number in the warning with the rule."""
        before = self.frame
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.frame = before.llmbatch.collect(self.job, overwrite=overwrite, **self.ask)
        status, kept = self.frame["llmbatch_status"].tolist(), 0
        assert self.frame["sku"].tolist() == before["sku"].tolist()
        for row, sku in enumerate(self.frame["sku"]):
            asked = SKUS.index(sku)
            for column in FIELDS:
                cell = before[column].iloc[row] if column in before else None
                own = not pd.isna(cell) and not self.is_answer(asked, column, cell)
                own = own and not overwrite
                kept += own
                wanted = self.said[asked][-1][column] if status[row] == "ok" else None
                now = self.frame[column].iloc[row]
                same = pd.isna(now) if wanted is None else is_same(now, wanted)
                assert is_same(now, cell) if own else same, (row, column, cell, now, wanted)
        counts = [re.match(r"([\d,]+) cells? of ", str(each.message)) for each in told]
        assert [int(each[1]) for each in counts if each] == [kept] * (kept > 0)

    def is_answer(self, row: int, column: str, cell: Any) -> bool:
        """Tell whether some answer said what a cell holds, whatever a file made of it."""
        return any(is_same(cell, answer[column]) for answer in self.said[row])


def is_same(cell: Any, answer: Any) -> bool:
    """Compare as a file does: 007 in a column of numbers is 7, and 3 may have become 3.0."""
    if cell is None or pd.isna(cell):
        return False
    if str(cell) == str(answer):
        return True
    try:
        return float(cell) == float(answer)
    except ValueError:
        return False


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(STEPS, min_size=4, max_size=9))
@example(
    [
        ("answer", [{"colour": "red", "width": 3}, "no JSON", {"colour": "blue", "width": 7}]),
        ("collect", False),
        ("edit", (0, ("colour", "by hand"))),
        ("edit", (1, ("width", 99))),  # a flagged row's: no answer said it, so it is theirs
        ("file", "csv"),
        ("collect", False),
        ("regenerate", None),
        ("collect", False),
        ("collect", True),
    ]
)
@example(
    [
        ("answer", ["no JSON", "no JSON", "no JSON"]),
        ("collect", False),
        ("edit", (2, ("colour", "by hand"))),
        ("regenerate", None),
        ("answer", [{"colour": "007", "width": 40}]),
        ("older", None),
        ("rows", "reversed"),
        ("collect", False),
        ("edit", (0, ("width", 99))),
        ("rows", "twice"),
        ("file", "excel"),
        ("rows", "merged"),
        ("collect", False),
        ("rows", "filtered"),
        ("file", "parquet"),
        ("answer", [{"colour": "tan ", "width": 3}]),
        ("collect", False),
    ]
)
def test_corrections_are_kept_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    """Over answers that come in parts, rounds, files and repeated collects."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = Notebook(Path(folder))
        for name, argument in [*steps, ("collect", False), ("collect", True)]:
            getattr(notebook, name)(argument)

"""Two jobs over the same rows, compared; and the command line's `evaluate` and `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reviews import LABELS, answered, goods
from typer.testing import CliRunner

from frameenrich.cli.main import app
from frameenrich.errors import InputError


def test_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agreement counts rows by key, churn names what changed, and the command says the same."""
    monkeypatch.setattr("frameenrich.evaluation.compare._ROWS_AT_ONCE", 7)
    frame, labels = goods({"Kitchen": 20, "Garden": 10})
    other = ["Toys" if i < 6 else label for i, label in enumerate(labels)]
    one = answered(frame, labels, tmp_path, labels=LABELS)
    two = answered(
        frame[::-1], other[::-1], tmp_path, "And {{ title }}?", labels=LABELS, name="second"
    )
    made = one.compare(two)

    assert made.agreement.estimate == 0.8
    assert made.agreement.n == 30
    assert made.changed["other"].tolist() == ["Toys"] * 6
    assert made.changed["sku"].tolist() == frame.index[:6].tolist()
    assert made.churn["llmbatch"].to_numpy().sum() == 30
    assert "80 %" in made._repr_html_()
    assert one.compare(two.id).to_dict() == one.compare("second").to_dict() == made.to_dict()
    assert "<th>field</th>" not in one.compare(one)._repr_html_()  # headings over no rows
    ran = CliRunner().invoke(app, ["compare", one.id, two.id, "--store", str(tmp_path), "--json"])
    assert json.loads(ran.output) == made.to_dict()


@pytest.mark.parametrize("key", ["field", "one", "other"])
def test_a_key_called_like_a_column_of_the_comparison_is_kept(key: str, tmp_path: Path) -> None:
    """Which rows differ is told, whatever their key is called."""
    frame = pd.DataFrame({"title": ["a", "b"], key: ["k1", "k2"]})
    options: dict[str, Any] = {"labels": LABELS, "key": key}
    one = answered(frame, ["Toys", "Toys"], tmp_path, **options)
    two = answered(frame, ["Toys", "Garden"], tmp_path, "And {{ title }}?", name="b", **options)

    changed = one.compare(two).changed

    assert list(changed.columns) == [f"key {key}", "field", "one", "other"]
    assert changed[f"key {key}"].tolist() == ["k2"]


NUMBERS = {"type": "number"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("outputs", "answers", "agree"),
    [
        (NUMBERS, ([1.0, 2.5, 1e16], [1, 2, 10**16]), [True, False, True]),
        (
            ({"type": "array", "items": {"type": "number"}},
             {"type": "array", "items": {"type": "integer"}}),
            ([[1.0, 2.0], [1.0]], [[1, 2], [2]]),
            [True, False],
        ),
        (
            ({"enum": ["Red", "Dark blue"]}, {"enum": ["red", "dark  blue", "green"]}),
            (["Red", "Dark blue"], ["red", "green"]),
            [True, False],
        ),
        (({"type": ["string", "null"]},) * 2, (["null", None], [None, None]), [False, True]),
    ],
)  # fmt: skip
def test_answers_are_compared_by_value(
    tmp_path: Path, outputs: Any, answers: Any, agree: list[bool]
) -> None:
    """Promise 13: 1.0 and 1, or two cases of a label, are one answer; null and "null" are not."""
    frame = goods({"Kitchen": len(agree)})[0]
    jobs = [
        answered(
            frame, [{"it": value} for value in values], tmp_path, name=name,
            response_model={"type": "object", "properties": {"it": output}, "required": ["it"]},
        )
        for name, output, values in zip(("one", "two"), outputs, answers, strict=True)
    ]  # fmt: skip
    made = jobs[0].compare(jobs[1])

    assert len(made.changed) == agree.count(False)
    assert made.agreement.estimate == agree.count(True) / len(agree)


def test_nothing_in_common(tmp_path: Path) -> None:
    """Jobs of other rows are refused in a sentence, not compared by position."""
    frame, labels = goods({"Kitchen": 3})
    one = answered(frame, labels, tmp_path, labels=LABELS)
    moved = frame.set_axis(["x", "y", "z"]).rename_axis("sku")
    two = answered(moved, labels, tmp_path, labels=LABELS, name="second")

    with pytest.raises(InputError, match="No row is usable in both"):
        one.compare(two)


def test_evaluate_command(tmp_path: Path) -> None:
    """`frameenrich evaluate` reads the truth from a file, and prints what Python gives."""
    frame, labels = goods({"Kitchen": 8, "Garden": 4})
    keyed = frame.reset_index()
    job = answered(keyed, labels, tmp_path, labels=LABELS, key="sku")
    keyed["truth"] = ["Toys", *labels[1:]]
    keyed.to_csv(tmp_path / "truth.csv", index=False)
    arguments = ["evaluate", job.id, "--store", str(tmp_path), "--truth", "truth"]
    ran = CliRunner().invoke(app, [*arguments, "--in", str(tmp_path / "truth.csv"), "--json"])
    half = CliRunner().invoke(app, arguments)

    again = job.evaluate(pd.read_csv(tmp_path / "truth.csv"), truth="truth")
    assert json.loads(ran.output) == json.loads(json.dumps(again.to_dict()))
    assert half.exit_code == 2

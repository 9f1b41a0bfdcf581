"""Two jobs over the same rows, compared; and the command line's `evaluate` and `compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from reviews import LABELS, answered, goods
from typer.testing import CliRunner

from frameenrich.cli.main import app
from frameenrich.errors import InputError


def test_compare(tmp_path: Path) -> None:
    """Agreement counts rows by key, churn names what changed, and the command says the same."""
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
    ran = CliRunner().invoke(app, ["compare", one.id, two.id, "--store", str(tmp_path), "--json"])
    assert json.loads(ran.output) == made.to_dict()


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

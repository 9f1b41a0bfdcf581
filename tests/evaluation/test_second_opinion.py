"""Second opinions, the scores that they and votes give, and rows that a threshold accepts."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from reviews import LABELS, answered, goods
from typer.testing import CliRunner

from frameenrich.cli.main import app
from frameenrich.errors import FrameEnrichWarning, InputError, ParameterError
from frameenrich.providers.file import FileProvider
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.find import open_job
from frameenrich.verbs.job import Job

ASK = "Where is {{ title }}?"


class _DeepSeeksFile(FileProvider):
    """Requests for a server that takes no schema, carried there by hand."""

    server = "api.deepseek.com"


def judged(job: Job, folder: Path, truth: dict[str, str], **drawing: Any) -> None:
    """Review rows of a job, each judged as the truth of its key says."""
    path = job.review(**drawing).to_csv(folder / "sheet.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([row | {"correct": truth[row["sku"]]} for row in rows])
    job.add_review(path)


def says(body: Any, _: str) -> Reply:
    """Answer by the model's name: "b" takes every fourth thing to the garden."""
    number = int(body["messages"][-1]["content"].split()[-1].rstrip("?"))
    garden = number % 2 == 1 or (body["model"] == "b" and number % 4 == 0)
    return Reply(content=json.dumps({"label": "Garden" if garden else "Kitchen"}))


@pytest.fixture
def things(server: BatchServer, provider: OpenAIBatch, store: Path) -> tuple[pd.DataFrame, Job]:
    """Return 40 rows, and their job with the model "a"."""
    server.answer = says
    frame, _ = goods({"Kitchen": 40})
    job = frame.llmbatch.submit(ASK, "a", labels=LABELS, provider=provider, store=store)
    return frame, job.wait(poll_seconds=0.01)


def test_a_second_opinion_asks_the_same_rows_of_another_model(
    server: BatchServer, provider: OpenAIBatch, store: Path, things: tuple[pd.DataFrame, Job]
) -> None:
    """Same rows, same words; its own job, found again; `compare` says where the two differ."""
    frame, job = things
    two = job.second_opinion("b", provider).wait(poll_seconds=0.01)
    diff = job.compare(two)

    assert (two.spec.model, two.spec.name) == ("b", "llmbatch_second")
    assert (diff.agreement.estimate, diff.agreement.n) == (0.75, 40)
    assert diff.changed["one"].tolist() == ["Kitchen"] * 10
    assert two.collect(frame)["llmbatch_second"].notna().all()
    assert job.second_opinion("b", provider).id == two.id
    assert len(server.batches) == 2
    # The frame's own job stays the one that is meant where nobody names one.
    assert frame.llmbatch.job(store=store).id == job.id
    # And what the other model answered is not asked again.
    again = frame.llmbatch.submit(ASK, "b", labels=LABELS, provider=provider, store=store)
    assert (again.reused, len(server.batches)) == (40, 2)


def test_some_rows_are_drawn_at_random(
    provider: OpenAIBatch, things: tuple[pd.DataFrame, Job]
) -> None:
    """`n=` draws so many of the usable rows, the same ones each time."""
    _, job = things
    two = job.second_opinion("b", provider, n=12).wait(poll_seconds=0.01)

    assert len(two.collect()) == 12
    assert job.second_opinion("b", provider, n=12).id == two.id
    assert job.second_opinion("b", provider, n=12, seed=1).id != two.id
    assert job.compare(two).agreement.n == 12


def test_parameters_may_differ_and_images_go_along(store: Path) -> None:
    """`params=` changes what the other model refuses; image requests go as they were."""
    frame = pd.DataFrame({"title": ["mug"], "photo": ["https://example.org/a.png"]})
    job = frame.llmbatch.submit(
        ASK, "a", image="photo", params={"temperature": 0.1}, provider="file", store=store
    )
    two = job.second_opinion("b", params={"temperature": 1})
    first, second = (json.loads(Path(j.requests[0]).read_text())["body"] for j in (job, two))

    assert second == first | {"model": "b", "temperature": 1}
    third = pd.DataFrame({"title": ["mug"]}).llmbatch.submit(ASK, "a", provider="file", store=store)
    with pytest.raises(ParameterError, match="gave the first opinion"):
        third.second_opinion("a")
    with pytest.raises(ParameterError, match="model= is empty"):
        third.second_opinion("")
    with pytest.raises(InputError, match="no usable row"):
        third.second_opinion("b", n=3)
    with pytest.raises(ParameterError, match="n=0 rows"):
        third.second_opinion("b", n=0)


def test_another_server_is_asked_in_its_own_way(store: Path) -> None:
    """A model that takes no schema is told it in words, and its job still knows the frame."""
    frame = pd.DataFrame({"title": ["mug", "hose"]})
    first = frame.llmbatch.submit(
        ASK, "a", system="Sort.", labels=LABELS, provider="file", store=store
    )
    two = first.second_opinion("deepseek-chat", _DeepSeeksFile())
    one, other = (json.loads(Path(j.requests[0]).read_text().splitlines()[0]) for j in (first, two))

    assert one["body"]["messages"][0]["content"] == "Sort."
    assert other["body"]["response_format"] == {"type": "json_object"}
    assert other["body"]["messages"][0]["content"].startswith("Sort.\n\nAnswer in json")
    assert len(two.collect(frame)) == 2


def mostly_garden(frame: pd.DataFrame) -> dict[Any, str]:
    """Give each row the label that two models agree on more often than they are wrong."""
    return {
        key: "Garden" if i % 2 or i % 4 == 0 else "Kitchen" for i, key in enumerate(frame.index)
    }


def test_agreement_with_a_second_opinion_is_the_score(
    provider: OpenAIBatch, tmp_path: Path, things: tuple[pd.DataFrame, Job]
) -> None:
    """Rows on which two models agree are right more often: a threshold accepts them."""
    frame, job = things
    truth = mostly_garden(frame)
    with pytest.raises(InputError, match="has been reviewed"):
        job.collect(frame, accept=0.8)
    judged(job, tmp_path, truth, n=40)
    with pytest.raises(InputError, match="Nothing says how sure the answers"):
        job.collect(frame, accept=0.8)
    job.second_opinion("b", provider).wait(poll_seconds=0.01)

    check = job.evaluate()
    out = job.collect(frame.sample(frac=1, random_state=3), accept=0.9)

    assert check.accuracy.estimate == 0.75
    assert check.calibration is not None
    assert check.calibration.auroc == 1
    assert job.answers_to_judge().score_sources == {"llmbatch": "agreement with b"}
    assert out["llmbatch_accept"].sum() == 30
    assert out.loc[out["llmbatch_accept"], "llmbatch_score"].eq(1).all()
    assert out["llmbatch_accept"].dtype == "boolean"
    assert list(out.columns)[-2:] == ["llmbatch_score", "llmbatch_accept"]
    right = out["llmbatch"].astype(object) == out.index.map(truth)
    assert right[out["llmbatch_accept"]].all()
    part = pd.concat([frame.head(2), pd.DataFrame({"title": ["new"]}, index=["X"])])
    part.index.name = "sku"
    assert job.collect(part, accept=0.9)["llmbatch_accept"].isna().tolist() == [False, False, True]
    out.to_parquet(tmp_path / "out.parquet")
    again = pd.read_parquet(tmp_path / "out.parquet").llmbatch.collect(job, accept=0.9)
    pd.testing.assert_frame_equal(again, out)


def test_without_a_promise_no_row_is_accepted(
    provider: OpenAIBatch, tmp_path: Path, things: tuple[pd.DataFrame, Job]
) -> None:
    """No number where there is none: three reviewed rows promise nothing, and it is said."""
    frame, job = things
    job.second_opinion("b", provider).wait(poll_seconds=0.01)
    judged(job, tmp_path, dict.fromkeys(frame.index, "Kitchen"), n=3)

    with pytest.warns(FrameEnrichWarning, match="No row is accepted. No threshold can be promised"):
        out = job.collect(frame, accept=0.95)
    assert not out["llmbatch_accept"].any()
    for share in (0, 1, 1.5, True, "0.9"):
        with pytest.raises(ParameterError, match="is not a share"):
            job.collect(frame, accept=share)  # type: ignore[arg-type]


def test_votes_are_scores_of_every_field(
    server: BatchServer, provider: OpenAIBatch, store: Path, tmp_path: Path
) -> None:
    """`samples=`: each field's share of votes is its score; a row is as sure as its least field."""
    frame, _ = goods({"Kitchen": 60})
    chance = np.random.default_rng(4)
    split = chance.random((60, 2)) < 0.4

    def answer(body: Any, _: str) -> Reply:
        row = int(body["messages"][-1]["content"].split()[-1].rstrip("?"))
        made = [
            {"room": "b" if split[row, 0] and i == 0 else "a", "new": not (split[row, 1] and i < 2)}
            for i in range(4)
        ]
        texts = [json.dumps(each) for each in made]
        return Reply(content=texts[0], others=tuple(texts[1:]))

    server.answer = answer
    job = frame.llmbatch.submit(
        ASK, "m", response_model={"room": str, "new": bool}, samples=4,
        provider=provider, store=store,
    ).wait(poll_seconds=0.01)  # fmt: skip
    answers = job.answers_to_judge()
    rows = np.arange(60)
    room, new = answers.scores("room", rows), answers.scores("new", rows)

    assert room is not None
    assert new is not None
    assert np.array_equal(room, np.where(split[:, 0], 0.75, 1.0))
    assert np.array_equal(new, np.where(split[:, 1], 0.5, 1.0))
    assert answers.score_sources["room"] == "the share of 4 answers that agree"
    out = job.collect(frame)
    assert np.array_equal(out["llmbatch_agreement"].to_numpy(float), np.minimum(room, new))


def test_the_command_line_asks_and_compares(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`second-opinion JOB --model M` prints the new job's id, which `compare` takes."""
    frame, labels = goods({"Kitchen": 6, "Garden": 3})
    job = answered(frame, labels, store, labels=LABELS)
    monkeypatch.chdir(tmp_path)
    run, where = CliRunner().invoke, ["--store", str(store)]
    made = run(app, ["second-opinion", job.id, "--model", "b", "--n", "4", "--json", *where])
    again = run(app, ["second-opinion", job.id, "-m", "b", "--n", "4", *where])
    same = run(app, ["second-opinion", job.id, "-m", "m", *where])

    assert made.exit_code == 0
    assert json.loads(made.stdout)["job"] == again.stdout.strip()
    assert len(open_job(again.stdout.strip(), store).collect()) == 4
    assert (same.exit_code, "gave the first opinion" in same.stderr) == (2, True)


def test_parts_are_accepted_as_the_whole_is(
    provider: OpenAIBatch, tmp_path: Path, things: tuple[pd.DataFrame, Job]
) -> None:
    """Promise 1: the rows of a part, in any process, have the whole frame's scores."""
    frame, job = things
    truth = mostly_garden(frame)
    judged(job, tmp_path, truth, n=40)
    job.second_opinion("b", provider).wait(poll_seconds=0.01)
    whole = job.collect(frame, accept=0.9)
    collector = pickle.loads(pickle.dumps(job.collector(accept=0.9)))

    strange = pd.DataFrame({"title": ["new"]}, index=pd.Index(["X"], name="sku"))
    parts = [collector(frame.iloc[at : at + 9]) for at in range(0, len(frame), 9)]
    pd.testing.assert_frame_equal(pd.concat(parts), whole)
    assert collector(strange)["llmbatch_accept"].isna().all()
    assert collector.empty_result(frame).dtypes.equals(whole.dtypes)

"""``ddf.llmbatch`` on a real cluster: two worker processes, which are killed; one paying client."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.base
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from conftest import tagged
from distributed import Client, LocalCluster, wait
from pydantic import BaseModel

import frameenrich.dask  # noqa: F401 - registers ddf.llmbatch
from frameenrich.errors import (
    FrameEnrichWarning,
    FrameMismatchError,
    InputError,
    JobNotFoundError,
    NullValueError,
    OutputError,
    RowKeyError,
)
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.xdist_group("dask")  # one cluster, not one for each process of the tests

TEMPLATE = "Which department sells {{ title }}?"
LABELS = ["Kitchen", "Garden", "Clothing", "Electronics", "Toys"]
MEMORY_BYTES = 450_000_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Two worker processes that may take 450 MB each."""
    with (
        dask.config.set({"distributed.worker.daemon": True}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            memory_limit=MEMORY_BYTES,
            local_directory=str(tmp_path_factory.mktemp("dask")),
            silence_logs=50,
        ) as made,
        Client(made) as client,
    ):
        yield client


def catalogue(rows: int) -> pd.DataFrame:
    """Products with an index that rises, half of whose titles stand twice."""
    titles = [f"thing {n % max(rows * 3 // 4, 1)}" for n in range(rows)]
    return pd.DataFrame({"title": titles, "n": range(rows)}, index=range(100, 100 + rows))


def test_submit_and_collect_are_those_of_pandas(
    cluster: Client, provider: OpenAIBatch, server: BatchServer, store: Path
) -> None:
    """The same id, each request paid once, the same columns, dtypes and divisions, lazily."""
    frame = catalogue(40)
    ddf = dd.from_pandas(frame, npartitions=4)

    job = ddf.llmbatch.submit(TEMPLATE, "m", labels=LABELS, provider=provider, store=store)
    out = ddf.llmbatch.collect(job, wait=True, poll_seconds=0.01)

    assert len(job.requests) == 1  # small partitions share a file
    assert set(server.executed.values()) == {1}
    assert len(server.executed) == 30
    assert out.divisions == ddf.divisions
    whole = frame.llmbatch.submit(TEMPLATE, "m", labels=LABELS, provider=provider, store=store)
    assert whole.id == job.id
    expected = frame.astype(ddf.dtypes.to_dict()).llmbatch.collect(whole)
    found = out.compute()
    pd.testing.assert_frame_equal(found, expected)
    assert out.dtypes.to_dict() == expected.dtypes.to_dict()
    assert list(out["llmbatch"].cat.categories) == LABELS
    assert out["llmbatch_status"].eq("ok").all().compute()
    part = ddf[ddf["n"] % 3 == 0].llmbatch.collect(store=store)  # found by its rows
    pd.testing.assert_frame_equal(part.compute(), expected[expected["n"] % 3 == 0])


def eventually_is_empty(store: Path) -> bool:
    """Whether all drafts of a store vanish within some seconds, and no job is there."""
    for _ in range(100):
        if {path.name for path in store.iterdir()} <= {".gitignore", ".lock"}:
            return True
        time.sleep(0.1)
    return False


class Maker:
    """Makes partitions; the first time that it makes one of them, its process is killed."""

    def __init__(self, rows: int, deadly: int, marker: Path) -> None:
        self.rows, self.deadly, self.marker = rows, deadly, marker

    def __call__(self, number: int) -> pd.DataFrame:
        """The partition of a number."""
        if number == self.deadly and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        start = number * self.rows
        rows = range(start, start + self.rows)
        return pd.DataFrame({"title": [f"thing {n}" for n in rows]}, index=rows)


class DeadlyParser:
    """Reads an answer; the first time that it reads one of them, its process is killed."""

    def __init__(self, deadly: str, marker: Path) -> None:
        self.deadly, self.marker = deadly, marker

    def __call__(self, text: str) -> dict[str, Any]:
        """The answer and its length."""
        if self.deadly in text and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"said": text, "length": len(text)}


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(
    cluster: Client, provider: OpenAIBatch, server: BatchServer, store: Path, tmp_path: Path
) -> None:
    """SIGKILL in submit and in collect: another goes on, nothing is paid twice or missing."""
    meta = pd.DataFrame({"title": pd.Series(dtype="str")}, index=pd.RangeIndex(0))
    deadly = tmp_path / "submit"
    ddf = dd.from_map(Maker(5, 5, deadly), range(8), meta=meta)

    job = ddf.llmbatch.submit(TEMPLATE, "m", provider=provider, store=store)

    assert deadly.exists()
    frame = pd.concat([Maker(5, 5, deadly)(n) for n in range(8)])
    assert frame.llmbatch.submit(TEMPLATE, "m", provider=provider, store=store).id == job.id
    assert [path.name for path in store.glob(".frameenrich-draft-*")] == []
    job.wait(poll_seconds=0.01)
    assert server.executed == {f"row-{n}": 1 for n in range(40)}
    deadly = tmp_path / "collect"
    parser = DeadlyParser("thing 33", deadly)
    out = ddf.llmbatch.collect(job, parser=parser).compute()

    assert deadly.exists()
    said = [f"echo: Which department sells thing {n}?" for n in range(40)]
    assert out["said"].tolist() == said
    assert out["length"].tolist() == list(map(len, said))
    assert out.index.tolist() == list(range(40))
    assert server.executed == {f"row-{n}": 1 for n in range(40)}


def wide(number: int) -> pd.DataFrame:
    """A partition of 12 MB, most of it in a column that no template uses."""
    rows = range(number * 120, number * 120 + 120)
    blob = np.random.default_rng(number).bytes(50_000).hex()
    return pd.DataFrame(
        {"title": [f"thing {n}" for n in rows], "page": [blob] * 120}, index=rows
    ).assign(page=lambda frame: frame["page"] + frame["title"])


@pytest.mark.slow
def test_a_frame_larger_than_a_worker_may_be(cluster: Client, store: Path) -> None:
    """924 MB of rows through two workers of 450 MB; none has to be restarted for it."""
    meta = wide(0).iloc[:0]
    ddf = dd.from_map(wide, range(77), meta=meta)
    before = sorted(cluster.run(os.getpid).values())

    job = ddf.llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
    out = ddf.llmbatch.collect(job)

    sizes, statuses = dask.compute(out["page"].str.len().sum(), out["llmbatch_status"].unique())
    assert sizes > 2 * MEMORY_BYTES  # what both may have
    assert list(statuses) == ["pending"]
    assert sorted(cluster.run(os.getpid).values()) == before


def test_regenerate_then_collect(
    cluster: Client, provider: OpenAIBatch, server: BatchServer, store: Path
) -> None:
    """Flagged rows are seen, asked again from the client, and collected with their partition."""
    frame = catalogue(12).drop_duplicates("title")
    ddf = dd.from_pandas(frame, npartitions=3)
    server.faults.add("empty", where=["row-104"])
    job = ddf.llmbatch.submit(TEMPLATE, "m", provider=provider, store=store)
    job.wait(poll_seconds=0.01)

    bad = ddf.llmbatch.flagged(job)
    assert bad.index.tolist() == [104]
    assert ddf.llmbatch.status(job).ended
    kept = ddf.llmbatch.collect(job).persist()
    wait(kept)
    ddf.llmbatch.regenerate(job).wait(poll_seconds=0.01)
    out = ddf.llmbatch.collect(job, usage=True).compute()

    assert out["llmbatch_attempt"].tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert set(out["llmbatch_status"]) == {"ok"}  # not what a worker has of the first collect
    assert kept["llmbatch_status"].compute().tolist().count("empty") == 1
    assert ddf.llmbatch.flagged(job).empty


def test_no_key_travels(
    store: Path, provider: OpenAIBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent to workers, in submit and in collect, holds neither client nor key."""
    sent: list[bytes] = []

    def compute_pickled(*tasks: Any) -> Any:
        sent.extend(cloudpickle.dumps(task) for task in tasks)
        return dask.base.compute(*map(cloudpickle.loads, sent[-len(tasks) :]), scheduler="sync")

    monkeypatch.setattr(dask, "compute", compute_pickled)
    ddf = dd.from_pandas(catalogue(4), npartitions=2)
    job = ddf.llmbatch.submit(TEMPLATE, "m", provider=provider, store=store)
    sent.append(cloudpickle.dumps(ddf.llmbatch.collect(job)))

    assert len(sent) == 3
    assert [data for data in sent if b"sk-test" in data or b"OpenAI" in data] == []


def test_what_is_refused_names_what_to_do(cluster: Client, store: Path) -> None:
    """Keys that repeat across partitions, a bad row on a worker, rows that changed since."""
    ddf = dd.concat(
        [dd.from_pandas(catalogue(4), npartitions=1), dd.from_pandas(catalogue(4), npartitions=1)]
    )
    options = {"provider": "file", "store": store}
    with pytest.raises(RowKeyError, match=r"such as 100 in part 0 and in part 1\. Pass key="):
        ddf.llmbatch.submit(TEMPLATE, "m", **options)
    bad = dd.from_pandas(catalogue(4).replace("thing 2", None), npartitions=2)
    with pytest.raises(NullValueError, match="Part 1: Row 102 would print a null"):
        bad.llmbatch.submit(TEMPLATE, "m", **options)
    assert eventually_is_empty(store)  # a worker may still be at a part that nobody wants any more

    good = dd.from_pandas(catalogue(4), npartitions=2)
    job = good.llmbatch.submit(TEMPLATE, "m", **options)
    changed = good.assign(title=good["title"].str.upper())
    with pytest.raises(FrameMismatchError, match="changed under their keys"):
        changed.llmbatch.collect(job).compute()


def test_on_threads_without_a_cluster(store: Path) -> None:
    """Dask's own scheduler does as well; partitions may be empty."""
    frame = catalogue(9)
    ddf = dd.from_pandas(frame, npartitions=3)
    ddf = ddf[ddf["n"] > 2]
    with dask.config.set(scheduler="threads"):
        job = ddf.llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
        out = ddf.llmbatch.collect(usage=True, store=store).compute()
        jobs = ddf.llmbatch.jobs(store=store)
        shown = str(ddf.llmbatch.preview(TEMPLATE, "m", n=1))
        priced = {"prices": {"input": 1.0, "output": 1.0}, "params": {"max_tokens": 5}}
        estimate = ddf.llmbatch.estimate(TEMPLATE, "m", store=store, **priced)

    assert out.index.tolist() == list(range(103, 109))
    assert jobs["job"].tolist() == [job.id]
    assert shown.splitlines()[0] == "row 103"
    assert estimate == frame[frame["n"] > 2].llmbatch.estimate(TEMPLATE, "m", store=store, **priced)


@pytest.mark.parametrize("partitions", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_small_partitions_make_no_batches_of_their_own(partitions: int, store: Path) -> None:
    """A provider limits batches at a time: small partitions share one."""
    titles = [f"thing {n}" for n in range(20 * partitions)]
    ddf = dd.from_pandas(pd.DataFrame({"title": titles}), npartitions=partitions)
    with dask.config.set(scheduler="threads"):
        job = ddf.llmbatch.submit(TEMPLATE, "m", provider="file", store=store)

    assert ddf.npartitions == partitions
    assert [len(Path(path).read_bytes().splitlines()) for path in job.requests] == [len(titles)]
    for number in (partitions - 1, 0, partitions // 2):
        part = ddf.partitions[number].compute()
        found = job.collect_part(part, number)
        assert found["title"].tolist() == part["title"].tolist()
        assert found["llmbatch_status"].tolist() == ["pending"] * 20


class Size(BaseModel):
    """A part of an answer."""

    width: int


class Article(BaseModel):
    """An answer with a list, an object and a text."""

    tags: list[str]
    size: Size
    said: str


def test_lists_dicts_and_bytes_stay_what_they_are(
    provider: OpenAIBatch, server: BatchServer, store: Path, tmp_path: Path
) -> None:
    """Dask makes no text of object columns, the answers' or the user's; dtypes are as foretold."""
    answer = {"tags": ["a", "b"], "size": {"width": 3}, "said": "yes"}
    server.answer = lambda *_: Reply(content=json.dumps(answer))
    mine: Any = [[1], [2, 3], []]
    frame = catalogue(3).assign(mine=mine, raw=[b"\xff", b"\xfe", b"c"])
    frame.to_parquet(tmp_path / "frame.parquet")
    ddf = dd.read_parquet(tmp_path / "frame.parquet")
    with dask.config.set({"scheduler": "threads", "dataframe.convert-string": True}):
        job = ddf.llmbatch.submit(
            TEMPLATE, "m", response_model=Article, provider=provider, store=store
        )
        out = ddf.llmbatch.collect(job, wait=True, poll_seconds=0.01)
        found = out[out["n"] >= 0].compute()

    assert out.dtypes.to_dict() == found.dtypes.to_dict()
    pd.testing.assert_frame_equal(found, job.collect(ddf.compute()))
    assert found["tags"].tolist() == [["a", "b"]] * 3
    assert found["size"].tolist() == [{"width": 3}] * 3
    assert list(map(list, found["mine"])) == mine
    assert found["raw"].tolist() == [b"\xff", b"\xfe", b"c"]
    assert found["title"].dtype == ddf["title"].dtype
    assert found["said"].dtype == "string"


def test_with_images_it_is_the_job_of_pandas(
    cluster: Client, provider: OpenAIBatch, server: BatchServer, store: Path, tmp_path: Path
) -> None:
    """Wherever the images lie for whom; workers, with another working folder, find them, too."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.gif").write_bytes(b"GIF89a, as far as one looks")
    frame = catalogue(3).assign(photo="a.gif")
    ddf = dd.from_pandas(frame, npartitions=2)
    options = {"image": "photo", "provider": provider, "store": store}
    whole = frame.llmbatch.submit(TEMPLATE, "m", image_root="photos", **options)

    job = ddf.llmbatch.submit(TEMPLATE, "m", image_root="photos", **options)

    assert job.id == whole.id
    out = ddf.llmbatch.collect(whole, wait=True, poll_seconds=0.01).compute()

    assert out["llmbatch_status"].tolist() == ["ok"] * 3
    assert ddf.llmbatch.flagged(store=store).empty
    assert sum(server.executed.values()) == 2


def test_parts_skip_rows_with_bad_images(
    provider: OpenAIBatch, server: BatchServer, store: Path, tmp_path: Path
) -> None:
    """on_bad_image="skip": one warning for all parts, and each part has its rows' reasons."""
    (tmp_path / "a.gif").write_bytes(b"GIF89a, as far as one looks")
    frame = catalogue(4).assign(photo=["no.gif", "a.gif", "a.gif", "none.gif"])
    ddf = dd.from_pandas(frame, npartitions=2)
    options: dict[str, Any] = {"image": "photo", "image_root": tmp_path, "on_bad_image": "skip"}
    options |= {"provider": provider, "store": store}

    with dask.config.set(scheduler="threads"):
        with pytest.warns(FrameEnrichWarning, match="2 rows are not sent") as warned:
            job = ddf.llmbatch.submit(TEMPLATE, "m", **options)
        out = ddf.llmbatch.collect(job, wait=True, poll_seconds=0.01).compute()

    assert len(warned) == 1
    assert out["llmbatch_status"].tolist() == ["skipped", "ok", "ok", "skipped"]
    assert ["none.gif" in error for error in out["llmbatch_error"].dropna()] == [False, True]
    with pytest.warns(FrameEnrichWarning, match="2 rows are not sent"):
        assert frame.llmbatch.submit(TEMPLATE, "m", **options).id == job.id


def test_a_job_is_found_by_a_later_partition(store: Path) -> None:
    """New rows may come first; only where no partition is known is there no job."""
    ddf = dd.from_pandas(catalogue(9), npartitions=3)
    with dask.config.set(scheduler="threads"):
        job = ddf.partitions[1:].llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
        out = ddf.llmbatch.collect(store=store).compute()
        assert ddf.llmbatch.status(store=store) == job.status()
        with pytest.raises(JobNotFoundError, match="no job for this frame"):
            ddf.partitions[:1].llmbatch.collect(store=store)

    assert out["llmbatch_status"].isna().tolist() == [True] * 3 + [False] * 6


def test_an_empty_frame_is_refused(store: Path) -> None:
    """By an estimate as by a submit."""
    ddf = dd.from_pandas(catalogue(4), npartitions=2)
    none = ddf[ddf["n"] < 0]
    priced = {"prices": {"input": 1.0, "output": 1.0}, "store": store}
    with dask.config.set(scheduler="threads"):
        for verb in (none.llmbatch.estimate, none.llmbatch.submit):
            with pytest.raises(InputError, match=r"The frame is empty\."):
                verb(TEMPLATE, "m", provider="file", **priced)


def test_a_parser_whose_columns_nobody_could_foresee(store: Path) -> None:
    """A column that the first rows' answers lack is an error that says so, unless it is named."""
    ddf = dd.from_pandas(catalogue(6).assign(title=list("abcdef")), npartitions=3)
    with dask.config.set(scheduler="threads"):
        job = ddf.llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
        path = store / "answers.jsonl"
        path.write_text("".join(answer_line(job, number) for number in (100, 101, 102)))
        job.import_responses(path)

        def odd(text: str) -> dict[str, Any]:
            return {"even" if int(text) % 2 == 0 else "odd": int(text)}

        out = ddf.llmbatch.collect(job, parser=odd).compute()  # the last part has no answer
        assert [str(dtype) for dtype in out[["even", "odd"]].dtypes] == ["Int64", "Int64"]
        assert out["even"].dropna().to_dict() == {100: 100, 102: 102}
        assert out["odd"].dropna().to_dict() == {101: 101}
        with pytest.raises(OutputError, match="returned a column 'even'"):
            ddf.llmbatch.collect(job, parser=odd, meta={"odd": "Int64"}).compute()
        with pytest.raises(OutputError, match="Column 'even' was bool"):
            ddf.llmbatch.collect(
                job, parser=odd, meta={"odd": "Int64", "even": "boolean"}
            ).compute()


def answer_line(job: Job, number: int) -> str:
    """A response to the row of a number: that number."""
    choice = {"message": {"content": str(number)}, "finish_reason": "stop"}
    response = {"status_code": 200, "body": {"choices": [choice]}}
    custom_id = tagged(job, f"row-{number}")
    return f"{json.dumps({'custom_id': custom_id, 'response': response, 'error': None})}\n"


def test_a_job_has_the_verbs_that_need_no_row(store: Path, tmp_path: Path) -> None:
    """What pandas' ``df.llmbatch`` does with a job and none of its rows, Dask's does, too."""
    ddf = dd.from_pandas(catalogue(4), npartitions=2)
    job = ddf.llmbatch.submit(TEMPLATE, "m", provider="file", store=store)

    assert ddf.llmbatch.job(store=store).id == ddf.llmbatch.job(job.id, store=store).id == job.id
    assert ddf.llmbatch.usage(store=store).requests == 0
    assert ddf.llmbatch.rounds(job).empty
    assert ddf.llmbatch.report(tmp_path / "page.html", job).exists()
    assert ddf.llmbatch.cancel(job).status().ended

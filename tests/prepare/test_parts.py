"""Jobs written and collected a part at a time: the job that the whole frame's submit makes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai
import pandas as pd
import pytest
from audit import shelf
from batch_server import BatchServer, row_name
from conftest import tagged
from crash import KillPoint, forked, ledger, server_process, watch
from draws import examples
from hypothesis import given
from hypothesis import strategies as st

import frameenrich
from frameenrich import Job
from frameenrich.errors import (
    BudgetError,
    ColumnCollisionError,
    InputError,
    NullValueError,
    RowKeyError,
    StoreError,
)
from frameenrich.lifecycle.match import find_sidecar_rows
from frameenrich.model import JobSpec, Limits, Message
from frameenrich.prepare.parts import PartsFolder, open_parts_folder, write_part
from frameenrich.prepare.writer import Part
from frameenrich.providers.file import FileProvider
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.store.folder import JobPath
from frameenrich.store.store import Store, open_store
from frameenrich.verbs.preview import preview_parts
from frameenrich.verbs.submit import submit_parts

TEMPLATE = "Say {{ title }}."


def cut(frame: pd.DataFrame, ends: Iterable[int]) -> list[pd.DataFrame]:
    """A frame in parts, which may be empty."""
    places = [0, *sorted(ends), len(frame)]
    return [frame.iloc[a:b] for a, b in itertools.pairwise(places)]


def submit(parts: Sequence[pd.DataFrame], store: str | Path, **options: Any) -> Job:
    """Submit a frame in parts, written one after another."""

    def write(stage: PartsFolder) -> Iterator[Part]:
        yield from (write_part(stage, n, part) for n, part in enumerate(parts))

    options = {"provider": "file", **options}
    return submit_parts(write, list(parts[0].columns), TEMPLATE, "m", store=store, **options)


def collect(job: Job, parts: Sequence[pd.DataFrame], **options: Any) -> pd.DataFrame:
    """Collect each part, and put them together."""
    return pd.concat([job.collect_part(part, n, **options) for n, part in enumerate(parts)])


def sent(job: Job) -> list[tuple[str, str]]:
    """What a job sends: custom_id and body of each request, in order of the ids."""
    lines = [json.loads(line) for p in job.requests for line in Path(p).read_bytes().splitlines()]
    return sorted((line["custom_id"], json.dumps(line["body"])) for line in lines)


def named(requests: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Requests without the tags of their jobs, which are drawn anew for each."""
    return [(row_name(custom_id), body) for custom_id, body in requests]


def untagged(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame collected with its usage, whose custom_ids lack the tag of their job."""
    names = frame["llmbatch_custom_id"].map(row_name, na_action="ignore")
    return frame.assign(llmbatch_custom_id=names.astype(frame["llmbatch_custom_id"].dtype))


def titled(titles: Sequence[str | None]) -> pd.DataFrame:
    """A frame with a text a row."""
    return pd.DataFrame({"title": titles}, index=[f"k{n}" for n in range(len(titles))])


def answer(job: Job, folder: Path, but: str = "") -> None:
    """Answer each request but one with its own prompt, in an order of its own."""
    lines = []
    for custom_id, body in reversed(sent(job)):
        if row_name(custom_id) == but:
            continue
        said = json.loads(body)["messages"][0]["content"]
        message = {"role": "assistant", "content": f"echo: {said}"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {"model": "gpt-4o-mini", "choices": [choice], "usage": usage}
        lines.append(
            {"custom_id": custom_id, "response": {"status_code": 200, "body": reply}, "error": None}
        )
    path = folder / "answers.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    job.import_responses(path)


@examples(12)
@given(
    titles=st.lists(st.sampled_from(["a", "b", "c", "d", "é", None]), min_size=1, max_size=12),
    ends=st.lists(st.integers(0, 12), max_size=4),
    max_requests=st.integers(1, 12),  # parts have files of their own, or share them
)
def test_however_a_frame_is_cut(
    titles: list[str | None], ends: list[int], max_requests: int
) -> None:
    """Id, requests and collected columns are those of the frame submitted whole."""
    frame = titled(titles)
    parts = cut(frame, [min(end, len(frame)) for end in ends])
    folder = Path(tempfile.mkdtemp())
    options: dict[str, Any] = {"on_null": "skip", "provider": FilesOf(max_requests)}
    try:
        if not any(titles):
            with pytest.raises(InputError, match="would be skipped"):
                submit(parts, folder / "parts", **options)
            return
        job = submit(parts, folder / "parts", **options)
        whole = frame.llmbatch.submit(TEMPLATE, "m", store=folder / "whole", **options)

        assert job.id == whole.id
        assert named(sent(job)) == named(sent(whole))
        assert max(len(Path(path).read_bytes().splitlines()) for path in job.requests) <= (
            max_requests
        )
        answer(job, folder)
        answer(whole, folder)
        expected = untagged(whole.collect(frame, usage=True))
        pd.testing.assert_frame_equal(untagged(collect(job, parts, usage=True)), expected)
        pd.testing.assert_frame_equal(untagged(job.collect(frame, usage=True)), expected)
        assert job.collect_part(frame.iloc[::-1]).index.tolist() == frame.index[::-1].tolist()
    finally:
        shutil.rmtree(folder)


@examples(12)
@given(
    known=st.lists(st.sampled_from("abcd"), min_size=1, max_size=4),
    titles=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=10),
    ends=st.lists(st.integers(0, 10), max_size=3),
    max_requests=st.integers(1, 4),
)
def test_whatever_the_store_has_answered(
    known: list[str], titles: list[str], ends: list[int], max_requests: int
) -> None:
    """What is reused and what is sent, and under which names, is as for the frame as a whole."""
    frame, folder = titled(titles), Path(tempfile.mkdtemp())
    parts = cut(frame, [min(end, len(frame)) for end in ends])
    try:
        earlier = titled(known).llmbatch.submit(
            TEMPLATE, "m", name="earlier", provider="file", store=folder / "parts"
        )
        answer(earlier, folder)
        shutil.copytree(folder / "parts", folder / "whole")
        options: dict[str, Any] = {"provider": FilesOf(max_requests)}
        job = submit(parts, folder / "parts", **options)
        whole = frame.llmbatch.submit(TEMPLATE, "m", store=folder / "whole", **options)

        assert (job.id, job.reused) == (whole.id, whole.reused)
        assert named(sent(job)) == named(sent(whole))
        expected = untagged(whole.collect(frame, usage=True))
        pd.testing.assert_frame_equal(untagged(collect(job, parts, usage=True)), expected)
        assert expected["llmbatch_status"].eq("ok").tolist() == frame["title"].isin(known).tolist()
        new = len({*titles} - {*known})
        assert files_of(whole) == [
            min(max_requests, new - n) for n in range(0, new, max_requests)
        ], "each file is full but for the last"
    finally:
        shutil.rmtree(folder)


def files_of(job: Job) -> list[int]:
    """How many requests are in each file that is to be sent."""
    paths = job.requests[1:] if job.reused else job.requests
    return [len(Path(path).read_bytes().splitlines()) for path in paths]


class Printed:
    """A cell that counts how often it is printed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.times = 0

    def __str__(self) -> str:
        self.times += 1
        return self.text


def test_nothing_is_rendered_twice_where_answers_are_reused(store: Path, tmp_path: Path) -> None:
    """Rows are printed as often as for a job that reuses nothing."""
    cells = {name: [Printed(text) for text in "abcabd"] for name in ("new", "reusing")}
    frames = {name: pd.DataFrame({"title": pd.Series(own)}) for name, own in cells.items()}
    frames["new"].llmbatch.submit(TEMPLATE, "m", provider="file", store=tmp_path / "other")
    earlier = titled(["a", "c"]).llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
    answer(earlier, tmp_path)

    job = frames["reusing"].llmbatch.submit(TEMPLATE, "m", provider="file", store=store)

    assert (job.reused, files_of(job)) == (2, [2])
    printed = {name: [cell.times for cell in own] for name, own in cells.items()}
    assert printed["new"] == printed["reusing"]


class FilesOf(FileProvider):
    """The provider ``file`` with small files."""

    def __init__(self, max_requests: int) -> None:
        self.limits = Limits(max_requests=max_requests)


PARTS = cut(titled(["a", "b", "c", "a", "d", "b", "e"]), [3, 5])


def test_a_request_goes_once_though_two_parts_ask_it(
    store: Path, provider: OpenAIBatch, server: BatchServer
) -> None:
    """Through a server: five of seven are sent, every row has its answer, the cost adds up."""
    job = submit(PARTS, store, provider=provider, prices={"input": 1.0, "output": 2.0})
    out = collect(job.wait(poll_seconds=0.01), PARTS, usage=True)

    assert server.executed == {f"row-k{n}": 1 for n in (0, 1, 2, 4, 6)}
    assert out["llmbatch"].tolist() == [f"echo: Say {title}." for title in out["title"]]
    assert list(map(row_name, out["llmbatch_custom_id"])) == [
        f"row-k{n}" for n in (0, 1, 2, 0, 4, 1, 6)
    ]
    assert out["llmbatch_cost_usd"].sum() == pytest.approx(job.usage().usd)


def test_the_same_again_is_the_same_job(store: Path) -> None:
    """From parts or from the whole frame, cut anyhow: one job, and nothing of a stage is left."""
    whole = pd.concat(PARTS)
    job = submit(PARTS, store)

    assert submit(cut(whole, [1]), store).id == job.id
    assert whole.llmbatch.submit(TEMPLATE, "m", provider="file", store=store).id == job.id
    assert whole.llmbatch.collect(store=store)["llmbatch_status"].tolist() == ["pending"] * 7
    assert sorted(path.name for path in store.iterdir()) == [
        ".gitignore",
        ".lock",
        job.id,
    ]


def test_what_the_store_has_answered_is_not_sent(store: Path, tmp_path: Path) -> None:
    """Answers of another job stand in a shard of their own; small parts share what is sent."""
    first = PARTS[1].llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
    answer(first, tmp_path)

    job = submit(PARTS, store)

    assert job.reused == 2
    assert files_of(job) == [3]
    out = collect(job, PARTS)
    assert out["llmbatch_status"].tolist() == ["ok", *["pending"] * 2, "ok", "ok", *["pending"] * 2]
    assert out["llmbatch"].tolist()[3:5] == ["echo: Say a.", "echo: Say d."]


def test_a_later_round_is_collected_with_the_parts(store: Path, tmp_path: Path) -> None:
    """What was asked again in one part shows there, and nowhere else."""
    job = submit([*PARTS[:1], PARTS[0].iloc[:0], *PARTS[1:]], store)
    answer(job, tmp_path, but="row-k1")

    job.regenerate()

    again = [path for path in job.requests if "round-1" in path]
    (own,) = (json.loads(Path(path).read_bytes())["custom_id"] for path in again)
    assert own == tagged(job, "r1-row-k1")
    out = collect(job, PARTS, usage=True)  # under other numbers than they had
    statuses = ["ok", "pending", "ok", "ok", "ok", "pending", "ok"]
    assert out["llmbatch_status"].tolist() == statuses
    assert out["llmbatch_attempt"].tolist() == [1, 2, 1, 1, 1, 2, 1]
    pd.testing.assert_frame_equal(job.collect(pd.concat(PARTS), usage=True), out)

    choice = {"message": {"content": ""}, "finish_reason": "stop"}
    response = {"status_code": 200, "body": {"choices": [choice]}}
    line = json.dumps({"custom_id": own, "response": response, "error": None})
    (tmp_path / "again.jsonl").write_text(f"{line}\n")
    job.import_responses(tmp_path / "again.jsonl")
    collector = job.collector()
    flagged = pd.concat([collector.flagged(part, n) for n, part in enumerate(PARTS)])
    pd.testing.assert_frame_equal(flagged, job.flagged(pd.concat(PARTS)))
    assert flagged["status"].to_dict() == {"k1": "empty", "k5": "empty"}
    assert [attempt["status"] for attempt in flagged["history"]["k5"]] == ["missing"]


def test_a_key_in_two_parts_is_refused(store: Path) -> None:
    """The message names the key, the parts and the way out; nothing is left behind."""
    parts = [pd.DataFrame({"title": ["a", "b"]}), pd.DataFrame({"title": ["c"]})]

    with pytest.raises(RowKeyError) as caught:
        submit(parts, store)

    assert str(caught.value) == (
        "The key 'index' repeats across parts of the frame (partitions, or chunks of a file): "
        "1 value(s) name rows of more than one, such as 0 in part 0 and in part 1. Pass key= with "
        "the column(s) that name a row in the whole frame. An index that begins anew in each part, "
        "as Dask's reset_index() and read_csv() make it, does not."
    )
    assert {path.name for path in store.iterdir()} <= {".gitignore", ".lock"}
    assert len(submit(parts, store, key="title").collect()) == 3


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda lines: lines[:-1], "it has 1 of 2 requests"),
        (lambda lines: [*lines, lines[0]], "its line 3 is of"),
        (lambda lines: lines[::-1], "its line 1 is of"),
    ],
)
def test_a_file_of_a_part_that_changed_meanwhile_is_named(
    damage: Callable[[list[bytes]], list[bytes]], why: str, store: Path
) -> None:
    """Each row is counted to the shard that has its request; before anything is sent."""

    def write(stage: PartsFolder) -> Iterator[Part]:
        written = [write_part(stage, n, shelf(2, first=2 * n)) for n in range(2)]
        path = Path(stage.folder_of(1).path, "round-0", "shard-00000.requests.jsonl")
        path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
        yield from written

    with pytest.raises(StoreError, match=rf"part-000001.*{why}"):
        submit_parts(write, ["title"], TEMPLATE, "m", provider="file", store=store)

    assert frameenrich.jobs(store=store).empty


def test_a_bad_row_is_named_with_its_part(store: Path) -> None:
    """A row that cannot be asked stops it all before there is a job."""
    parts = cut(titled(["a", "b", None]), [1])

    with pytest.raises(NullValueError, match="Part 1: Row 'k2' would print"):
        submit(parts, store)

    assert open_store(store).job_ids() == []


def test_what_is_refused_before_rows_are_looked_at(store: Path) -> None:
    """A missing column, an empty frame, a taken column and money."""
    with pytest.raises(InputError, match="title"):
        submit([pd.DataFrame({"other": ["a"]})], store)
    with pytest.raises(InputError, match="The frame is empty"):
        submit([titled([]), titled([])], store)
    with pytest.raises(ColumnCollisionError, match="'llmbatch'"):
        submit([PARTS[0].assign(llmbatch="mine")], store)
    with pytest.raises(BudgetError):
        submit(
            PARTS,
            store,
            max_cost=1e-9,
            params={"max_tokens": 9},
            prices={"input": 1.0, "output": 1.0},
        )

    assert open_store(store).job_ids() == []


SPEC = JobSpec("llmbatch", "m", (Message("user", TEMPLATE),), provider="file")


def write_pickled(stage: bytes, number: int, frame: pd.DataFrame) -> None:
    """What a worker does."""
    write_part(pickle.loads(stage), number, frame)


@pytest.mark.slow
def test_a_part_may_be_written_twice_at_once_in_other_processes(store: Path) -> None:
    """The same bytes, once; another frame under the same number is refused."""
    with open_parts_folder(open_store(store), SPEC, Limits()) as stage:
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(target=write_pickled, args=(pickle.dumps(stage), 0, PARTS[0]))
            for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        path = Path(stage.folder_of(0).path, "round-0", "shard-00000.requests.jsonl")
        before = (path.read_bytes(), path.stat().st_mtime_ns)

        assert write_part(stage, 0, PARTS[0]).requests == (3,)
        with pytest.raises(InputError, match="Part 0: Its rows were computed twice"):
            write_part(stage, 0, PARTS[1])

        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        assert len(list(store.glob(".frameenrich-draft-*"))) == 1
    assert {path.name for path in store.iterdir()} <= {".gitignore", ".lock"}


def steps_until(kill_at: int, base_url: str, store: Path) -> int:
    """Submit in a child that is killed at a step; how it ended."""

    def work() -> None:
        plain = httpx2.Client(verify=False)
        client = openai.OpenAI(
            api_key="sk-test", base_url=base_url, http_client=plain, max_retries=0
        )
        watch(KillPoint(kill_at))
        submit(named_after(store), store, provider=OpenAIBatch(client, wait_seconds=0.002))

    return forked(work)


def named_after(store: Path) -> list[pd.DataFrame]:
    """Parts whose keys are no other store's; two of the requests are one."""
    frame = titled([f"{store.name} {title}" for title in "abcad"])
    return cut(frame.set_axis([f"{store.name}{n}" for n in range(5)]), [2, 4])


@pytest.mark.slow
def test_the_paying_process_may_be_killed_anywhere(tmp_path: Path) -> None:
    """The same submit again goes on: each request is paid once, and no step's remains are a job."""
    with server_process(instant=True) as base_url:
        kills = 0
        for kill_at in itertools.count(4, 17):
            store = tmp_path / f"s{kill_at}"
            ended = steps_until(kill_at, base_url, store)
            with openai.OpenAI(api_key="sk-test", base_url=base_url) as client:
                job = submit(named_after(store), store, provider=OpenAIBatch(client))
                out = collect(job.wait(poll_seconds=0.001), named_after(store))
            assert out["llmbatch"].tolist() == [f"echo: Say {title}." for title in out["title"]]
            assert open_store(store).job_ids() == [job.id]
            if ended == 0:
                break
            assert ended == signal.SIGKILL
            kills += 1
        executed = ledger(base_url)["executed"]

    assert kills >= 8
    assert set(executed.values()) == {1}
    assert len(executed) == 4 * (kills + 1)


def test_a_store_that_a_worker_does_not_share_is_told(store: Path, tmp_path: Path) -> None:
    """Nothing is written where nobody would find it."""
    with open_parts_folder(open_store(store), SPEC, Limits()) as stage:
        elsewhere = PartsFolder(str(tmp_path / "elsewhere"), stage.folder, SPEC, Limits())
        with pytest.raises(StoreError, match="not the same folder here"):
            write_part(elsewhere, 0, PARTS[0])
    assert not (tmp_path / "elsewhere").exists()


def test_a_part_is_read_of_its_own_shards_only(store: Path, tmp_path: Path) -> None:
    """Other parts' responses are not opened; where a part is not what it was, it is searched."""
    job = submit(PARTS, store, provider=FilesOf(3))  # no two parts fit a file together
    answer(job, tmp_path)
    expected = job.collect(pd.concat(PARTS))
    responses = sorted(Path(job.path).glob("round-0/*.import-*.jsonl"))
    responses[2].unlink()
    responses[2].mkdir()  # reading it would fail

    pd.testing.assert_frame_equal(job.collect_part(PARTS[0], 0), expected.iloc[:3])
    moved = pd.concat([PARTS[1], PARTS[0].iloc[:1]])
    pd.testing.assert_frame_equal(job.collect_part(moved, 2), expected.iloc[[3, 4, 0]])
    unknown = titled(["z"]).set_axis(["new"])
    assert job.collect_part(unknown, 0)["llmbatch_status"].isna().all()


def test_small_parts_share_files(store: Path, tmp_path: Path) -> None:
    """Sixty parts of two rows fill files to the provider's limit; each part gets its own answers.

    What is large enough keeps a file of its own, also between small ones.
    """
    small = titled([f"thing {n}" for n in range(120)])
    large = titled([f"case {n}" for n in range(20)]).set_axis([f"c{n}" for n in range(20)])
    parts = cut(small, range(2, 120, 2))
    parts.insert(30, large)
    options: dict[str, Any] = {"provider": FilesOf(50)}
    job = submit(parts, store, **options)

    assert files_of(job) == [50, 50, 20, 20]
    assert job.id == pd.concat(parts).llmbatch.submit(TEMPLATE, "m", store=store, **options).id
    answer(job, tmp_path, but="row-k3")
    out = collect(job, parts)
    pd.testing.assert_frame_equal(out, job.collect(pd.concat(parts)))
    assert out["llmbatch"].dropna().tolist() == [
        f"echo: Say {title}." for key, title in out["title"].items() if key != "k3"
    ]
    assert out["llmbatch_status"].value_counts().to_dict() == {"ok": 139, "missing": 1}


def test_the_batch_that_goes_ahead_stays_alone(store: Path, provider: OpenAIBatch) -> None:
    """With ``cache="seed"`` the first file holds one request, also where parts are small."""
    rows = [
        {"role": "system", "content": "Be brief. " * 400},
        {"role": "user", "content": TEMPLATE},
    ]
    parts = cut(titled(list("abcdef")), [2, 4])

    def write(stage: PartsFolder) -> Iterator[Part]:
        yield from (write_part(stage, n, part) for n, part in enumerate(parts))

    options: dict[str, Any] = {"provider": provider, "store": store, "cache": "seed"}
    job = submit_parts(write, ["title"], rows, "m", **options)

    assert files_of(job) == [1, 5]


def test_keys_of_several_types_become_one(store: Path) -> None:
    """A chunk whose keys were read as numbers meets one whose keys are text."""
    parts = [
        pd.DataFrame({"sku": [1, 2], "title": ["a", "b"]}),
        pd.DataFrame({"sku": ["x1"], "title": ["c"]}),
    ]

    job = submit(parts, store, key="sku")

    assert job.collect()["sku"].tolist() == ["1", "2", "x1"]
    assert collect(job, parts)["llmbatch_status"].tolist() == ["pending"] * 3


@pytest.mark.parametrize("kind", [int, "{:05}".format, float], ids=["numbers", "texts", "floats"])
def test_lines_are_found_in_a_job_of_no_parts(kind: Any, store: Path) -> None:
    """Row groups are searched until all keys are found; those that cannot have them, not at all."""
    frame = pd.DataFrame({"title": "a"}, index=[kind(n) for n in range(40_000)])
    job = frame.llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
    folder = JobPath(Store(store), job.id).open()
    some = frame.iloc[[39_999, 5, 32_768]]

    assert find_sidecar_rows(folder, some)["key_0"].to_pylist() == [
        kind(n) for n in (5, 32_768, 39_999)
    ]
    assert job.collect_part(some)["llmbatch_status"].tolist() == ["pending"] * 3

    with folder.reading_sidecar() as file:
        start = file.metadata.row_group(0).column(0).data_page_offset
    sidecar = Path(job.path) / "sidecar.parquet"
    data = bytearray(sidecar.read_bytes())
    data[start + 40 : start + 60] = bytes(20)  # reading the first group would now fail
    sidecar.write_bytes(data)
    if kind is float:
        with pytest.raises(StoreError):
            find_sidecar_rows(folder, frame.iloc[[39_999]])
    else:
        assert len(find_sidecar_rows(folder, frame.iloc[[39_999]])) == 1


def test_parts_in_a_bucket(tmp_path: Path) -> None:
    """Objects are put by who writes a part and copied within the store; the stage is emptied."""
    url = f"memory://{tmp_path.name}"
    job = submit(PARTS, url)
    whole = pd.concat(PARTS).llmbatch.submit(
        TEMPLATE, "m", provider="file", store=f"{url}-whole", fresh=False
    )

    assert job.id == whole.id
    where = open_store(url)
    assert {path.split("/")[-3] for path in where.find(where.root)} <= {where.root[1:], job.id}
    assert collect(job, PARTS)["llmbatch_status"].tolist() == ["pending"] * 7


@pytest.mark.parametrize("other", [["1", "x"], [1.0, 3.5], pd.array([1, 9], "int32")])
def test_a_preview_refuses_a_key_of_two_parts_whatever_its_type(other: Any, store: Path) -> None:
    """A row that is named 1 in one part and "1" in the next is refused as `submit` does."""
    parts = [
        pd.DataFrame({"id": ids, "title": ["a", "b"]}) for ids in (pd.array([1, 2], "int64"), other)
    ]

    for look in (
        lambda: submit(parts, store, key="id"),
        lambda: preview_parts(
            lambda: iter(parts), ["id", "title"], TEMPLATE, "m", n=2, store=store, key="id"
        ),
    ):
        with pytest.raises(RowKeyError, match="The key 'id' repeats"):
            look()

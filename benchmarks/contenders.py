"""Everybody who renders or parses the workload, each in a process of its own.

    python contenders.py NAME --rows N --folder DIR

does one thing once, after a warm-up on `WARM_ROWS` rows, and prints what it took as a line of JSON.
What is not the contender's own work (the frame, the responses, imports) is made before the clock
starts. `run.py` calls this in the virtual environment that the contender needs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pandas as pd
import pyarrow as pa
import workload

WARM_ROWS = 1_000
PARAMS = {"temperature": 0}
INPUT = list(workload.frame(0).columns)

Work = Callable[[], Any]
Contender = Callable[[int, Path], Work]


def messages(text: str) -> list[dict[str, str]]:
    """A conversation of the system prompt and this."""
    system = {"role": "system", "content": workload.SYSTEM}
    return [system, {"role": "user", "content": text}]


def request(custom_id: str, text: str) -> dict[str, Any]:
    """A request as the Batch API wants it."""
    body = {"model": workload.MODEL, "messages": messages(text), **PARAMS}
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }


# --- render: a frame to request files -------------------------------------------------------------


def render_frameenrich(rows: int, folder: Path) -> Work:
    """The whole submit: checked, rendered, hashed, deduplicated, cut, synced, with its sidecar."""
    import frameenrich  # noqa: F401, PLC0415 - registers df.llmbatch

    frame = workload.frame(rows)
    return lambda: frame.llmbatch.submit(
        workload.USER,
        workload.MODEL,
        system=workload.SYSTEM,
        params=PARAMS,
        provider="file",
        store=folder / "store",
    )


def _rendered(frame: pd.DataFrame) -> Any:
    """Each row's text by ``Template.render``; nulls are made empty in one go first."""
    render = jinja2.Environment(autoescape=False).from_string(workload.USER).render  # noqa: S701
    columns = list(frame.columns)
    for row in frame.fillna({"brand": ""}).itertuples(index=False, name=None):
        yield render(**dict(zip(columns, row, strict=True)))


def render_hand(rows: int, folder: Path) -> Work:
    """``template.render(**row)`` and ``json.dumps``, a row at a time."""
    frame = workload.frame(rows)

    def work() -> None:
        with (folder / "hand.jsonl").open("w") as file:
            for label, text in zip(frame.index, _rendered(frame), strict=True):
                file.write(json.dumps(request(f"row-{label}", text)) + "\n")

    return work


def render_cookbook(rows: int, folder: Path) -> Work:
    """OpenAI's cookbook: ``iterrows``, a list of dicts, ``json.dumps`` each; no template."""
    frame = workload.frame(rows)

    def work() -> None:
        tasks = []
        for index, row in frame.iterrows():
            brand = row["brand"].upper() if isinstance(row["brand"], str) else "unknown"
            text = (
                f"Product: {row['title']}\nBrand: {brand}\nPrice: {row['price']} USD\n"
                f"Description: {row['description']}\n{workload.USER.rpartition(chr(10))[2]}"
            )
            tasks.append(request(f"task-{index}", text))
        with (folder / "cookbook.jsonl").open("w") as file:
            for task in tasks:
                file.write(json.dumps(task) + "\n")

    return work


def render_langbatch(rows: int, folder: Path) -> Work:
    """``OpenAIChatCompletionBatch.create`` from rendered messages."""
    batch_class = _langbatch(folder)
    frame = workload.frame(rows)
    kwargs = {"model": workload.MODEL, **PARAMS}
    return lambda: batch_class.create(
        [messages(text) for text in _rendered(frame)], kwargs, {"client": object()}
    )


def _langbatch(folder: Path) -> Any:
    os.chdir(folder)  # where it keeps its files
    os.environ["OPENAI_API_KEY"] = "sk-benchmark"
    from langbatch.openai import OpenAIChatCompletionBatch  # noqa: PLC0415

    return OpenAIChatCompletionBatch


def render_instructor_batchjob(rows: int, folder: Path) -> Work:
    """Instructor 1.9's ``BatchJob.create_from_messages``; its lines hold the schema as well."""
    from instructor.batch import BatchJob  # noqa: PLC0415

    frame, path = workload.frame(rows), folder / "instructor.jsonl"
    return lambda: BatchJob.create_from_messages(
        map(messages, _rendered(frame)), workload.MODEL, workload.Answer, str(path)
    )


def render_instructor(rows: int, folder: Path) -> Work:
    """Instructor 1.17's ``BatchProcessor``; its lines hold the schema as well."""
    processor, frame = _processor(), workload.frame(rows)
    path = str(folder / "processor.jsonl")
    return lambda: processor.create_batch_from_messages(
        [messages(text) for text in _rendered(frame)], path
    )


def _processor() -> Any:
    os.environ["OPENAI_API_KEY"] = "sk-benchmark"
    from instructor.batch import BatchProcessor  # noqa: PLC0415

    return BatchProcessor(f"openai/{workload.MODEL}", workload.Answer)


def render_openai_batch(rows: int, folder: Path) -> Work:
    """openai-batch's ``Batch.add_to_batch``, a batch every 50,000 rows."""
    os.environ["OPENAI_API_KEY"] = "sk-benchmark"
    from openai_batch import Batch  # noqa: PLC0415

    frame = workload.frame(rows)

    def work() -> None:
        texts = _rendered(frame)
        for start in range(0, rows, 50_000):
            with Batch(folder / f"openai-batch-{start}.jsonl") as batch:
                for text, _ in zip(texts, range(min(50_000, rows - start)), strict=False):
                    batch.add_to_batch(model=workload.MODEL, messages=messages(text), **PARAMS)

    return work


def render_bytes(rows: int, folder: Path) -> Work:
    """As many bytes as the hand-written loop's, from memory to disk and synced; nothing else."""
    frame = workload.frame(256)
    piece = "".join(json.dumps(request("row-123456", t)) + "\n" for t in _rendered(frame)).encode()

    def work() -> None:
        with (folder / "bytes.jsonl").open("wb") as file:
            for _ in range(rows // 256):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    return work


# --- parse: response files to the frame's columns -------------------------------------------------


def stored(rows: int, folder: Path) -> Path:
    """A finished job of so many rows, and its responses in one file for others."""
    import frameenrich  # noqa: F401, PLC0415 - registers df.llmbatch

    home = folder / f"parse-{rows}"
    done = home / "job_id"
    if done.exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    job = workload.frame(rows).llmbatch.submit(
        workload.USER,
        workload.MODEL,
        system=workload.SYSTEM,
        params=PARAMS,
        response_model=workload.Answer,
        provider="file",
        store=home / "store",
    )
    names = [f"row-{i}" for i in range(rows)]
    workload.write_responses(home / "responses.jsonl", names)
    own = {custom_id.rpartition("-")[0]: custom_id for custom_id in _custom_ids(job.requests)}
    workload.write_responses(home / "own.jsonl", [own.get(name, name) for name in names])
    job.import_responses(home / "own.jsonl")
    done.write_text(job.id)
    return home


def _custom_ids(requests: list[str]) -> list[str]:
    """The custom_ids of request files, which end with a tag of their job."""
    lines = (line for path in requests for line in Path(path).read_bytes().splitlines())
    return [json.loads(line)["custom_id"] for line in lines]


def parse_frameenrich(rows: int, folder: Path) -> Work:
    """``job.collect(frame)``: judged, joined, and the frame's rows checked against the job's."""
    frame = workload.frame(rows)
    job = _finished_job(rows, folder)
    return lambda: job().collect(frame, response_model=workload.Answer)


def parse_frameenrich_alone(rows: int, folder: Path) -> Work:
    """``job.collect()``: keys and output columns."""
    job = _finished_job(rows, folder)
    return lambda: job().collect(response_model=workload.Answer)


def parse_frameenrich_again(rows: int, folder: Path) -> Work:
    """``job.collect(frame)`` a second time: what was read is kept, and nothing is new."""
    frame = workload.frame(rows)
    job = _finished_job(rows, folder)
    job().collect(frame, response_model=workload.Answer)
    return lambda: job(kept=True).collect(frame, response_model=workload.Answer)


def _finished_job(rows: int, folder: Path) -> Callable[..., Any]:
    from frameenrich import open_job  # noqa: PLC0415

    home = folder / f"parse-{rows}"

    def job(*, kept: bool = False) -> Any:
        for path in () if kept else (home / "store").rglob("*.read"):
            path.unlink()  # what an earlier collect read, which would be taken as it is
        return open_job((home / "job_id").read_text(), store=home / "store")

    return job


def _responses(rows: int, folder: Path) -> Path:
    return folder / f"parse-{rows}" / "responses.jsonl"


def _joined(frame: pd.DataFrame, rows: list[dict[str, Any]], ids: list[str]) -> pd.DataFrame:
    """Parsed answers beside the frame's rows, by the number in the custom_id."""
    index = [int(custom_id.rpartition("-")[2]) for custom_id in ids]
    return frame.join(pd.DataFrame(rows, index=index))


def parse_hand(rows: int, folder: Path) -> Work:
    """``json.loads``, pydantic and a join; bad lines are dropped."""
    frame, path = workload.frame(rows), _responses(rows, folder)
    validate = workload.Answer.model_validate_json

    def work() -> pd.DataFrame:
        ids, found = [], []
        with path.open("rb") as file:
            for raw in file:
                line = json.loads(raw)
                try:
                    content = line["response"]["body"]["choices"][0]["message"]["content"]
                    found.append(validate(content).model_dump())
                except (KeyError, ValueError):
                    continue
                ids.append(line["custom_id"])
        return _joined(frame, found, ids)

    return work


def parse_cookbook(rows: int, folder: Path) -> Work:
    """OpenAI's cookbook: ``json.loads`` twice and ``df.loc[...] =`` a cell; nothing validated."""
    frame, path = workload.frame(rows), _responses(rows, folder)

    def work() -> pd.DataFrame:
        result = frame.copy()
        names = list(workload.Answer.model_fields)
        result[names] = None
        result[names] = result[names].astype(object)
        with path.open("rb") as file:
            for raw in file:
                line = json.loads(raw)
                index = int(line["custom_id"].split("-")[-1])
                try:
                    content = line["response"]["body"]["choices"][0]["message"]["content"]
                    answer = json.loads(content)
                except (KeyError, ValueError):
                    continue
                result.loc[index, names] = [answer[name] for name in names]
        return result

    return work


def parse_instructor(rows: int, folder: Path) -> Work:
    """Instructor 1.17's ``parse_results``, and a join."""
    frame, path, processor = workload.frame(rows), _responses(rows, folder), _processor()

    def work() -> pd.DataFrame:
        results = [r for r in processor.parse_results(path.read_text()) if r.success]
        ids = [result.custom_id for result in results]
        return _joined(frame, [result.result.model_dump() for result in results], ids)

    return work


def parse_langbatch(rows: int, folder: Path) -> Work:
    """LangBatch's ``get_results``, pydantic and a join."""
    frame, path = workload.frame(rows), _responses(rows, folder)
    batch = _langbatch(folder).create_from_requests(
        [request("row-0", "x")], {"client": _LocalFiles(path)}
    )
    batch.platform_batch_id = "batch-1"

    def work() -> pd.DataFrame:
        ids, found = [], []
        for result in batch.get_results()[0]:
            try:
                content = result["choices"][0]["message"]["content"]
                found.append(workload.Answer.model_validate_json(content).model_dump())
            except ValueError:
                continue
            ids.append(result["custom_id"])
        return _joined(frame, found, ids)

    return work


class _LocalFiles:
    """What LangBatch asks of a client, from the disk instead of the network."""

    def __init__(self, path: Path) -> None:
        batch = SimpleNamespace(output_file_id="out", error_file_id=None)
        self.batches = SimpleNamespace(retrieve=lambda _: batch)
        self.files = SimpleNamespace(content=lambda _: SimpleNamespace(content=path.read_bytes()))


CONTENDERS: dict[str, Contender] = {
    name: made
    for name, made in list(globals().items())
    if name.startswith(("render_", "parse_")) and callable(made)
}


# --- the clock ------------------------------------------------------------------------------------


def measured(work: Work) -> dict[str, float]:
    """Wall and CPU seconds of a piece of work, its children's too, and its peak memory in MB."""
    _settle()
    before, began, cpu = _memory("VmRSS"), time.perf_counter(), _cpu_seconds()
    result = work()
    wall, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    peak = _memory("VmHWM") - before
    left = _memory("VmRSS") - before
    figures = {"wall": wall, "cpu": cpu, "peak_mb": peak, "left_mb": left}
    return {**figures, "result_mb": _added_mb(result)}


def _added_mb(result: Any) -> float:
    """The size of the columns that came to the frame."""
    if not isinstance(result, pd.DataFrame):
        return 0.0
    added = result[[name for name in result.columns if name not in INPUT]]
    return float(added.memory_usage(index=False, deep=True).sum() / 1e6)


def _settle() -> None:
    """Give back what is free, so that the peak is the work's own (Linux)."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # begins VmHWM anew (man 5 proc)


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith(name)]
    return int(found.split()[1]) * 1024 / 1e6  # the kernel means KiB


def _cpu_seconds() -> float:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    """Measure one contender once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["stored", *CONTENDERS])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", choices=workload.SHAPES, default="usual")
    wishes = parser.parse_args()
    workload.use(wishes.shape)
    folder = wishes.folder.absolute() / wishes.shape
    folder.mkdir(parents=True, exist_ok=True)
    if wishes.name == "stored":
        stored(WARM_ROWS, folder)
        stored(wishes.rows, folder)
        return
    make, told = CONTENDERS[wishes.name], io.StringIO()
    with contextlib.redirect_stdout(told):  # peers speak
        for rows in (WARM_ROWS, wishes.rows):
            scratch = (
                folder if wishes.name.startswith("parse_") else folder / f"{wishes.name}-{rows}"
            )
            if scratch != folder:
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(parents=True)
            found = measured(make(rows, scratch))
            if scratch != folder:
                os.chdir(folder)
                shutil.rmtree(scratch)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

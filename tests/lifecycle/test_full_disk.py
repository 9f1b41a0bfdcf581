"""A disk without room at any verb: one sentence, nothing lost or paid twice (promises 3, 6, 9).

A limit on the size of files fills the disk for this process: every write of a byte fails.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import answer_lines

import frameenrich
from frameenrich.errors import FrameEnrichError, StoreError
from frameenrich.lifecycle import read_cache

ASK = "Sort {{ title }}"


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Let no file of this process grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error of the call, and no signal
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


@contextlib.contextmanager
def vanished(store: Path) -> Iterator[None]:
    """Take the store's folder away, as an unmounted disk is."""
    if not store.exists():
        yield
        return
    away = store.with_name("away")
    store.rename(away)
    try:
        yield
    finally:
        shutil.rmtree(store, ignore_errors=True)
        away.rename(store)


Verb = Callable[[frameenrich.Job, pd.DataFrame, Path], Any]
VERBS: dict[str, Verb] = {
    "wait": lambda job, _, __: job.wait(poll_seconds=0.01),
    "collect": lambda job, mugs, _: job.collect(mugs),
    "regenerate": lambda job, _, __: job.regenerate(),
    "cancel": lambda job, _, __: job.cancel(),
    "cleanup": lambda job, _, __: job.cleanup(),
    "import": lambda job, _, folder: job.import_responses(folder / "a.jsonl"),
    "review": lambda job, _, __: job.review(n=2),
    "report": lambda job, _, folder: job.report(folder / "page.html"),
    "second opinion": lambda job, _, __: job.second_opinion("m2", provider="file"),
    "submit more": lambda job, mugs, _: pd.concat(
        [mugs, mugs.set_axis(list("wxyz")).assign(title=list("wxyz"))]
    ).llmbatch.submit(ASK, "m", store=Path(job.path).parent, provider="file", name="more"),
}
ENDED = {"collect", "regenerate", "cleanup", "review", "report", "second opinion", "submit more"}


@pytest.fixture
def job(
    client: openai.OpenAI,
    store: Path,
    mugs: pd.DataFrame,
    server: BatchServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> frameenrich.Job:
    """Return a job that was just sent, of which one row will fail."""
    monkeypatch.setattr(read_cache, "_LEAST_BYTES", 0)
    server.faults.add("truncated", where="*A4*", times=1)
    made: frameenrich.Job = mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(made, "given", list(mugs.index)))
    return made


@pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")
@pytest.mark.parametrize("trouble", ["no room", "no folder"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_room_goes_on_when_there_is_some(
    verb: str,
    trouble: str,
    job: frameenrich.Job,
    mugs: pd.DataFrame,
    store: Path,
    server: BatchServer,
    tmp_path: Path,
) -> None:
    """Whatever it had reached; what needs no room, such as a collect, may work."""
    if verb in ENDED:
        job.wait(poll_seconds=0.01)
    with no_room() if trouble == "no room" else vanished(store):
        try:
            VERBS[verb](job, mugs, tmp_path)
        except FrameEnrichError as error:
            said = str(error)
            assert error.fix  # noqa: PT017 - either is right
            assert "Errno" not in said
        else:
            said = ""

    if verb not in {"collect", "report", "cancel"} and trouble == "no room":
        assert "File too large" in said, said
    VERBS[verb](job, mugs, tmp_path)
    out = job.wait(poll_seconds=0.01).collect(mugs)
    assert set(out["llmbatch_status"]) <= {"ok", "cancelled", "truncated"}
    for title, status, answer in zip(
        mugs["title"], out["llmbatch_status"], out["llmbatch"], strict=True
    ):
        assert status != "ok" or answer in {f"echo: Sort {title}", "given"}
    assert max(server.executed_bodies.values(), default=1) == 1


def test_a_submit_without_room_leaves_nothing(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """No job, no draft, no batch; the same call again makes it."""
    store.mkdir()
    with no_room(), pytest.raises(StoreError, match="Free some room there, then call again"):
        mugs.llmbatch.submit(ASK, "m", client=client, store=store)

    assert frameenrich.jobs(store=store).empty
    assert server.count("POST", "/v1/files") == 0
    job = mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    assert job.wait(poll_seconds=0.01).collect(mugs)["llmbatch_status"].eq("ok").all()

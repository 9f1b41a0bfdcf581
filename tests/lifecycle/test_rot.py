"""Rot anywhere in a job: never a wrong value under ``ok``, nothing paid again, no raw exception."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import answer_lines

import frameenrich
from frameenrich.errors import FrameEnrichError
from frameenrich.lifecycle import read_cache
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.store.folder import JobPath
from frameenrich.store.store import open_store
from frameenrich.verbs.job import Job

ASK = "Sort {{ title }}"
KEYS = [f"T-{n:02d}" for n in range(8)]

EXAMPLES = 3 * (50 if os.environ.get("FRAMEENRICH_HYPOTHESIS") == "explore" else 1)
SEED = int(os.environ.get("FRAMEENRICH_ROT_SEED", "14"))


def frame_of(word: str) -> pd.DataFrame:
    """Return eight rows whose titles are of one length whatever the word of five letters is."""
    titles = [f"{word} {n}" for n in range(len(KEYS))]
    return pd.DataFrame({"title": titles}, index=pd.Index(KEYS, name="sku"))


def make_store(store: Path, frame: pd.DataFrame, provider: OpenAIBatch, answers: Path) -> None:
    """Write two jobs: one of two rounds from the server, one with imported answers."""
    first = frame.llmbatch.submit(ASK, "m", name="sent", store=store, provider=provider)
    first.wait(poll_seconds=0.01)
    first.collect(frame)
    first.regenerate().wait(poll_seconds=0.01)
    first.collect(frame)
    first.review(n=4)
    other = frame.llmbatch.submit(ASK, "m2", name="given", store=store, provider="file")
    answers.write_bytes(answer_lines(other, "imported", KEYS))
    other.import_responses(answers)
    other.collect(frame)


def flipped(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """Change one bit."""
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else b"x"


def doubled(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """Write one line twice, of a file without lines one half."""
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines)) if lines else 0
    return b"".join([*lines[: at + 1], *lines[at:]])


def swapped(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """Exchange two lines."""
    lines = data.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines)


def zeroed(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """Lose a block, as a disk does."""
    at = rng.randrange(len(data) or 1)
    return data[:at] + b"\0" * len(data[at : at + 16]) + data[at + 16 :]


DAMAGES: dict[str, Callable[[bytes, random.Random, bytes], bytes | None]] = {
    "a bit flipped": flipped,
    "cut": lambda data, rng, _: data[: rng.randrange(len(data) or 1)],
    "emptied": lambda *_: b"",
    "deleted": lambda *_: None,
    "another job's": lambda _data, _rng, other: other,
    "a line twice": doubled,
    "lines in another order": swapped,
    "a block of zeros": zeroed,
}


@dataclass
class Stores:
    """A whole store, one that is damaged, and one of the same shape about other rows."""

    whole: Path
    used: Path
    other: Path
    frame: pd.DataFrame
    server: BatchServer
    provider: OpenAIBatch


@pytest.fixture
def stores(
    tmp_path: Path, server: BatchServer, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> Stores:
    """Make them; what was read is kept for these few bytes, too."""
    monkeypatch.setattr(read_cache, "_LEAST_BYTES", 0)
    # With the waits of a user, most of the hours would be pauses between attempts.
    provider = OpenAIBatch(client, attempts=2, wait_seconds=0.001)
    found = {}
    for name, word in (("used", "green"), ("other", "brown")):
        server.faults.add("expired_silently", ran=0.5)
        make_store(tmp_path / name, frame_of(word), provider, tmp_path / f"{name}.jsonl")
        found[name] = tmp_path / name
    shutil.copytree(tmp_path / "used", tmp_path / "whole")
    frame = frame_of("green")
    return Stores(tmp_path / "whole", **found, frame=frame, server=server, provider=provider)


def verbs(made: Stores, name: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what a user does with a job."""
    model = {"sent": "m", "given": "m2"}[name]
    where: Any = made.provider if name == "sent" else "file"

    def job() -> Job:
        found = frameenrich.llmbatch(made.frame).job(name, store=made.used)
        own = made.provider if name == "sent" else None
        return Job(JobPath(open_store(made.used), found.id), provider=own)

    yield "jobs", lambda: frameenrich.jobs(store=made.used)
    yield "repr", lambda: (repr(job()), job()._repr_html_())
    yield "collect", lambda: job().collect(made.frame)
    yield "usage", lambda: job().collect(made.frame, usage=True)
    yield "flagged", lambda: job().flagged()
    yield "sums", lambda: job().usage()
    yield "report", lambda: job().report(made.used.parent / "page.html")
    yield "evaluate", lambda: job().review(n=2)
    yield (
        "submit",
        lambda: made.frame.llmbatch.submit(ASK, model, name=name, store=made.used, provider=where),
    )
    yield "regenerate", lambda: job().regenerate()
    yield "wait", lambda: job().wait(poll_seconds=0.01, timeout=5)
    yield "collect", lambda: job().collect(made.frame)
    yield "cleanup", lambda: job().cleanup()


def said(name: str, title: str) -> str:
    """Return what was answered to a row."""
    return f"echo: Sort {title}" if name == "sent" else "imported"


def check_values(out: object, made: Stores, name: str) -> None:
    """Every ``ok`` row has its own answer."""
    if not isinstance(out, pd.DataFrame) or f"{name}_status" not in out:
        return
    assert out.index.equals(made.frame.index)
    for title, status, value in zip(
        made.frame["title"], out[f"{name}_status"], out[name], strict=True
    ):
        assert status != "ok" or value == said(name, title), (title, value)


def files_of(store: Path) -> list[str]:
    """Return the files of a store's jobs, as `job name/path`."""
    found = sorted(path for path in store.rglob("*") if path.is_file())
    return [str(path.relative_to(store)) for path in found if not path.name.startswith(".")]


def kind_of(path: str) -> str:
    """Name a file without what differs between stores."""
    job, _, rest = path.partition("/")
    return f"{job.partition('-')[0]}/{re.sub('[0-9a-f]{12}', 'ID', rest)}"


named = pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")


@named
def test_some_rot_in_every_file(stores: Stores) -> None:
    """Each file gets one kind of damage, in turn: what each change is tried with."""
    kinds = itertools.cycle(DAMAGES)
    others = {kind_of(path): path for path in files_of(stores.other)}
    wrong: list[str] = []
    for path in files_of(stores.whole):
        kind, name = next(kinds), kind_of(path)
        wrong += spoil(stores, path, DAMAGES[kind], others.get(name), f"{SEED} {name} {kind} 0")

    assert not wrong, "\n".join(wrong)


@pytest.mark.long  # a dozen verbs for each of fifteen files and each damage: half a minute of CPU
@pytest.mark.timeout(1800)
@named
@pytest.mark.parametrize("kind", DAMAGES)
def test_rot_anywhere(kind: str, stores: Stores) -> None:
    """In every kind of file, at places that a seed chooses; a red one has it (promises 2 to 4)."""
    others = {kind_of(path): path for path in files_of(stores.other)}
    wrong: list[str] = []
    for path in files_of(stores.whole):
        for example in range(EXAMPLES if kind in {"a bit flipped", "cut"} else 1):
            seed = f"{SEED} {kind_of(path)} {kind} {example}"
            wrong += spoil(stores, path, DAMAGES[kind], others.get(kind_of(path)), seed)

    assert not wrong, "\n".join(wrong)


def spoil(
    made: Stores, path: str, damage: Callable[..., bytes | None], other: str | None, seed: str
) -> list[str]:
    """Damage one file of a fresh copy, and try every verb."""
    shutil.rmtree(made.used)
    shutil.copytree(made.whole, made.used)
    rng, target = random.Random(seed), made.used / path
    data = target.read_bytes()
    changed = damage(data, rng, (made.other / other).read_bytes() if other else b"")
    if changed == data:
        return []
    target.unlink() if changed is None else target.write_bytes(changed)
    name = path.partition("-")[0]
    executed, wrong = dict(made.server.executed_bodies), []
    for verb, do in verbs(made, name):
        try:
            check_values(do(), made, name)
        except FrameEnrichError:
            continue
        except Exception as error:  # noqa: BLE001 - all of them are told
            wrong.append(f"{seed}: {verb}: {error!r}")
        if dict(made.server.executed_bodies) != executed:
            wrong.append(f"{seed}: {verb}: paid again")
            made.server.executed_bodies.clear()
            made.server.executed_bodies.update(executed)
    return wrong

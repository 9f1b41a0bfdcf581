"""Fixtures: a real loopback server, a client for it, a store, and frames to send."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import light_start  # noqa: F401 - first: it makes the others cheap
import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from browser import Chromium, find_chromium
from hypothesis import settings
from object_server import object_server

import frameenrich  # noqa: F401 - registers df.llmbatch
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

DEPARTMENTS = ["Kitchen", "Garden", "Clothing", "Electronics", "Toys"]
ROOT = Path(__file__).parent.parent
LONGEST_ID = 100

# The same examples every time, so that a red run is a fault of the change and not of the draw; a
# busy machine is no failure. `.ci/long` draws anew, before a release and by hand.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1_000)
settings.register_profile("few", deadline=None, derandomize=True, max_examples=10)  # mutation.py
# What a script starts in the background ignores Ctrl-C; the tests of it send one.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.load_profile(os.environ.get("FRAMEENRICH_HYPOTHESIS", "tests"))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case of a long text by its argument, not by the text.

    Processes of pytest-xdist compare the names of all tests, and a packed text has the second in
    it at which it was packed: where two of them differ, nothing is run at all.
    """
    return argname if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no store and no proxy from outside; the working folder is empty."""
    theirs = ("OPENAI_", "AZURE_OPENAI_", "GROQ_", "TOGETHER_", "ANTHROPIC_")
    for name in [n for n in os.environ if n.startswith(theirs)] + ["FRAMEENRICH_STORE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    """A server without faults; tests add theirs."""
    with BatchServer() as running:
        yield running


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """The embedded model in one thread: where cores are busy, two spin for each other's share."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server for all tests of a process, as the environment that leads to it.

    Ours, at a tenth of what moto costs; `store/test_thin_s3.py` holds the two side by side.
    """
    with object_server("thin_s3.py") as environment:
        yield environment


@pytest.fixture(scope="session")
def moto() -> Iterator[dict[str, str]]:
    """An S3 server that is not ours, for what shows that we read S3's rules as others do."""
    with object_server() as environment:
        yield environment


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One browser for all tests of a process; they take `browser`."""
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with Chromium() as running:
        yield running


@pytest.fixture
def browser(chromium: Chromium) -> Chromium:
    """The browser as if it had seen nothing yet, whichever test had it before."""
    chromium.start_over()
    return chromium


@pytest.fixture
def client(server: BatchServer) -> Iterator[openai.OpenAI]:
    """The SDK's client, pointed at the server."""
    with openai.OpenAI(api_key="sk-test", base_url=server.base_url) as made:
        yield made


@pytest.fixture
def provider(client: openai.OpenAI) -> OpenAIBatch:
    """The Batch API provider with waits short enough for tests."""
    return OpenAIBatch(client, attempts=4, wait_seconds=0.01)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store's folder."""
    return tmp_path / "store"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause that was planned so far: the same ones on a slow machine."""
    planned: list[float] = []
    sleep, timeout = time.sleep, asyncio.timeout

    def noted_sleep(seconds: float) -> None:
        planned.append(seconds)
        sleep(seconds)

    def noted_timeout(seconds: float | None) -> asyncio.Timeout:
        planned.append(seconds or 0.0)
        return timeout(seconds)

    monkeypatch.setattr(time, "sleep", noted_sleep)
    # A live call pauses so, that it can be woken.
    monkeypatch.setattr(asyncio, "timeout", noted_timeout)
    return planned


@pytest.fixture
def products() -> pd.DataFrame:
    """The sample catalogue."""
    return pd.read_csv(ROOT / "sample_data" / "products.csv", dtype={"sku": str})


@pytest.fixture
def mugs() -> pd.DataFrame:
    """Four plain rows, named by an index of texts."""
    titles = ["Red mug", "Blue hose", "Green sock", "Grey phone"]
    return pd.DataFrame({"title": titles}, index=pd.Index(["A1", "A2", "A3", "A4"], name="sku"))


def rewrite_batch(path: Path, **changes: Any) -> None:
    """Change what a batch.json says, without the mark that shows damage: older ones have none."""
    batch = json.loads(path.read_bytes())
    batch.pop("xxh3", None)
    path.write_text(json.dumps({**batch, **changes}))


def tagged(job: Job, name: str) -> str:
    """Return a row's custom_id in a job: with the job's tag, which is random."""
    return f"{name}-{job.spec.tag}"


def answer_lines(job: Job, said: str, keys: list[str]) -> bytes:
    """Return response lines for some rows of a job."""
    body = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
    response = {"response": {"status_code": 200, "body": body}, "error": None}
    lines = ({"custom_id": tagged(job, f"row-{key}"), **response} for key in keys)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def status_counts(frame: pd.DataFrame, name: str = "llmbatch") -> dict[str, int]:
    """How many rows have each status."""
    counts: Any = frame[f"{name}_status"].value_counts().to_dict()
    return {str(status): int(n) for status, n in counts.items()}

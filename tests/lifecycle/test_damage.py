"""What is on disk is proved: damage is named, brought back from the provider, never paid for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import answer_lines, rewrite_batch

import frameenrich
from frameenrich.errors import DamagedFileError, FrameEnrichWarning, StoreError

ASK = "Sort {{ title }}"


def _flipped(data: bytes) -> bytes:
    at = data.index(b"echo: Sort Red mug") + 14
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut at a line end": lambda data: b"".join(data.splitlines(keepends=True)[:2]),
    "emptied": lambda _: b"",
    "deleted": lambda _: None,
    "a letter flipped": _flipped,
    "a line twice": lambda data: data + data.splitlines(keepends=True)[0],
}
damages = pytest.mark.parametrize("damage", DAMAGES)


def responses_of(job: frameenrich.Job) -> Path:
    """Return where the job's only responses file is."""
    return Path(job.path, "round-0", "shard-00000.responses.jsonl")


def spoil(path: Path, damage: str) -> bytes:
    """Damage a file; gives what it was."""
    whole = path.read_bytes()
    spoiled = DAMAGES[damage](whole)
    path.unlink() if spoiled is None else path.write_bytes(spoiled)
    return whole


@pytest.fixture
def job(client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer) -> Any:
    """Return a job whose batch has ended and was brought home."""
    made = mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    return made.wait(poll_seconds=0.01)


@damages
def test_damaged_answers_are_fetched_again_by_themselves(
    damage: str, job: frameenrich.Job, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """The provider has them still: nothing is paid again, nothing is lost (promises 3 and 4)."""
    whole = spoil(responses_of(job), damage)

    with pytest.warns(FrameEnrichWarning, match=r"responses\.jsonl is damaged: .*fetched"):
        out = job.collect(mugs)

    assert out["llmbatch"].tolist() == [f"echo: Sort {title}" for title in mugs["title"]]
    assert sorted(responses_of(job).read_bytes().splitlines()) == sorted(whole.splitlines())
    assert server.count("POST", "/v1/batches") == 1


@damages
def test_damaged_answers_are_not_asked_again(
    damage: str, job: frameenrich.Job, server: BatchServer
) -> None:
    """A round that is sent for what the disk lost would be paid twice (promise 3)."""
    spoil(responses_of(job), damage)

    with pytest.warns(FrameEnrichWarning, match="fetched"):
        job.regenerate()

    assert server.count("POST", "/v1/batches") == 1


@damages
def test_damage_is_named_where_the_provider_has_nothing_any_more(
    damage: str, job: frameenrich.Job, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """After `cleanup` the file on disk is the only one: an error, no row is taken for missing."""
    job.cleanup()
    spoil(responses_of(job), damage)

    for verb in (lambda: job.collect(mugs), job.regenerate, job.flagged, job.refetch):
        with pytest.raises(DamagedFileError, match=r"responses\.jsonl is damaged"):
            verb()
    assert server.count("POST", "/v1/batches") == 1


@damages
def test_cleanup_keeps_the_providers_copy_of_what_is_damaged_here(
    damage: str, job: frameenrich.Job, server: BatchServer
) -> None:
    """What is deleted there is proved to be whole here first; `refetch` makes it so (promise 4)."""
    spoil(responses_of(job), damage)

    with pytest.raises(DamagedFileError, match="is damaged"):
        job.cleanup()

    assert server.count("DELETE", "*") == 0
    assert (job.refetch(), job.refetch()) == (1, 0)
    assert job.cleanup() == 1


def test_damage_is_named_without_a_key(
    job: frameenrich.Job, store: Path, mugs: pd.DataFrame
) -> None:
    """Where the provider cannot be asked, the error is about the file, not about the key."""
    spoil(responses_of(job), "emptied")

    with pytest.raises(DamagedFileError, match=r"it has 0 bytes of .*job\.refetch\(\)"):
        frameenrich.open_job(job.id, store).collect(mugs)


def test_a_damaged_import_is_named(store: Path, mugs: pd.DataFrame, tmp_path: Path) -> None:
    """Nobody but its owner can bring an imported file back."""
    job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "good", ["A1"]))
    (path,) = Path(job.import_responses(tmp_path / "a.jsonl").path, "round-0").glob("*.import-*")
    path.write_bytes(path.read_bytes().replace(b"good", b"evil"))

    with pytest.raises(DamagedFileError, match=r"import-.* is damaged"):
        job.collect(mugs)


# --- requests -------------------------------------------------------------------------------------


def test_a_request_that_rotted_is_not_sent_by_regenerate(
    client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """A flipped digit would be answered, and put on a row that asked something else (promise 2)."""
    frame = pd.DataFrame({"title": ["7 mugs", "8 mugs"]})
    server.faults.add("malformed", where="row-*", content="no label")
    job = frame.llmbatch.submit(ASK, "m", labels=["a", "b"], client=client, store=store)
    job.wait(poll_seconds=0.01)
    path = Path(job.requests[0])
    path.write_bytes(path.read_bytes().replace(b"7 mugs", b"9 mugs"))

    with pytest.raises(StoreError, match=r"is damaged: the request row-0-.{6} is not"):
        job.regenerate()

    assert server.count("POST", "/v1/batches") == 1


@pytest.mark.parametrize(
    ("damage", "older"),
    [
        *[(damage, older) for damage in ("flipped", "cut", "swapped") for older in (False, True)],
        ("respaced", False),
    ],
)
def test_a_requests_file_that_rotted_is_not_sent(
    damage: str,
    older: bool,
    client: openai.OpenAI,
    store: Path,
    mugs: pd.DataFrame,
    server: BatchServer,
) -> None:
    """Between the disk and the first upload, the file is compared with its hash (promise 2).

    Where an older version wrote none into batch.json, each request is, with its own.
    """
    server.faults.add("file_quota_exceeded")
    with pytest.raises(frameenrich.FrameEnrichError):
        mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    job = frameenrich.open_job(frameenrich.jobs(store)["job"][0], store, client=client)
    path = Path(job.requests[0])
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "flipped":
        lines[0] = lines[0].replace(b"Red", b"Bed")
    elif damage == "cut":
        del lines[-1]
    elif damage == "respaced":
        lines[0] = lines[0].replace(b"}\n", b" }\n")
    else:
        first, second = (line.partition(b'","method"') for line in lines[:2])
        lines[:2] = [first[0] + b'","method"' + second[2], second[0] + b'","method"' + first[2]]
    path.write_bytes(b"".join(lines))
    if older:
        batch = path.with_name(path.name.replace("requests.jsonl", "batch.json"))
        rewrite_batch(batch, requests_xxh3=None)

    with pytest.raises(StoreError, match=r"requests\.jsonl is damaged"):
        job.send()

    assert server.count("POST", "/v1/batches") == 0


def test_another_jobs_batch_file_asks_nothing_again(
    job: frameenrich.Job, client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """It is whole and says that all has come, of other requests: this job's would seem missing."""
    other = mugs.assign(title=list("wxyz")).llmbatch.submit(ASK, "m", client=client, store=store)
    other.wait(poll_seconds=0.01)
    name = "round-0/shard-00000.batch.json"
    Path(job.path, name).write_bytes(Path(other.path, name).read_bytes())

    again = frameenrich.open_job(job.id, store, client=client)
    for do in (again.collect, again.regenerate, again.wait):
        with pytest.raises(StoreError, match="it is of another batch"):
            do()

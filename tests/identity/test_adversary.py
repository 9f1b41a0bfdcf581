"""Hashes against somebody who chooses the texts: two crafted ones never share an answer.

XXH3 multiplies the halves of each eight bytes, after an XOR with a secret that everybody knows. Two
places of a text whose upper halves differ as their secrets do make products that cancel out, when
one letter goes up in the one place and down in the other. `TWINS` are two such texts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_server import BatchServer

from frameenrich.errors import FrameMismatchError
from frameenrich.identity import older
from frameenrich.identity.fingerprint import fingerprint
from frameenrich.identity.hashes import request_hash
from frameenrich.jsonl import body_of, encode, request_ids
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.store import Store


def _twin(first: bytes, second: bytes) -> str:
    text = bytearray(b"A very plain mug of white china, which holds a quarter of a litre. " * 8)
    text[191:199], text[319:327] = first + b"t awWzzz"[1:], second + b"f a ,6oD"[1:]
    return text[:500].decode()


TWINS = (_twin(b"b", b"c"), _twin(b"c", b"b"))
FAST: dict[str, Any] = {"poll_seconds": 0.01}


def twin_bodies() -> list[bytes]:
    """Return two requests that older hashes could not tell apart."""
    asked = ({"messages": [{"role": "user", "content": text}], "model": "m"} for text in TWINS)
    return [encode(body) for body in asked]


def as_older(folder: JobFolder) -> JobFolder:
    """Make a job's sidecar say what an earlier version wrote there: XXH3."""
    table, path = folder.sidecar(), Path(folder.path, "sidecar.parquet")
    hashes = {}
    for shard in folder.all_shards():
        with shard.open_requests() as lines:
            for custom_id, line in request_ids(lines):
                hashes[custom_id] = older.request_hash(folder.spec.url, body_of(line))
    own = pa.array([hashes[i] for i in table["custom_id"].to_pylist()], pa.binary(16))
    for name in ("request_hash", "input_hash"):
        table = table.set_column(table.column_names.index(name), name, own)
    metadata = dict(table.schema.metadata)
    spec = json.loads(metadata[b"frameenrich.spec"])
    metadata[b"frameenrich.spec"] = json.dumps({**spec, "version": 2}).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return JobPath(folder.store, folder.id).open()


def test_the_twins_are_what_they_are_made_to_be() -> None:
    """The older hash cannot tell them apart, else the tests below would prove nothing."""
    one, other = twin_bodies()

    assert one != other
    assert older.request_hash("/v1/chat/completions", one) == older.request_hash(
        "/v1/chat/completions", other
    )
    assert older.texts_hashes([TWINS[:1]]) == older.texts_hashes([TWINS[1:]])
    assert request_hash("/v1/chat/completions", one) != request_hash("/v1/chat/completions", other)


def test_twins_are_asked_apart(client: openai.OpenAI, store: Path, server: BatchServer) -> None:
    """Each of two crafted texts is sent, and has its own answer (promise 2)."""
    frame = pd.DataFrame({"text": TWINS})

    job = frame.llmbatch.submit("{{ text }}", "m", client=client, store=store)
    out = job.collect(frame, wait=True, **FAST)

    assert out["llmbatch"].tolist() == [f"echo: {text}" for text in TWINS]
    assert sum(server.executed.values()) == 2


@pytest.mark.parametrize("template", ["{{ text }}", "{{ text }}{{ n }}"])
def test_swapped_twins_are_a_changed_frame(template: str, store: Path) -> None:
    """Two crafted texts that changed places under their keys are told, not merged (promise 2).

    A column of lists has no fingerprint, so that there the input hashes decide.
    """
    frame = pd.DataFrame({"text": TWINS, "n": [[], []]})
    frame.llmbatch.submit(template, "m", provider="file", store=store)

    with pytest.raises(FrameMismatchError, match="2 of the frame's rows changed"):
        frame.iloc[::-1].reset_index(drop=True).llmbatch.collect(store=store)


def test_twins_have_two_fingerprints() -> None:
    """A frame is not taken for its crafted twin without a look at its rows (promise 2)."""
    one, other = (fingerprint(pd.DataFrame({"text": [text]}), ["text"]) for text in TWINS)

    assert one != other


@pytest.mark.parametrize("by", ["this version", "an earlier version"])
def test_no_answer_is_reused_for_a_twin(
    by: str, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """An answer to one crafted text is not the other's, whichever version wrote the store."""
    allowed, forbidden = (pd.DataFrame({"text": [text]}) for text in TWINS)
    first = allowed.llmbatch.submit("{{ text }}", "m", name="one", client=client, store=store)
    first.wait(**FAST)
    if by == "an earlier version":
        as_older(JobPath(Store(store), first.id).open())

    job = forbidden.llmbatch.submit("{{ text }}", "m", name="two", client=client, store=store)
    same = allowed.llmbatch.submit("{{ text }}", "m", name="three", client=client, store=store)
    out = job.collect(forbidden, wait=True, **FAST)

    assert (job.reused, same.reused) == (0, 1)
    assert out["two"].tolist() == [f"echo: {TWINS[1]}"]
    assert sum(server.executed.values()) == 2


def test_a_custom_id_of_a_long_key_depends_on_the_tag(store: Path) -> None:
    """Keys that are crafted to have one custom_id would have to know the job's random tag."""
    frame = pd.DataFrame({"text": ["a", "b"]}, index=["https://example.org/a", "x" * 90])
    jobs = [
        frame.llmbatch.submit("{{ text }}", "m", name=name, provider="file", store=store)
        for name in ("one", "two")
    ]

    ids = [job.collect(usage=True)[f"{job.spec.name}_custom_id"].tolist() for job in jobs]

    for job, own in zip(jobs, ids, strict=True):
        assert all(name.endswith(f"-{job.spec.tag}") for name in own)
    assert len({name[:-7] for own in ids for name in own}) == 4

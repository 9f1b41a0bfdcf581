"""What a collect keeps of what it read: used for the very same reading, and never trusted else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from crash import KillPoint, start, watch
from pandas.testing import assert_frame_equal
from pydantic import BaseModel, Field, create_model, field_serializer, field_validator

import frameenrich
from frameenrich.errors import DamagedFileError, FrameEnrichWarning
from frameenrich.lifecycle import read_cache

pytestmark = pytest.mark.filterwarnings("ignore:.*were mended")

ROWS = 1_100
WORDS = "Ein schöner, langer Satz über nichts. " * 110
FRAME = pd.DataFrame({"title": [f"Thing {n}" for n in range(ROWS)]})


class Plain(BaseModel):
    """A class that pydantic's own rules read."""

    summary: str
    score: int


class Checked(Plain):
    """A class with a rule of its own."""

    @field_validator("score")
    @classmethod
    def small(cls, score: int) -> int:
        """Refuse what is not below fifty."""
        if score >= 50:
            raise ValueError("not below fifty")
        return score


def answer(number: int) -> str:
    """Return an answer: whole, malformed, or one that has to be mended."""
    text = json.dumps({"summary": f"{number} {WORDS}", "score": number % 100})
    return {7: text[:-20], 8: f"Sure! {text}"}.get(number % 50, text)


def response(custom_id: str, content: str) -> str:
    """Return a response line."""
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    line = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}
    return json.dumps(line) + "\n"


def _lines(path: str) -> list[bytes]:
    return Path(path).read_bytes().splitlines()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a job with enough answers, in another order than its rows; one has two, one has none."""
    folder = tmp_path_factory.mktemp("read-cache")
    job = FRAME.llmbatch.submit(
        "What is {{ title }}?", "m", response_model=Plain, provider="file", store=folder / "store"
    )
    (requests,) = job.requests
    ids = [json.loads(line)["custom_id"] for line in _lines(requests)]
    lines = [response(own, answer(number)) for number, own in enumerate(ids)]
    lines[3] = response(ids[3], "no JSON") + lines[3]
    lines[4] = '{"error": "a gateway\'s own words"}\n'
    (folder / "came.jsonl").write_text("".join(reversed(lines)))
    job.import_responses(folder / "came.jsonl")
    return folder / "store"


@pytest.fixture
def job(made: Path, tmp_path: Path) -> frameenrich.Job:
    """Return the job in a store of the test's own."""
    shutil.copytree(made, tmp_path / "store")
    (name,) = [path.name for path in made.iterdir() if path.is_dir()]
    return frameenrich.open_job(name, store=tmp_path / "store")


@pytest.fixture(autouse=True)
def fresh_versions() -> Iterator[None]:
    """Forget the versions that a test has made up."""
    yield
    read_cache._versions.cache_clear()


def kept(job: frameenrich.Job) -> list[Path]:
    """Return the files that are kept."""
    return sorted(Path(job.path).rglob("*.read"))


def anew(job: frameenrich.Job, **options: Any) -> pd.DataFrame:
    """Collect with nothing kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAMEENRICH_READ_CACHE", "off")
        return job.collect(FRAME, **options)


def test_a_second_collect_reads_what_the_first_kept(job: frameenrich.Job) -> None:
    """It gives the same frame and writes nothing: it was not read again."""
    plain = anew(job)
    assert not kept(job)

    first = job.collect(FRAME)
    (file,) = kept(job)
    before = file.stat()
    with pytest.warns(FrameEnrichWarning, match="22 of the 1,077 usable answers"):
        second, alone = job.collect(FRAME), job.collect()

    assert_frame_equal(first, plain)
    assert_frame_equal(second, plain)
    assert alone["summary"].equals(plain["summary"])
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert file.stat().st_size < Path(job.requests[0]).stat().st_size * 10
    assert plain["llmbatch_status"].value_counts().to_dict() == {
        "ok": 1_077, "malformed": 22, "missing": 1,
    }  # fmt: skip


def _another_import(job: frameenrich.Job) -> dict[str, Any]:
    ids = [json.loads(line)["custom_id"] for line in _lines(job.requests[0])]
    path = Path(job.path).parent / "more.jsonl"
    path.write_text(response(ids[4], '{"summary": "late", "score": 4}'))
    job.import_responses(path)
    return {}


def _touched(job: frameenrich.Job) -> dict[str, Any]:
    (path,) = Path(job.path).rglob("*.import-*")
    os.utime(path, (1, 1))
    return {}


def _another_version(job: frameenrich.Job) -> dict[str, Any]:
    read_cache._versions().append(("frameenrich", "99"))
    return {}


@pytest.mark.parametrize(
    "change",
    [
        _another_import,
        _touched,
        _another_version,
        lambda _: {"response_model": {"summary": str}},
        lambda _: {"response_model": {"summary": str, "score": float}},
        lambda _: {"response_model": Plain},
        lambda _: {"labels": ["a", "b"]},
    ],
    ids=["import", "mtime", "version", "fields", "types", "class", "labels"],
)
def test_what_was_kept_for_another_reading_is_not_used(change: Any, job: frameenrich.Job) -> None:
    """Other responses, fields, types, class or version: all is read anew, and kept as that."""
    job.collect(FRAME)
    before = kept(job)[0].stat().st_ino

    options = change(job)
    out = job.collect(FRAME, **options)

    assert_frame_equal(out, anew(job, **options))
    assert kept(job)[0].stat().st_ino != before
    again = kept(job)[0].stat().st_ino
    assert_frame_equal(job.collect(FRAME, **options), out)
    assert kept(job)[0].stat().st_ino == again


@pytest.mark.parametrize(
    "options",
    [{"response_model": Checked}, {"parser": json.loads}, {"usage": True}],
    ids=["validators", "parser", "usage"],
)
def test_what_code_of_the_user_reads_is_not_kept(
    options: dict[str, Any], job: frameenrich.Job
) -> None:
    """No text stands for a validator or a parser; ``usage=True`` is as large as the responses."""
    out = job.collect(FRAME, **options)

    assert not kept(job)
    assert_frame_equal(job.collect(FRAME, **options), out)
    if options.get("response_model") is Checked:
        assert out["llmbatch_status"].value_counts()["malformed"] > 500


def test_responses_that_rot_are_found_beside_what_was_kept(job: frameenrich.Job) -> None:
    """The responses are the truth: an edit in place is damage, whatever the file's times say."""
    job.collect(FRAME)
    (path,) = Path(job.path).rglob("*.import-*")
    before = path.stat()

    with path.open("r+b") as file:
        file.seek(2_000)
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(DamagedFileError):
        job.collect(FRAME)


def test_damage_to_what_was_kept_is_read_around_in_silence(job: frameenrich.Job) -> None:
    """Bytes that rot, a file that is cut, empty or something else: the answers are the same."""
    plain = job.collect(FRAME)
    (file,) = kept(job)
    whole = file.read_bytes()
    size = len(whole)
    flips = [0, 30, 70, 97, 98, 200, size // 2, size - 9, size - 1]
    flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in flips]
    cut = [whole[:i] for i in (0, 1, 64, 97, 98, size // 2, size - 1)]

    for number, damaged in enumerate([*flipped, *cut, whole + b"x", b"PAR1"]):
        file.write_bytes(damaged)
        assert job.collect()["score"].equals(plain["score"]), number
        assert file.read_bytes() == whole, number


def test_a_store_that_cannot_be_written_is_read_all_the_same(job: frameenrich.Job) -> None:
    """Keeping is a favour: where it fails, the answers come and nothing is said."""
    blocked = Path(job.path, "round-0", "shard-00000.read")
    blocked.mkdir()

    assert_frame_equal(job.collect(FRAME), anew(job))


def test_a_kill_at_any_step_of_keeping_leaves_good_answers(job: frameenrich.Job) -> None:
    """Whole or not at all: what a killed process leaves is never half an answer (promise 6)."""
    plain, steps = anew(job), 0
    for at in range(1, 20):

        def collect(at: int = at) -> None:
            watch(KillPoint(at))
            job.collect(FRAME)

        _, status = os.waitpid(start(collect), 0)
        assert_frame_equal(job.collect(FRAME), plain)
        for path in kept(job):
            path.unlink()
        if not os.WIFSIGNALED(status):
            break
        steps += 1

    assert steps >= 4


def test_two_processes_may_keep_at_once(job: frameenrich.Job) -> None:
    """Each writes a file of its own and renames it; the last one stays (promise 6)."""
    plain = anew(job)

    def collect() -> None:
        assert_frame_equal(job.collect(FRAME), plain)

    ended = [os.waitpid(child, 0)[1] for child in [start(collect), start(collect)]]

    assert ended == [0, 0]
    assert len(kept(job)) == 1
    assert_frame_equal(job.collect(FRAME), plain)
    assert not list(Path(job.path).rglob("*.tmp"))


def _writes(change: Callable[[str], str]) -> type[BaseModel]:
    class Written(BaseModel):
        """A class that writes a text in its own way."""

        summary: str
        score: int

        @field_serializer("summary")
        def shout(self, summary: str) -> str:
            """Return the text as it is to be in the column."""
            return change(summary)

    return Written


def test_a_serializer_that_was_edited_reads_anew(job: frameenrich.Job) -> None:
    """Promise 10: the values are what the class writes now, not what it once wrote."""
    loud = job.collect(FRAME, response_model=_writes(str.upper))
    low = job.collect(FRAME, response_model=_writes(str.lower))

    assert str(loud["summary"].iloc[0]).isupper()
    assert str(low["summary"].iloc[0]).islower()


def test_texts_that_look_like_addresses_are_part_of_the_class() -> None:
    """Only pydantic's references hold addresses; a pattern's colon is the user's."""

    def limited(pattern: str) -> type[BaseModel]:
        class Limited(BaseModel):
            """A class with one rule."""

            ratio: str = Field(pattern=pattern)

        return Limited

    marks = [read_cache._class_mark(limited(pattern)) for pattern in ("16:9", "16:10", "16:9")]

    assert marks[0] == marks[2] != marks[1]


def test_parts_that_refer_to_many_others_are_written_down_once_each() -> None:
    """By each path there would be 3**24 of them, and no collect would end."""

    def chain(innermost: Any) -> type[BaseModel]:
        models: list[Any] = [create_model("Node0", value=(innermost, ...))]
        for level in range(1, 24):
            parts: Any = {f"part_{i}": (each | None, None) for i, each in enumerate(models[-3:])}
            models.append(create_model(f"Node{level}", **parts))
        return models[-1]  # type: ignore[no-any-return]

    marks = [str(read_cache._class_mark(chain(kind))) for kind in (int, str, int)]

    assert marks[0] == marks[2] != marks[1]


def test_fields_may_be_called_as_pydantics_references() -> None:
    """A class with a field `ref` broke every collect of its answers."""
    ours = create_model("Ours", ref=(str, ...), schema_ref=(int, ...))
    other = create_model("Ours", ref=(str, ...), schema_ref=(str, ...))

    assert read_cache._class_mark(ours) != read_cache._class_mark(other)

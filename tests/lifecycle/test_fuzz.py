"""Whatever comes back or lies on disk: `collect` never raises, and no row gets another's answer.

A job that is finished but for its responses file, which is written anew for each example. Every
answer holds a word that only its own row's request had, so an answer in a wrong row shows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import rewrite_batch, tagged
from draws import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import frameenrich
from frameenrich.errors import FrameEnrichError, FrameEnrichWarning, StoreError
from frameenrich.model import RowStatus
from frameenrich.store.folder import JobPath
from frameenrich.store.store import open_store
from frameenrich.verbs.job import Job

WORDS = ["alder", "birch", "cedar", "doumo", "ebony", "fagus", "gumbo", "hazel"]
KEYS = [f"T-{n}" for n in range(len(WORDS))]
FRAME = pd.DataFrame({"word": WORDS}, index=pd.Index(KEYS, name="sku"))
STATUSES = {str(status) for status in RowStatus}
MODEL = {"word": str, "count": int, "size": Literal["S", "M"], "tags": list[str]}
Kind = Literal["text", "labels", "schema", "responses"]
KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "labels": {"labels": WORDS},
    "schema": {"response_model": MODEL, "prefix": "p_"},
    "responses": {"endpoint": "/v1/responses"},
}

fuzzed = examples(10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def answer(kind: str, word: str) -> str:
    """What the model says to a row."""
    if kind == "schema":
        return json.dumps({"word": word, "count": 3, "size": "S", "tags": [word]})
    return json.dumps({"label": word}) if kind == "labels" else f"it is {word}"


TAGS: dict[str, str] = {}
"""What ends the custom_ids of each kind's job."""


def line(kind: str, number: int) -> dict[str, Any]:
    """A row's good response line."""
    text = answer(kind, WORDS[number])
    body: dict[str, Any] = {
        "id": "x",
        "model": "m",
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
        "choices": [
            {"message": {"content": text, "refusal": None}, "finish_reason": "stop", "text": text}
        ],
    }
    if kind == "responses":
        part = {"type": "output_text", "text": text}
        body |= {"output": [{"type": "message", "content": [part]}], "status": "completed"}
    return {
        "id": f"batch_req_{number}",
        "custom_id": f"row-{KEYS[number]}-{TAGS[kind]}",
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
    }


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """One job a kind of output, its batch ended, its responses to be written."""
    store = tmp_path_factory.mktemp("fuzz") / "store"
    made = {}
    for kind, wishes in KINDS.items():
        job: Job = FRAME.llmbatch.submit(
            "Which tree is {{ word }}?", "m", name=kind, provider="file", store=store, **wishes
        )
        TAGS[kind] = job.spec.tag
        start = store.parent / f"{kind}.jsonl"
        start.write_text(json.dumps(line(kind, 0)))
        made[kind] = job.import_responses(start)
    return made


def responses_path(job: Job) -> Path:
    """Where a job's only responses file is; what proves it is left out, so that anything goes."""
    round_ = Path(job.path, "round-0")
    for path in round_.glob("*.import-*"):
        path.unlink()
    books = round_ / "shard-00000.batch.json"
    told = json.loads(books.read_bytes())
    if told["imports"]:
        rewrite_batch(books, imports=[])
    return round_ / "shard-00000.responses.jsonl"


def check(job: Job, data: bytes) -> pd.DataFrame:
    """Collect these responses: every row has one status, and no other row's word."""
    kind = job.spec.name
    responses_path(job).write_bytes(data)

    out = job.collect(FRAME, usage=True)

    assert out.index.equals(FRAME.index)
    assert set(out[f"{kind}_status"]) <= STATUSES
    ok = [status == "ok" for status in out[f"{kind}_status"]]
    value = out["p_word"] if kind == "schema" else out[kind]
    assert [fine or bool(pd.isna(said)) for fine, said in zip(ok, value, strict=True)] == [True] * 8
    assert out[f"{kind}_error"].isna().tolist() == ok
    for word, said in zip(WORDS, value.astype(object), strict=True):
        others = [] if pd.isna(said) else [w for w in WORDS if w != word and w in str(said)]
        assert others == [], (word, said)
    out.to_parquet(io.BytesIO())
    assert len(job.flagged(FRAME)) == ok.count(False)
    return out


def pack(lines: list[Any]) -> bytes:
    """Lines to a file, each as one would write it."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def every(kind: str) -> list[dict[str, Any]]:
    """All rows' good lines."""
    return [line(kind, number) for number in range(len(WORDS))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_unspoiled_file_is_all_ok(kind: str, jobs: dict[str, Job]) -> None:
    """Without damage every row is ``ok``: what follows is about the damage."""
    out = check(jobs[kind], pack(every(kind)))

    assert out[f"{kind}_status"].eq("ok").all()


# --- bytes ---------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.sampled_from(
        [
            b"\0",
            b"\n",
            b"\r\n",
            b'"',
            b"\\",
            b"\xff\xfe",
            b"\xed\xa0\x80",
            b"\xe2\x80\xa8",
            b"}",
            b"{",
        ]
    ),
)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed
def test_bytes_inserted_anywhere(kind: str, jobs: dict[str, Job], data: st.DataObject) -> None:
    """Random bytes, NULs, newlines and broken UTF-8 inside lines lose those lines at most."""
    spoiled = pack(every(kind))
    hit = set()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(spoiled)))
        hit.add(spoiled[:at].count(b"\n"))
        spoiled = spoiled[:at] + data.draw(PIECES) + spoiled[at:]

    out = check(jobs[kind], spoiled)

    assert out[f"{kind}_status"].eq("ok").sum() >= len(WORDS) - 2 * 6


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed
def test_lines_cut_swapped_and_doubled(
    kind: str, jobs: dict[str, Job], data: st.DataObject
) -> None:
    """Lines in any order, twice, cut at the end or at the start, and glued to the next."""
    order = data.draw(st.lists(st.integers(0, len(WORDS) - 1), max_size=14))
    lines = [json.dumps(line(kind, number)).encode() for number in order]
    whole = set(range(len(WORDS)))
    spoiled = b""
    for number, text in zip(order, lines, strict=True):
        cut = data.draw(st.one_of(st.none(), st.integers(0, len(text) - 1)))
        tail = data.draw(st.booleans())
        end = data.draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b""]))
        piece = text if cut is None else text[cut:] if tail else text[:cut]
        spoiled += piece + end
        if cut is not None or end == b"":
            whole.discard(number)

    out = check(jobs[kind], spoiled)

    unseen = [key for number, key in enumerate(KEYS) if number not in order]
    assert out[f"{kind}_status"][unseen].eq("missing").all()


@given(junk=st.binary(max_size=400))
@fuzzed
def test_a_file_of_noise(jobs: dict[str, Job], junk: bytes) -> None:
    """A responses file that is nothing at all leaves every row ``missing``."""
    out = check(jobs["text"], junk)

    assert set(out["text_status"]) == {"missing"}


# --- values --------------------------------------------------------------------------------------

MEMBERS: list[tuple[str | int, ...]] = [
    ("id",),
    ("custom_id",),
    ("response",),
    ("error",),
    ("response", "status_code"),
    ("response", "body"),
    ("response", "body", "error"),
    ("response", "body", "model"),
    ("response", "body", "status"),
    ("response", "body", "incomplete_details"),
    ("response", "body", "usage"),
    ("response", "body", "usage", "prompt_tokens"),
    ("response", "body", "choices"),
    ("response", "body", "choices", 0),
    ("response", "body", "choices", 0, "finish_reason"),
    ("response", "body", "choices", 0, "text"),
    ("response", "body", "choices", 0, "message"),
    ("response", "body", "choices", 0, "message", "content"),
    ("response", "body", "choices", 0, "message", "refusal"),
    ("response", "body", "output"),
    ("response", "body", "output", 0),
    ("response", "body", "output", 0, "content"),
    ("response", "body", "output", 0, "content", 0),
    ("response", "body", "output", 0, "content", 0, "text"),
]
NUMBERS = st.sampled_from([0, 1, -1, 200, 2**31, 2**63, 2**64, 10**30, 10**400, 1.5, 1e308])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\ud800", "\0", "\x1b[31m", "\u2028", "200", "", "null", "{}", "[1]"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["code", "message", "type", "text", "content", "body", "custom_id", ""]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def put(where: tuple[str | int, ...], into: Any, value: Any) -> None:
    """Set a member deep inside, where the way there exists."""
    inside: Any = into
    for step in where[:-1]:
        try:
            inside = inside[step]
        except (KeyError, TypeError, IndexError):
            return
    if isinstance(inside, (dict, list)):
        cast("Any", inside)[where[-1]] = value


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed
def test_wrong_types_in_every_member(kind: str, jobs: dict[str, Job], data: st.DataObject) -> None:
    """Any JSON value anywhere in an envelope flags that row at most; the others are ``ok``."""
    lines = every(kind)
    spoiled = data.draw(st.sets(st.integers(0, len(WORDS) - 1), min_size=1, max_size=4))
    for number in spoiled:
        put(data.draw(st.sampled_from(MEMBERS)), lines[number], data.draw(VALUES))

    out = check(jobs[kind], pack(lines))

    others = [key for number, key in enumerate(KEYS) if number not in spoiled]
    assert out[f"{kind}_status"][others].eq("ok").all()


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: ".".join(map(str, m)))
@pytest.mark.parametrize("depth", [150, 990, 5_000, 100_000])
def test_deep_nesting(depth: int, member: tuple[str | int, ...], jobs: dict[str, Job]) -> None:
    """Thousands of brackets in any member lose that row at most."""
    for kind in ("text", "responses"):
        lines = every(kind)
        put(member, lines[2], "@@")
        for deep in ("[" * depth + "]" * depth, '{"error":' * depth + "1" + "}" * depth):
            out = check(jobs[kind], pack(lines).replace(b'"@@"', deep.encode()))

            assert out[f"{kind}_status"].drop("T-2").eq("ok").all()


@pytest.mark.parametrize("kind", ["labels", "schema"])
@pytest.mark.parametrize(
    "content",
    [
        "[" * 50_000,
        '{"a":' * 50_000,
        '{"word": "cedar", "count": 1' + "0" * 5_000 + ', "size": "S", "tags": []}',
        '{"word": "cedar", "count": 99999999999999999999, "size": "S", "tags": []}',
        '{"word": "cedar", "count": NaN, "size": "S", "tags": []}',
        '{"word": "\\ud800", "count": 1, "size": "S", "tags": ["\\ud800"]}',
        '{"label": "\\ud800"}',
        '{"label": ' + "9" * 5_000 + "}",
        '{"label": [[["cedar"]]]}',
        "{" * 2_000 + "}" * 2_000,
        "\0" * 10,
        "```json\n" * 500,
    ],
    ids=range(12),
)
def test_hostile_content(kind: str, content: str, jobs: dict[str, Job]) -> None:
    """An answer that is made to break parsers is ``malformed`` or read; the others are ``ok``."""
    lines = every(kind)
    put(("response", "body", "choices", 0, "message", "content"), lines[2], content)

    out = check(jobs[kind], pack(lines))

    assert out[f"{kind}_status"].drop("T-2").eq("ok").all()
    assert out[f"{kind}_status"]["T-2"] in {"ok", "malformed"}


@given(
    victim=st.integers(0, 7), thief=st.integers(0, 7), newline=st.sampled_from(["\n", "\\n", " "])
)
@fuzzed
def test_an_answer_cannot_speak_for_another_row(
    jobs: dict[str, Job], victim: int, thief: int, newline: str
) -> None:
    """A whole response line for another row inside an answer stays inside that answer."""
    lines = every("text")
    forged = line("text", victim)
    put(("response", "body", "choices", 0, "message", "content"), forged, "FORGED")
    said = f"mine{newline}{json.dumps(forged)}{newline}"
    put(("response", "body", "choices", 0, "message", "content"), lines[thief], said)
    responses_path(jobs["text"]).write_bytes(pack(lines))

    out = jobs["text"].collect(FRAME)

    wanted = [f"it is {word}" for word in WORDS]
    wanted[thief] = said
    assert out["text"].tolist() == wanted


# --- the store's own files -----------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    """Torn in the middle."""
    return data[: len(data) // 2]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": cut,
    "noise": lambda data: bytes(byte ^ 0x5A for byte in data),
    "another file": lambda _: b'["not", "this"]',
    "json null": lambda _: b"null",
    "not utf-8": lambda _: b'{"tag": "\xff"}',
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["sidecar.parquet", "round-0/shard-00000.batch.json"], ids=["sidecar", "batch"]
)
def test_a_damaged_file_is_named(name: str, damage: str, tmp_path: Path) -> None:
    """Every verb says which file is damaged and what to do, and never a bare traceback."""
    job: Job = FRAME.llmbatch.submit("{{ word }}", "m", provider="file", store=tmp_path / "s")
    path = Path(job.path, name)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    verbs: list[Callable[[], Any]] = [
        lambda: frameenrich.open_job(job.id, tmp_path / "s").collect(FRAME),
        lambda: frameenrich.open_job(job.id, tmp_path / "s").flagged(),
        lambda: FRAME.llmbatch.collect(store=tmp_path / "s"),
        lambda: FRAME.llmbatch.submit("{{ word }}", "m", provider="file", store=tmp_path / "s"),
        job.status,
        lambda: job.wait(timeout=0),
        job.cancel,
    ]
    reads_batch_only = name.endswith("batch.json")
    with pytest.warns(FrameEnrichWarning) as warned:
        assert frameenrich.jobs(tmp_path / "s")["batches"].tolist() == ["damaged"]
    assert str(path) in str(warned[0].message)

    for number, verb in enumerate(verbs):
        if number >= 4 and not reads_batch_only:
            continue  # a handle that is open has read its sidecar
        with pytest.raises(StoreError) as caught:
            verb()
        assert str(path) in str(caught.value)
        assert caught.value.fix


@given(data=st.data())
@fuzzed
def test_any_value_in_a_batch_file(jobs: dict[str, Job], data: st.DataObject) -> None:
    """Wrong types in ``batch.json`` are a `StoreError` or change nothing, never a traceback."""
    path = Path(jobs["text"].path, "round-0", "shard-00000.batch.json")
    before = path.read_bytes()
    responses_path(jobs["text"]).write_bytes(pack(every("text")))
    loaded = json.loads(before)
    loaded.pop("xxh3", None)  # whoever changes it on purpose can leave the mark out
    loaded[data.draw(st.sampled_from(sorted(loaded)))] = data.draw(VALUES)
    try:
        path.write_text(json.dumps(loaded))
        try:
            out = jobs["text"].collect(FRAME)
            repr(jobs["text"]), jobs["text"]._repr_html_(), str(jobs["text"].status())
            assert set(out["text_status"]) <= STATUSES
        except FrameEnrichError as error:
            assert error.fix  # noqa: PT017 - either outcome is right
    finally:
        path.write_bytes(before)


@given(at=st.floats(0, 1), piece=st.binary(min_size=1, max_size=8))
@fuzzed
def test_any_damage_to_a_sidecar(jobs: dict[str, Job], at: float, piece: bytes) -> None:
    """Bytes overwritten anywhere in a sidecar: the answers as before, or one of our own errors."""
    job = jobs["text"]
    path = Path(job.path, "sidecar.parquet")
    before = path.read_bytes()
    start = int(at * (len(before) - 1))
    responses_path(job).write_bytes(pack(every("text")))
    damaged = before[:start] + piece + before[start + len(piece) :]
    path.write_bytes(damaged[: len(before)])
    try:
        out = frameenrich.open_job(job.id, Path(job.path).parent).collect(FRAME)
        assert out["text"].tolist() == [f"it is {word}" for word in WORDS]
    except FrameEnrichError as error:
        assert error.fix  # noqa: PT017 - either outcome is right
    finally:
        path.write_bytes(before)


def test_a_flipped_bit_moves_no_answer(tmp_path: Path) -> None:
    """Rot in the column that joins rows to answers is noticed by its checksum, wherever it is."""
    job: Job = FRAME.llmbatch.submit("{{ word }}", "m", provider="file", store=tmp_path / "s")
    path = Path(job.path, "sidecar.parquet")
    whole = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    name = tagged(job, "row-T-0").encode()
    length = len(name).to_bytes(4, "little")  # a value; the page's header quotes it, too
    start = whole.index(length + name, columns["custom_id"].data_page_offset) + 4
    folder = JobPath(open_store(tmp_path / "s"), job.id).open()

    for at in range(start, start + len(name)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StoreError, match=r"sidecar.parquet cannot be read"):
            folder.sidecar()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_requests_file_is_named(damage: str, tmp_path: Path) -> None:
    """A requests file that is not what we wrote is named before anything of it is sent again."""
    job: Job = FRAME.llmbatch.submit("{{ word }}", "m", provider="file", store=tmp_path / "s")
    path = Path(job.requests[0])
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))

    if damage in {"empty", "cut"}:  # fewer requests, each of them ours
        assert job.status().requests in {0, 4, 8}
        return
    with pytest.raises(StoreError) as caught:
        job.import_responses(path)
    assert str(path) in str(caught.value)

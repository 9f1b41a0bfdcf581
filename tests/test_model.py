"""The words as values: what is written to disk is what is read back."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields, replace
from typing import Any, get_type_hints

import pytest
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st

from frameenrich.model import (
    FLAGGED,
    Batch,
    BatchError,
    Import,
    JobSpec,
    Limits,
    Message,
    OutputSpec,
    Proof,
    Rejection,
    RowStatus,
    Stage,
)

FEW = examples(60)

TEXTS = st.text(max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)  # a JSON value
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)


def some(hint: Any) -> st.SearchStrategy[Any]:
    """Return values for a field of a batch, by its type."""
    known: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXTS,
        str | None: st.none() | TEXTS,
        float | None: st.none() | NUMBERS,
        tuple[BatchError, ...]: st.lists(
            st.builds(BatchError, some_text(), some_text(), st.none() | st.integers()), max_size=2
        ).map(tuple),
        dict[str, Any] | None: st.none() | OBJECTS,
        tuple[Import, ...]: st.lists(
            st.builds(Import, TEXTS, TEXTS, NUMBERS, st.integers(), st.from_type(Proof)), max_size=2
        ).map(tuple),
        tuple[Rejection, ...]: st.lists(st.builds(Rejection, TEXTS, TEXTS), max_size=2).map(tuple),
    }
    return known[hint] if hint in known else st.from_type(hint)


def some_text() -> st.SearchStrategy[str | None]:
    """Return texts and None."""
    return st.none() | TEXTS


BATCHES = st.builds(Batch, **{name: some(hint) for name, hint in get_type_hints(Batch).items()})
SPECS = st.builds(
    JobSpec,
    name=TEXTS,
    model=TEXTS,
    messages=st.lists(st.builds(Message, TEXTS, TEXTS), max_size=3).map(tuple),
    params=OBJECTS,
    output=st.builds(OutputSpec, st.sampled_from(["text", "labels", "schema"]), OBJECTS),
    key=st.none() | st.lists(TEXTS, max_size=2).map(tuple),
    prefix=TEXTS,
    on_null=st.sampled_from(["raise", "empty", "skip"]),
    sources=st.dictionaries(TEXTS, TEXTS, max_size=2),
)


@FEW
@given(BATCHES)
@example(Batch("tag", errors=(BatchError(message="a lone \ud83d"),)))
def test_a_batch_is_read_back_as_it_was_written(batch: Batch) -> None:
    """``batch.json`` loses nothing, whatever text a provider put into it."""
    written = batch.to_json().encode()

    assert batch == Batch.from_json(written)


@FEW
@given(SPECS)
@example(JobSpec("n", "m", (Message("user", "a lone \ud83d"),)))
def test_a_spec_is_read_back_as_it_was_written(spec: JobSpec) -> None:
    """The spec in the sidecar's metadata loses nothing and stays one line of UTF-8."""
    written = spec.to_json().encode()

    assert (spec, b"\n" in written) == (JobSpec.from_json(written), False)


def test_the_order_of_a_schemas_properties_is_kept() -> None:
    """It is the order of the output columns, in every session."""
    schema: dict[str, Any] = {"properties": {"z": {}, "a": {}, "m": {}}}
    spec = JobSpec("n", "m", (), output=OutputSpec("schema", schema))

    again = JobSpec.from_json(spec.to_json()).output.schema

    assert again is not None
    assert list(again["properties"]) == ["z", "a", "m"]


def test_fields_of_a_later_version_are_passed_over() -> None:
    """A store that a newer version wrote can still be read."""
    batch = {**asdict(Batch("t", id="batch_1")), "colour": "red"}
    spec = {**json.loads(JobSpec("n", "m", ()).to_json()), "colour": "red"}

    assert Batch("t", id="batch_1") == Batch.from_json(json.dumps(batch))
    assert JobSpec("n", "m", ()) == JobSpec.from_json(json.dumps(spec))


def test_fields_that_an_earlier_version_lacked_have_their_defaults() -> None:
    """A batch that an older version wrote can still be read."""
    assert Batch("t") == Batch.from_json('{"tag": "t"}')


def test_row_statuses_are_ok_open_or_flagged() -> None:
    """The eight flagged statuses are plain strings."""
    expected = {
        "malformed", "truncated", "refused", "empty", "failed", "expired", "cancelled", "missing",
    }  # fmt: skip

    assert expected == {str(status) for status in FLAGGED}
    assert expected == {str(status) for status in RowStatus if status.flagged}


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_four_statuses_end_a_batch(status: str) -> None:
    """These are the provider's last words; ``expired`` is one of them."""
    assert Batch("t", status=status).ended


@pytest.mark.parametrize(
    "status",
    [
        "planned", "validating", "in_progress", "finalizing", "cancelling",
        "scheduling", "COMPLETED", "",
    ],
)  # fmt: skip
def test_any_other_status_is_not_finished_yet(status: str) -> None:
    """A server's own status word never crashes and never ends a batch."""
    assert not Batch("t", status=status).ended


@pytest.mark.parametrize(
    ("stage", "questions"),
    [
        (Stage.INTENT, "unsent"),
        (Stage.UPLOADING, "unsent"),
        (Stage.UPLOADED, "unsent"),
        (Stage.CREATING, "unsent, creating"),
        (Stage.RUNNING, "unsent"),
        (Stage.ENDED, "ended"),
        (Stage.FETCHED, "ended, settled"),
        (Stage.CLEANED, "ended, settled"),
    ],
)
def test_each_stage_answers_the_questions_that_a_step_has(stage: Stage, questions: str) -> None:
    """Promises 3 and 4: nothing counts as done before its lines are on disk."""
    batch = Batch("t", stage=stage)
    named = [name for name in ("unsent", "creating", "ended", "settled") if getattr(batch, name)]

    assert questions == ", ".join(named)
    assert replace(batch, id="batch_1").running is ("ended" not in named)


@pytest.mark.parametrize(
    ("flags", "stage"),
    [
        ({}, Stage.INTENT),
        ({"uploading": True}, Stage.UPLOADING),
        ({"input_file_id": "file-1"}, Stage.UPLOADED),
        ({"input_file_id": "file-1", "creating": True}, Stage.CREATING),
        ({"status": "unconfirmed", "creating": True}, Stage.CREATING),
        ({"id": "batch_1", "status": "validating"}, Stage.RUNNING),
        ({"id": "batch_1", "status": "a new word"}, Stage.RUNNING),
        ({"status": "in_progress"}, Stage.RUNNING),  # one call after another, interrupted
        ({"id": "batch_1", "status": "in_progress", "fetched": True}, Stage.RUNNING),
        ({"id": "batch_1", "status": "completed"}, Stage.ENDED),
        ({"id": "batch_1", "status": "expired", "fetched": True}, Stage.FETCHED),
        ({"status": "cancelled", "fetched": True}, Stage.FETCHED),
        ({"id": "b", "status": "completed", "fetched": True, "deleted": True}, Stage.CLEANED),
    ],
)
def test_an_older_batch_has_its_stage_from_its_flags(flags: dict[str, Any], stage: Stage) -> None:
    """Promise 14: a batch.json from before there were stages resumes where it stood."""
    older = {"tag": "t", "status": "planned", "uploading": False, "creating": False} | flags

    assert stage is Batch.from_json(json.dumps(older)).stage
    assert stage is Batch("t").but(**flags).stage  # as a provider of that time changes it


def test_a_stage_follows_what_the_provider_says() -> None:
    """An id or a status moves the stage; one that is unknown does not end a doubt."""
    doubt = Batch("t", stage=Stage.CREATING)
    moves: list[tuple[dict[str, Any], Stage]] = [
        ({"total": 3}, Stage.CREATING),
        ({"status": "unconfirmed"}, Stage.CREATING),
        ({"id": "batch_1", "status": "validating"}, Stage.RUNNING),
        ({"status": "completed"}, Stage.ENDED),
        ({"status": "planned", "stage": Stage.INTENT}, Stage.INTENT),
    ]

    assert [(change, doubt.replace(**change).stage) for change, _ in moves] == moves
    assert Batch("t", stage=Stage.FETCHED).replace(status="expired").stage is Stage.FETCHED


def test_replace_changes_a_copy() -> None:
    """A batch is never changed in place."""
    batch = Batch("t")

    changed = batch.replace(id="batch_1", total=3)

    assert (Batch("t"), Batch("t", id="batch_1", total=3)) == (batch, changed)


def test_limits_are_those_of_the_batch_api() -> None:
    """50,000 requests and 200 MB a file (OpenAI's batch guide)."""
    assert (Limits().max_requests, Limits().max_bytes) == (50_000, 200_000_000)


def test_every_field_of_a_batch_can_be_left_out_but_the_tag() -> None:
    """Intent is one word: nothing else is known before the first call."""
    required = [f.name for f in fields(Batch) if f.default is MISSING]

    assert required == ["tag"]


@pytest.mark.parametrize("changed", [(b'"batch_7"', b'"batch_6"'), (b'"running"', b'"intent"')])
def test_a_batch_file_that_rotted_is_no_other_batch(changed: tuple[bytes, bytes]) -> None:
    """One bit makes another id of an id, whose answers are nobody's here, and a second payment."""
    text = Batch("llmbatch-1f").replace(id="batch_7", status="in_progress").to_json().encode()
    assert changed[0] in text

    with pytest.raises(ValueError, match="not those that were written"):
        Batch.from_json(text.replace(*changed))


def test_a_batch_file_of_an_earlier_version_has_no_mark() -> None:
    """Promise 14: what it says counts as it stands, however it is spaced."""
    members = json.loads(Batch("llmbatch-1f").to_json())
    assert Batch.from_json(json.dumps(members)) == Batch("llmbatch-1f")
    del members["xxh3"]
    assert Batch.from_json(json.dumps({**members, "id": "batch_7"})).id == "batch_7"

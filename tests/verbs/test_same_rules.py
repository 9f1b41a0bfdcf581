"""One job is read by one set of rules, whichever door opens it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import pytest
import warm
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PastDate, field_validator

import frameenrich
from frameenrich.answers.class_rules import keep_class, stored_output
from frameenrich.answers.output import Output
from frameenrich.model import JobSpec
from frameenrich.prepare.output_options import output_from_options

FRAME = pd.DataFrame({"title": ["mug", "hose", "lamp"]}, index=["a", "b", "c"])


class Product(BaseModel):
    """A product whose price a validator of its own checks."""

    price: float

    @field_validator("price")
    @classmethod
    def positive(cls, value: float) -> float:
        """Refuse a price below zero."""
        if value < 0:
            raise ValueError("a price is not negative")
        return value


def answered(job: frameenrich.Job, folder: Path) -> None:
    """Import an answer a request of a job: prices of 1, 0 and -1."""
    lines = [json.loads(x) for path in job.requests for x in Path(path).read_text().splitlines()]
    path = folder / "answers.jsonl"
    with path.open("w") as file:
        for price, line in zip((1, 0, -1), lines, strict=True):
            message = {"role": "assistant", "content": json.dumps({"price": price})}
            body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            response = {"status_code": 200, "body": body}
            file.write(
                json.dumps({"custom_id": line["custom_id"], "response": response, "error": None})
                + "\n"
            )
    job.import_responses(path)


def submitted(tmp_path: Path, response_model: Any) -> frameenrich.Job:
    """Submit three rows for a file that somebody else runs, and import their answers."""
    job: frameenrich.Job = FRAME.llmbatch.submit(
        "Price of {{ title }}",
        "gpt-4o-mini",
        response_model=response_model,
        provider="file",
        store=tmp_path / "store",
    )
    answered(job, tmp_path)
    return job


def test_every_door_of_a_process_reads_by_the_class(tmp_path: Path) -> None:
    """The class that `submit` was given checks answers however the job is opened later."""
    store = tmp_path / "store"
    job = submitted(tmp_path, Product)
    want = ["ok", "ok", "malformed"]

    doors = {
        "handle": job.collect(FRAME),
        "accessor with the handle": FRAME.llmbatch.collect(job, store=store),
        "accessor alone": FRAME.llmbatch.collect(store=store),
        "by id": FRAME.llmbatch.collect(job.id, store=store),
        "opened": frameenrich.open_job(job.id, store=store).collect(FRAME),
    }

    assert {door: list(out["llmbatch_status"]) for door, out in doors.items()} == dict.fromkeys(
        doors, want
    )


COLLECT = """
import sys, warnings
import frameenrich
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    frame = frameenrich.open_job(sys.argv[1], store=sys.argv[2]).collect()
    frameenrich.open_job(sys.argv[1], store=sys.argv[2]).collect()
print(list(frame["llmbatch_status"]))
print([str(w.message) for w in caught if w.category is frameenrich.errors.FrameEnrichWarning])
"""


def test_a_later_process_says_which_class_it_lacks(tmp_path: Path) -> None:
    """A validator is never dropped in silence: the warning names the class and what to pass."""
    job = submitted(tmp_path, Product)

    done = warm.run(
        [sys.executable, "-c", COLLECT, job.id, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    statuses, warned = done.stdout.splitlines()

    assert statuses == "['ok', 'ok', 'ok']"
    assert warned.count("collect(response_model=Product)") == 1
    assert "whose validators are not in the stored schema" in warned


class Grade(Enum):
    """Three grades."""

    A = "a"
    B = "b"


class Plain(BaseModel):
    """Only what JSON Schema says; some fields are called as pydantic's own keys."""

    strict: int
    serialization: str | None = None
    grade: Grade
    kind: Literal["x", "y"]
    tags: list[str] = Field(max_length=3)
    price: Decimal
    size: float = Field(gt=0)


class Strict(BaseModel):
    """Takes no text for a number."""

    model_config = ConfigDict(strict=True)
    n: int


class Dated(BaseModel):
    """Has a date that must be past."""

    day: PastDate


class Made(BaseModel):
    """Makes its own default."""

    tags: list[str] = Field(default_factory=list)


class Hidden(BaseModel, json_schema_extra=lambda schema: schema["properties"]["n"].pop("default")):
    """Takes a default out of its schema, as one does for models that must give each field."""

    n: int = 3
    m: int = 4


class Started(BaseModel):
    """Does something once it is made."""

    n: int

    def model_post_init(self, _context: Any) -> None:
        """Refuse a number that is too large."""
        if self.n > 9:
            raise ValueError("too large")


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        (Plain, ()),
        ({"a": int, "b": str | None, "c": list[float]}, ()),
        (Product, ("Product", "validators")),
        (Strict, ("Strict", "strict types")),
        (Dated, ("Dated", "dates before or after now")),
        (Made, ("Made", "default factories")),
        (Started, ("Started", "model_post_init")),
        (Hidden, ("Hidden", "defaults")),
        ({"a": Annotated[str, AfterValidator(str.upper)]}, ("Answer", "validators")),
        ({"a": list[Product]}, ("Answer", "validators")),
        ({"a": set[int]}, ("Answer", "own types")),
        ({"a": dict[int, str]}, ("Answer", "keys of dicts")),
        ({"a": dict[str, int], "b": dict}, ()),
        ({"a": IntEnum("Stars", "ONE TWO")}, ("Answer", "numbers read from texts")),
    ],
)
def test_what_a_schema_cannot_hold_is_stored_by_name(given: Any, rules: tuple[str, ...]) -> None:
    """A job knows of each rule that its stored schema lacks, and of none where it lacks none."""
    assert output_from_options(response_model=given).spec.class_rules == rules


def test_the_rules_of_a_class_are_kept_and_change_no_id() -> None:
    """Jobs of earlier versions, whose specs know no rules, keep their ids."""
    output = output_from_options(response_model=Product).spec
    spec = JobSpec("answer", "gpt-4o", (), output=output)

    assert JobSpec.from_json(spec.to_json()) == spec
    assert "class_rules" not in spec.identity_json()


def test_a_job_of_an_older_version_is_read_by_the_class_that_is_at_hand() -> None:
    """An older sidecar names no rules; no check is dropped for that (promises 10 and 14)."""
    output = output_from_options(response_model=Strict)
    keep_class("store/older-1", output)
    older = Output(replace(output.spec, class_rules=()))

    assert stored_output("store/older-1", "older-1", older).model is Strict

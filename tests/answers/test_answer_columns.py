"""Answers as columns: types that hold, nested objects laid out, and how sure a label is."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from conftest import DEPARTMENTS, status_counts
from pydantic import BaseModel, Field

import frameenrich
from frameenrich.answers.confidence import label_confidence
from frameenrich.answers.output import MalformedError, Output
from frameenrich.errors import ColumnCollisionError, ParameterError
from frameenrich.model import RowStatus
from frameenrich.prepare.output_options import output_from_options
from frameenrich.verbs.job import Job

FAST: dict[str, Any] = {"poll_seconds": 0.01}


class Colour(enum.Enum):
    """A choice."""

    RED = "red"
    DARK_BLUE = "dark blue"


class Size(BaseModel):
    """A nested object."""

    width: int
    unit: Literal["cm", "in"] = "cm"


class Maker(BaseModel):
    """A nested object that holds another."""

    name: str
    town: str | None = None
    office: Size | None = None
    parent: Maker | None = None


class Thing(BaseModel):
    """Fields of every kind that a column has to be made for."""

    colour: Colour
    price: Decimal = Field(ge=0)
    first_sold: dt.date | None = None
    seen_at: dt.datetime | None = None
    opens: dt.time | None = None
    grade: Literal[1, 2, 3] = 2
    code: int | str = "none"
    sizes: list[Size] = []
    maker: Maker | None = None


THING: dict[str, Any] = {
    "colour": "red",
    "price": "19.90",
    "first_sold": "1512-02-29",
    "seen_at": "2024-05-01T12:00:00.250+02:00",
    "opens": "09:30:00",
    "grade": 3,
    "code": 7,
    "sizes": [{"width": 8}],
    "maker": {"name": "Bram", "office": {"width": 3, "unit": "in"}},
}
LEAST = {"colour": "dark blue", "price": 5}
DTYPES = {
    "colour": "category",
    "price": "Float64",
    "first_sold": "datetime64[us]",
    "seen_at": "datetime64[us, UTC]",
    "opens": "string",
    "grade": "Int64",
    "code": "string",
    "sizes": "object",
    "maker": "object",
}
FLAT = {
    **{name: dtype for name, dtype in DTYPES.items() if name != "maker"},
    "maker.name": "string",
    "maker.town": "string",
    "maker.office.width": "Int64",
    "maker.office.unit": "category",
    "maker.parent": "string",
}


def job_of(answers: Sequence[str | Reply], store: Path, **wishes: Any) -> Job:
    """Return a job that has ended, whose rows got these answers, and whose server is gone."""
    frame = pd.DataFrame({"n": range(len(answers))})

    def answer(body: dict[str, Any], custom_id: str) -> Reply:
        said = answers[int(custom_id.removeprefix("row-"))]
        return said if isinstance(said, Reply) else Reply(content=said)

    with (
        BatchServer(answer=answer) as server,
        openai.OpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        job: Job = frame.llmbatch.submit("{{ n }}", "m", client=client, store=store, **wishes)
        return job.wait(**FAST)


# --- types ----------------------------------------------------------------------------------------


def test_each_kind_of_field_has_one_type(store: Path) -> None:
    """Dates of any century, moments in UTC, decimals as numbers, choices, defaults, nulls."""
    job = job_of([json.dumps(THING), json.dumps(LEAST)], store, response_model=Thing)

    out = job.collect()

    assert {name: str(out[name].dtype) for name in DTYPES} == DTYPES
    assert out["colour"].tolist() == ["red", "dark blue"]
    assert out["price"].tolist() == [19.9, 5.0]
    assert out["first_sold"].isna().tolist() == [False, True]
    assert str(out["first_sold"].iloc[0].date()) == "1512-02-29"
    assert out["seen_at"].iloc[0] == pd.Timestamp("2024-05-01 10:00:00.25", tz="UTC")
    assert out["opens"].tolist() == ["09:30:00", pd.NA]
    assert out["grade"].tolist() == [3, 2]
    assert out["code"].tolist() == ["7", "none"]
    assert out["sizes"].tolist() == [[{"width": 8, "unit": "cm"}], []]
    assert out["maker"].iloc[1] is None


@pytest.mark.parametrize("flatten", [False, True])
def test_types_hold_when_every_row_is_flagged_and_through_parquet(
    flatten: bool, store: Path
) -> None:
    """The same columns of the same types, whatever was answered, and after a round trip."""
    good = job_of(
        [json.dumps(THING)] * 2, store / "1", response_model=Thing, name="good", prefix="g_"
    )
    bad = job_of(["?", "?"], store / "2", response_model=Thing, name="bad", prefix="b_")

    answers, flagged = good.collect(flatten=flatten), bad.collect(flatten=flatten)

    wanted = FLAT if flatten else DTYPES
    assert {name: str(answers[f"g_{name}"].dtype) for name in wanted} == wanted
    assert {name: str(flagged[f"b_{name}"].dtype) for name in wanted} == wanted
    assert set(flagged["bad_status"]) == {"malformed"}
    for frame, prefix in ((answers, "g_"), (flagged, "b_")):
        frame.to_parquet(store / "out.parquet")
        again = pd.read_parquet(store / "out.parquet")
        assert {name: str(again[f"{prefix}{name}"].dtype) for name in wanted} == wanted


def test_a_later_session_reads_the_same_types(store: Path) -> None:
    """Without the class, from the stored schema: the same frame, and the same rows flagged."""
    wrong = [{**LEAST, "first_sold": "1513-02-29"}, {**LEAST, "seen_at": "noon"}, {"price": -1}]
    said = [json.dumps(each) for each in (THING, LEAST, *wrong)]
    job = job_of(said, store, response_model=Thing)

    later = frameenrich.open_job(job.id, store).collect(flatten=True)

    now = job.collect(flatten=True)
    pd.testing.assert_frame_equal(
        later.drop(columns="llmbatch_error"), now.drop(columns="llmbatch_error")
    )
    errors = [str(error).split(":")[0] for error in later["llmbatch_error"].iloc[2:]]
    assert errors == ["$.first_sold", "$.seen_at", "$.colour"]
    assert [str(error).split(":")[0] for error in now["llmbatch_error"].iloc[2:]] == errors


def test_a_moment_at_the_edge_of_the_calendar_is_a_moment() -> None:
    """The first hours of year 1 in the east are before it in UTC: a cell still, and no crash."""
    from frameenrich.answers.columns import to_series
    from frameenrich.answers.fields import Field as Column

    texts = ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2024-05-01T12:00:00"]

    column = to_series(texts, Column("t", "datetime"))

    assert str(column.dtype) == "datetime64[us, UTC]"
    assert column.notna().all()
    assert column.iloc[2] == pd.Timestamp("2024-05-01 12:00", tz="UTC")


def test_a_decimal_is_asked_for_as_a_number(store: Path) -> None:
    """Pydantic's pattern for decimals as text is one that strict APIs and llama.cpp refuse."""
    job = job_of(["?"], store, response_model=Thing)

    body = json.loads(Path(job.requests[0]).read_text())["body"]

    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    assert properties["price"] == {"type": "number", "minimum": 0, "title": "Price"}


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (json.dumps(LEAST), False),
        (json.dumps({**LEAST, "colour": "RED"}), False),
        (f"```json\n{json.dumps(LEAST)}\n```", True),
        (json.dumps(LEAST)[:-1] + ",}", True),
    ],
)
def test_repaired_says_whether_the_json_was_mended(text: str, repaired: bool, store: Path) -> None:
    """In the usage columns: fences and faults are repairs, another case of a choice is none."""
    out = job_of([text], store, response_model=Thing).collect(usage=True)

    assert out["llmbatch_status"].tolist() == ["ok"]
    assert out["llmbatch_repaired"].tolist() == [repaired]
    assert str(out["llmbatch_repaired"].dtype) == "boolean"


@pytest.mark.parametrize("session", ["with the class", "without it"])
def test_choices_are_matched_by_case_and_spacing_however_deep(session: str) -> None:
    """In lists, nested and optional objects; what differs in more than that is never guessed."""
    output = output_from_options(response_model=Thing)
    if session == "without it":
        output = Output(output.spec)
    sizes, office = [{"width": 1, "unit": " CM "}], {"width": 1, "unit": "In"}
    said = {
        **LEAST,
        "colour": "Dark\tBLUE",
        "sizes": sizes,
        "maker": {"name": "b", "office": office},
    }

    values, repaired = output.read(json.dumps(said))

    assert (values[0], repaired) == ("dark blue", False)
    assert values[7] == [{"width": 1, "unit": "cm"}]
    assert values[8]["office"] == {"width": 1, "unit": "in"}
    with pytest.raises(MalformedError, match=r"^\$\.sizes\[0\]\.unit: "):
        output.read(json.dumps({**LEAST, "sizes": [{"width": 1, "unit": "cm."}]}))
    with pytest.raises(MalformedError, match=r"^\$\.colour: "):
        output.read(json.dumps({**LEAST, "colour": "darkblue"}))


# --- nested objects as columns --------------------------------------------------------------------


def test_nested_objects_become_columns_of_their_own(store: Path) -> None:
    """Names joined by a dot, each its own type; lists stay, what holds itself is JSON text."""
    thing = {**THING, "maker": {**THING["maker"], "parent": {"name": "Oak"}}}
    job = job_of([json.dumps(thing), json.dumps(LEAST), "?"], store, response_model=Thing)

    out = job.collect(flatten=True)

    names = [name for name in out.columns if str(name).startswith("maker")]
    assert names == [name for name in FLAT if name.startswith("maker")]
    assert out["maker.name"].tolist() == ["Bram", pd.NA, pd.NA]
    assert out["maker.office.width"].tolist() == [3, pd.NA, pd.NA]
    assert out["maker.office.unit"].astype(object).where(
        out["maker.office.unit"].notna(), None
    ).tolist() == ["in", None, None]
    assert json.loads(out["maker.parent"].iloc[0])["name"] == "Oak"
    assert out["sizes"].iloc[0] == [{"width": 8, "unit": "cm"}]


def test_flattened_into_a_frame_and_again(store: Path, mugs: pd.DataFrame) -> None:
    """`df.llmbatch.collect(flatten=True)` adds the columns in place of an earlier collect's."""
    schema = {
        "type": "object",
        "properties": {"size": {"type": "object", "properties": {"w": {"type": "integer"}}}},
    }
    with BatchServer() as server, openai.OpenAI(api_key="k", base_url=server.base_url) as client:
        mugs.llmbatch.submit("{{ title }}", "m", response_model=schema, client=client, store=store)
        out = mugs.llmbatch.collect(wait=True, flatten=True, client=client, store=store, **FAST)
        again = out.llmbatch.collect(flatten=True, client=client, store=store)

    assert list(out.columns) == ["title", "size.w", "llmbatch_status", "llmbatch_error"]
    assert str(out["size.w"].dtype) == "Int64"
    pd.testing.assert_frame_equal(again, out)


def test_a_column_that_flattening_would_replace_is_refused_at_submit(store: Path) -> None:
    """The frame's own columns are never overwritten, by the columns of nested fields neither."""
    frame = pd.DataFrame({"n": [1], "maker.name": ["mine"]})

    with pytest.raises(ColumnCollisionError, match=r"a column 'maker\.name' already"):
        frame.llmbatch.submit("{{ n }}", "m", response_model=Thing, provider="file", store=store)


def test_a_field_called_like_a_flattened_one_is_never_lost(store: Path) -> None:
    """Flattening is refused; as it is, both are there."""
    said = json.dumps({"maker.width": 1, "maker": {"width": 2}})
    job = job_of([said], store, response_model={"maker.width": int, "maker": Size})

    with pytest.raises(ColumnCollisionError, match=r"'maker\.width'.* flatten=False"):
        job.collect(flatten=True)

    out = job.collect()
    assert out["maker.width"].tolist() == [1]
    assert out["maker"].iloc[0]["width"] == 2


@pytest.mark.parametrize("made", [pd.DataFrame({"a": [1, 2]}), pd.Series([1, 2])])
def test_a_report_shows_whatever_a_parser_made(made: Any, store: Path) -> None:
    """Frames in cells are shown as texts."""
    job = job_of(["?"], store, parser=lambda _: made)

    job.report(store / "report.html")

    assert "llmbatch" in job._repr_html_()
    assert (store / "report.html").exists()


def test_an_integer_that_no_column_holds_is_flagged_wherever_it_stands(store: Path) -> None:
    """Nested too: collect never fails for what an answer holds."""
    said = {**LEAST, "maker": {"name": "b", "office": {"width": 2**70}}}

    out = job_of([json.dumps(said)], store, response_model=Thing).collect(flatten=True)

    assert out["llmbatch_status"].tolist() == ["malformed"]
    assert out["llmbatch_error"].iloc[0].startswith("$.maker.office.width: the integer does not")


# --- confidence -----------------------------------------------------------------------------------

Tokens = list[tuple[str, float]]
SURE: Tokens = [
    ('{"', -0.5),
    ("label", -0.5),
    ('":"', -0.5),
    ("Kit", -0.1),
    ("chen", -0.2),
    ('"}', -0.9),
]


def logprobs(tokens: Tokens, *, as_bytes: bool = True) -> list[dict[str, Any]]:
    """Return tokens as the API writes them."""
    return [
        {
            "token": token,
            "logprob": value,
            "bytes": list(token.encode()) if as_bytes else None,
            "top_logprobs": [],
        }
        for token, value in tokens
    ]


def sure_reply(endpoint: str, tokens: Tokens) -> Reply:
    """Return an answer with log probabilities."""
    text = "".join(token for token, _ in tokens)
    if endpoint == "/v1/responses":
        part = {"type": "output_text", "text": text, "logprobs": logprobs(tokens)}
        return Reply(body={"status": "completed", "output": [{"content": [part]}]})
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return Reply(body={"choices": [{**choice, "logprobs": {"content": logprobs(tokens)}}]})


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("/v1/chat/completions", {"logprobs": True}),
        ("/v1/responses", {"include": ["message.output_text.logprobs"]}),
    ],
)
def test_logprobs_give_a_labels_confidence(
    endpoint: str, asked: dict[str, Any], store: Path
) -> None:
    """The product of the probabilities of the label's tokens; ``<NA>`` where none are told."""
    unsure: Tokens = [('{"label":"', -0.1), ("Toys", -1.5), ('"}', -0.1)]
    answers: list[str | Reply] = [
        sure_reply(endpoint, SURE),
        sure_reply(endpoint, unsure),
        "Toys",
        "?",
    ]

    job = job_of(answers, store, labels=DEPARTMENTS, logprobs=True, endpoint=endpoint, name="dept")
    out = job.collect()

    body = json.loads(Path(job.requests[0]).read_text().splitlines()[0])["body"]
    assert {**body, **asked} == body
    assert list(out.columns[-4:]) == ["dept", "dept_confidence", "dept_status", "dept_error"]
    assert str(out["dept_confidence"].dtype) == "Float64"
    assert out["dept"].tolist()[:3] == ["Kitchen", "Toys", "Toys"]
    assert out["dept_confidence"].round(6).tolist() == [
        round(math.exp(-0.3), 6), round(math.exp(-1.5), 6), pd.NA, pd.NA,
    ]  # fmt: skip


def test_confidence_is_a_column_only_where_it_was_asked_for(store: Path) -> None:
    """Its type holds in a frame all flagged; without ``logprobs`` there is no such column."""
    asked = job_of(["?"], store, labels=DEPARTMENTS, logprobs=True).collect()
    plain = job_of([sure_reply("", SURE)], store, labels=DEPARTMENTS).collect()

    assert str(asked["llmbatch_confidence"].dtype) == "Float64"
    assert "llmbatch_confidence" not in plain
    frame = pd.DataFrame({"n": [1]})
    with pytest.raises(ParameterError, match="there are no labels="):
        frame.llmbatch.submit("{{ n }}", "m", logprobs=True, provider="file", store=store)
    shown = frame.llmbatch.preview("{{ n }}", "m", labels=DEPARTMENTS, logprobs=True)
    assert shown.columns[1] == "llmbatch_confidence"


@pytest.mark.parametrize(
    ("tokens", "text", "expected"),
    [
        ([("Kit", -0.1), ("chen", -0.2)], "Kitchen", -0.3),
        ([('"Kitchen"', -0.4)], '"Kitchen"', -0.4),
        ([("```json\n", -9.0), *SURE], '{"label":"Kitchen"}', -0.3),
        ([('{"label": "Ö', -0.1), ("l", -0.2), ('"}', -0.4)], '{"label": "Öl"}', -0.3),
        ([("{'label': '", -1.0), ("a", -0.5), ("'}", -1.0)], "{'label': 'a'}", -0.5),
        ([('{"label": ', -1.0), ("7", -0.5), ("}", -1.0)], '{"label": 7}', -0.5),
        ([("other", -0.1)], "Kitchen", None),
        ([], "Kitchen", None),
        ([], "", None),
    ],
)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_the_tokens_that_spell_the_label_count(
    as_bytes: bool, tokens: Tokens, text: str, expected: float | None
) -> None:
    """Also alone, after a fence that llama.cpp leaves out, and where tokens are cut otherwise."""
    body = {"choices": [{"logprobs": {"content": logprobs(tokens, as_bytes=as_bytes)}}]}

    actual = label_confidence(body, text)

    assert actual == (None if expected is None else pytest.approx(math.exp(expected)))


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        [None, 7, {}],
        [{"token": "Kitchen", "logprob": None}],
        [{"token": "Kitchen", "logprob": math.nan}],
        [{"token": "Kitchen", "logprob": -(10**400)}],
        [{"token": 7, "logprob": -1}],
    ],
)
def test_strange_logprobs_are_no_confidence(content: Any) -> None:
    """Nothing in a response can raise."""
    for body in (
        {"choices": [{"logprobs": {"content": content}}]},
        {"choices": [{"logprobs": content}]},
        {"choices": content},
        {"output": [{"content": [{"type": "output_text", "logprobs": content}]}]},
        {"output": [{"content": content}]},
    ):
        assert label_confidence(body, "Kitchen") is None


def test_probabilities_stay_between_zero_and_one() -> None:
    """A server's positive logprob, and one below everything, are no reason to leave the range."""
    for value, expected in ((0.5, 1.0), (-9999.0, 0.0)):
        content = [{"token": "Kitchen", "logprob": value, "bytes": 10**12}]
        body = {"choices": [{"logprobs": {"content": content}}]}
        assert label_confidence(body, "Kitchen") == expected


def test_a_row_status_is_what_it_was(store: Path) -> None:
    """Asking for confidence changes no status: the three answers are ok, the fourth is not."""
    answers: list[str | Reply] = [sure_reply("", SURE), "Toys", '{"label": "toys"}', "?"]

    out = job_of(answers, store, labels=DEPARTMENTS, logprobs=True).collect()

    assert status_counts(out) == {"ok": 3, str(RowStatus.MALFORMED): 1}

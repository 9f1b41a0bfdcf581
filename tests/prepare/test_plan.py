"""From wishes and a frame to a job folder: checks, identity, keys and request files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from batch_server import row_name
from draws import examples
from hypothesis import given
from hypothesis import strategies as st
from stores import write_job

from frameenrich.errors import (
    ColumnCollisionError,
    InputError,
    NullValueError,
    ParameterError,
    RequestTooLargeError,
    RowKeyError,
    TemplateError,
)
from frameenrich.identity.dedupe import duplicates, is_in
from frameenrich.model import JobSpec, Limits, Message, OutputSpec
from frameenrich.prepare.check_frame import check_frame
from frameenrich.prepare.options import Plan, make_plan
from frameenrich.prepare.params import _PARAMETER_TYPES, _known_parameters, check_params
from frameenrich.prepare.submit_options import Options
from frameenrich.prepare.whole_frame import preview_bodies
from frameenrich.rendering.encode_rows import input_hashes
from frameenrich.rendering.prompt import CHUNK_ROWS
from frameenrich.rendering.template_source import read_template
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.shard import ids_of
from frameenrich.store.sidecar import SKIPPED
from frameenrich.store.store import Store

FEW = examples(40)
CHAT = "/v1/chat/completions"

FRAME = pd.DataFrame(
    {"title": ["mug", "rake", "desk"], "price": [1.5, 2.0, np.nan], "sku": ["x1", "x2", "x3"]},
    index=[30, 10, 20],
)


def a_plan(template: Any = "Sort {{ title }}", model: str = "m", **options: Any) -> Plan:
    """Return a plan; nothing but the template has to be said."""
    own = Options(**{"provider": "file", **options})
    plan = make_plan(template, model, own).sent_to(str(own.provider), CHAT)
    return replace(plan, spec=replace(plan.spec, tag="3f9a1c"))


@pytest.fixture
def jobs(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "jobs")


def a_job(
    frame: pd.DataFrame, store: Store, limits: Limits | None = None, nonce: str = "", **wishes: Any
) -> JobFolder:
    """Return the job of a frame."""
    return write_job(frame, a_plan(**wishes), store, limits or Limits(), nonce=nonce)


def requests(job: JobFolder) -> list[dict[str, Any]]:
    """Return every request of a job, in order."""
    lines = [Path(shard.requests_path).read_bytes() for shard in job.all_shards()]
    return [json.loads(line) for line in b"".join(lines).split(b"\n")[:-1]]


def asked(job: JobFolder) -> dict[str, str]:
    """Return what each custom_id asks."""
    return {row_name(r["custom_id"]): r["body"]["messages"][-1]["content"] for r in requests(job)}


def names(job: JobFolder) -> list[str | None]:
    """Return what the requests of a job's rows are called, without its tag."""
    return [own and row_name(own) for own in job.sidecar()["custom_id"].to_pylist()]


# --- wishes ---------------------------------------------------------------------------------------


def test_a_plan_holds_every_wish() -> None:
    """What was wished for is in the spec, which is all that is stored."""
    plan = a_plan(
        [{"role": "user", "content": "{{ title }}"}],
        labels=["a", "b"],
        system="Be brief",
        name="dept",
        key="sku",
        params={"temperature": 0.1, "extra_body": {"top_k": 5}},
        on_null="skip",
        prefix="ai_",
    )

    assert plan.spec == JobSpec(
        name="dept",
        model="m",
        messages=(Message("system", "Be brief"), Message("user", "{{ title }}")),
        params={"temperature": 0.1, "top_k": 5},
        provider="file",
        output=plan.output.spec,
        key=("sku",),
        prefix="ai_",
        on_null="skip",
        tag="3f9a1c",
    )


CODEBOOK = {"Kitchen": "to cook\nor eat with", "Garden": "{{ title }}, {% raw %} or {# a word #}"}
DEFINED = "Labels:\n- Kitchen: to cook\n  or eat with\n- Garden: " + CODEBOOK["Garden"]


@pytest.mark.parametrize(
    ("messages", "system", "wanted"),
    [
        ("{{ title }}", None, [("system", DEFINED), ("user", "Red mug")]),
        ("{{ title }}", "", [("system", DEFINED), ("user", "Red mug")]),
        ("{{ title }}", "Sort.\n", [("system", f"Sort.\n\n{DEFINED}"), ("user", "Red mug")]),
        (
            [
                {"role": "developer", "content": "Sort {{ title }}."},
                {"role": "user", "content": "{{ title }}"},
            ],
            None,
            [("developer", f"Sort Red mug.\n\n{DEFINED}"), ("user", "Red mug")],
        ),
    ],
)
def test_a_codebook_goes_into_the_request(
    messages: Any, system: str | None, wanted: list[tuple[str, str]], jobs: Store
) -> None:
    """Each row's request holds what every label means, as it was written; the schema is as ever."""
    frame = pd.DataFrame({"title": ["Red mug"]})
    (sent,) = requests(a_job(frame, jobs, template=messages, system=system, labels=CODEBOOK))
    (bare,) = requests(a_job(frame, jobs, template=messages, system=system, labels=[*CODEBOOK]))

    said = [(message["role"], message["content"]) for message in sent["body"]["messages"]]
    assert said == wanted
    assert sent["body"]["response_format"] == bare["body"]["response_format"]
    assert "Labels:" not in json.dumps(bare)


def test_another_definition_is_another_job(jobs: Store) -> None:
    """A changed codebook asks another question: its answers are never those of the one before."""
    frame = pd.DataFrame({"title": ["Red mug"]})
    books = [CODEBOOK, CODEBOOK | {"Kitchen": "pots"}, [*CODEBOOK]]

    assert len({a_job(frame, jobs, labels=labels).id for labels in books}) == len(books)


@pytest.mark.parametrize("key", [["sku"], ("sku",), "sku"])
def test_one_key_column_may_be_written_in_any_way(key: Any) -> None:
    """A name, a list or a tuple of one name are the same."""
    assert a_plan(key=key).spec.key == ("sku",)


REFUSED: dict[str, tuple[dict[str, Any], type[InputError], str]] = {
    "no model": ({"model": " "}, ParameterError, "model= is empty"),
    "model of another type": ({"model": None}, ParameterError, "model= is empty"),
    "null policy": ({"on_null": "drop"}, ParameterError, "on_null='drop' is not known"),
    "endpoint": ({"endpoint": "/v1/videos"}, ParameterError, "is not supported"),
    "empty name": ({"name": ""}, ParameterError, "name='' cannot name a column"),
    "long name": ({"name": "x" * 81}, ParameterError, "cannot name a column"),
    "name of another type": ({"name": 7}, ParameterError, "name=7 cannot name a column"),
    "control characters": ({"name": "a\nb"}, ParameterError, "control characters"),
    "no key": ({"key": []}, ParameterError, "key= names no column"),
    "no tokens": ({"max_enqueued_tokens": 0}, ParameterError, "lets nothing through"),
    "empty template": ({"template": " \n"}, TemplateError, "The template is empty"),
    "no messages": ({"template": []}, TemplateError, "The template is empty"),
    "no template": ({"template": None}, TemplateError, "The template is None"),
    "a number": ({"template": 7}, TemplateError, "The template is 7"),
    "system of another type": ({"system": 7}, TemplateError, "'content': 7"),
    "message without role": ({"template": [{"content": "x"}]}, TemplateError, "A message of"),
    "message with more": (
        {"template": [{"role": "user", "content": "x", "name": "y"}]},
        TemplateError,
        "Write each as",
    ),
    "message of text": ({"template": ["x"]}, TemplateError, "A message of the template is 'x'"),
    "no such file": ({"template": Path("no.j2")}, TemplateError, "no.j2 cannot be read: No such"),
    "a folder": ({"template": Path()}, TemplateError, "cannot be read: Is a directory"),
    "completions with two texts": (
        {"endpoint": "/v1/completions", "system": "x"},
        ParameterError,
        "takes one text",
    ),
    "completions with labels": (
        {"endpoint": "/v1/completions", "labels": ["a", "b"]},
        ParameterError,
        "gives plain text",
    ),
    "unknown parameter": (
        {"params": {"temprature": 1}},
        ParameterError,
        r"does not know\. Did you mean 'temperature'",
    ),
    "another endpoint's parameter": (
        {"params": {"max_output_tokens": 1}},
        ParameterError,
        "'max_output_tokens', which /v1/chat/completions does not know",
    ),
    "ours to set": ({"params": {"model": "x"}}, ParameterError, "'model', which submit"),
    "ours through the back door": (
        {"params": {"extra_body": {"messages": []}}},
        ParameterError,
        "'messages', which submit",
    ),
    "extra_body of another type": (
        {"params": {"extra_body": [1]}},
        ParameterError,
        "extra_body of type list",
    ),
    "stream": ({"params": {"stream": True}}, ParameterError, "asks for a stream"),
    "several answers": ({"params": {"n": 2}}, ParameterError, "several answers"),
    "two answer formats": (
        {"params": {"response_format": {"type": "json_object"}}, "labels": ["a", "b"]},
        ParameterError,
        "'response_format' beside labels=",
    ),
    "not JSON": ({"params": {"metadata": {1, 2}}}, ParameterError, "JSON cannot carry"),
    "NaN": ({"params": {"temperature": float("nan")}}, ParameterError, "JSON cannot carry"),
    "numpy number": ({"params": {"seed": np.int64(7)}}, ParameterError, "Give plain numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wish_that_cannot_be_met_is_refused(case: str) -> None:
    """The error names the option and says what to write instead."""
    wishes, error, message = REFUSED[case]

    with pytest.raises(error, match=message) as caught:
        a_plan(**wishes)

    assert caught.value.fix.endswith((".", "}."))


@pytest.mark.parametrize(
    ("endpoint", "params"),
    [
        (CHAT, {"temperature": 0, "max_tokens": 9, "seed": 1, "stop": ["x"], "n": 1}),
        (CHAT, {"reasoning_effort": "low", "max_completion_tokens": 9, "logprobs": True}),
        (CHAT, {"response_format": {"type": "json_object"}}),
        ("/v1/responses", {"max_output_tokens": 9, "reasoning": {"effort": "low"}}),
        ("/v1/completions", {"max_tokens": 9, "best_of": 1}),
        (CHAT, {"stream": False}),
    ],
)
def test_parameters_of_the_endpoint_pass(endpoint: str, params: dict[str, Any]) -> None:
    """Whatever the SDK's own types list goes into the request as it is."""
    assert params == check_params(params, endpoint, OutputSpec())


@pytest.mark.parametrize(
    ("endpoint", "params", "said", "write"),
    [
        (CHAT, {"temperature": "0.1"}, "the text '0.1', which is no number", "0.1"),
        (CHAT, {"top_p": True}, "True, which is no number", "0.1"),
        (CHAT, {"seed": "7"}, "the text '7', which is no whole number", "7"),
        (CHAT, {"seed": "1e999"}, "the text '1e999', which is no whole number", "1"),
        (CHAT, {"seed": "(" * 9_000}, "which is no whole number", "1"),
        (CHAT, {"seed": "-" * 90_000 + "1"}, "which is no whole number", "1"),
        (CHAT, {"temperature": "1e999"}, "the text '1e999', which is no number", "0.1"),
        (CHAT, {"seed": 7.5}, "7.5, which is no whole number", "1"),
        (CHAT, {"logprobs": "true"}, "the text 'true', which is no boolean", "True"),
        (CHAT, {"store": 1}, "1, which is no boolean", "True"),
        (CHAT, {"user": 5}, "5, which is no text", "'5'"),
        (CHAT, {"response_format": "json_object"}, "'json_object', which is no object", "{...}"),
        ("/v1/completions", {"logprobs": True}, "True, which is no whole number", "1"),
        ("/v1/responses", {"reasoning": "high"}, "the text 'high', which is no object", "{...}"),
        ("/v1/embeddings", {"dimensions": "256"}, "the text '256', which is no whole", "256"),
    ],
)
def test_a_parameter_of_another_type_is_refused(
    endpoint: str, params: dict[str, Any], said: str, write: str
) -> None:
    """Promise 9: a type that the API fixes is told before a batch in which each row would fail."""
    (name,) = params

    with pytest.raises(ParameterError, match=re.escape(said)) as caught:
        check_params(params, endpoint, OutputSpec())

    assert caught.value.fix.startswith(f"Write params={{'{name}': {write}}}")
    assert check_params({"extra_body": params}, endpoint, OutputSpec()) == params
    assert check_params({name: None}, endpoint, OutputSpec()) == {name: None}


def test_a_template_file_is_read_as_utf8(tmp_path: Path) -> None:
    """Its text is the message; another encoding is refused by name."""
    (tmp_path / "t.j2").write_text("für {{ title }}", encoding="utf-8")
    (tmp_path / "latin.j2").write_text("für", encoding="latin-1")

    messages, sources = read_template(tmp_path / "t.j2", "sys")

    assert messages == (Message("system", "sys"), Message("user", "für {{ title }}"))
    assert sources == {}
    with pytest.raises(TemplateError, match=r"latin\.j2 cannot be read: it is not UTF-8"):
        read_template(tmp_path / "latin.j2", None)


# --- from a frame to a job ------------------------------------------------------------------------


def test_the_sidecar_says_which_row_became_which_request(jobs: Store) -> None:
    """One line a row, in the frame's order, with the typed key and where its request is."""
    job = a_job(FRAME, jobs, Limits(max_requests=2))
    table = job.sidecar()

    assert table.select(["key_0", "custom_id", "shard"]).to_pylist() == [
        {"key_0": 30, "custom_id": "row-30-3f9a1c", "shard": 0},
        {"key_0": 10, "custom_id": "row-10-3f9a1c", "shard": 0},
        {"key_0": 20, "custom_id": "row-20-3f9a1c", "shard": 1},
    ]
    assert asked(job) == {"row-30": "Sort mug", "row-10": "Sort rake", "row-20": "Sort desk"}
    assert (job.key_names, job.spec) == (["index"], a_plan().spec)
    assert {pa.binary(32)} == {table[n].type for n in ("request_hash", "input_hash")}


def test_requests_are_those_of_the_batch_api(jobs: Store) -> None:
    """custom_id, method, url and body, and nothing else."""
    job = a_job(FRAME.iloc[:1], jobs, system="Brief.", params={"temperature": 0.1})

    assert requests(job) == [
        {
            "custom_id": "row-30-3f9a1c",
            "method": "POST",
            "url": CHAT,
            "body": {
                "model": "m",
                "messages": [
                    {"role": "system", "content": "Brief."},
                    {"role": "user", "content": "Sort mug"},
                ],
                "temperature": 0.1,
            },
        }
    ]


@FEW
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=6), min_size=1, max_size=9))
def test_whatever_the_cells_hold_is_asked(tmp_path_factory: Any, cells: list[str]) -> None:
    """Each row's request holds its text; rows that ask the same share one."""
    store = Store(tmp_path_factory.mktemp("jobs"))
    frame = pd.DataFrame({"title": pd.Series(cells, dtype=object)})

    job = a_job(frame, store, template="{{ title }}!", nonce=str(cells))

    expected = [json.loads(json.dumps(cell)) + "!" for cell in cells]
    found = asked(job)
    assert expected == [found[str(name)] for name in names(job)]
    assert len(found) <= len(set(cells))


def test_rows_that_ask_the_same_are_sent_once(jobs: Store) -> None:
    """Identical requests inside a job are paid once, and every row has the answer."""
    frame = pd.DataFrame({"title": ["mug", "rake", "mug", "mug"]})
    job = a_job(frame, jobs)

    assert names(job) == ["row-0", "row-1", "row-0", "row-0"]
    assert asked(job) == {"row-0": "Sort mug", "row-1": "Sort rake"}


@pytest.mark.parametrize(
    ("on_null", "expected"),
    [
        ("empty", ["row-30", "row-10", "row-20"]),
        ("skip", ["row-30", "row-10", None]),
    ],
)
def test_the_null_policy_decides_which_rows_are_sent(
    on_null: str, expected: list[str | None], jobs: Store
) -> None:
    """A row left out stands in the sidecar all the same, in no shard."""
    job = a_job(FRAME, jobs, template="{{ title }} {{ price }}", on_null=on_null)
    shards = [SKIPPED if custom_id is None else 0 for custom_id in expected]

    assert expected == names(job)
    assert shards == job.sidecar()["shard"].to_pylist()


@pytest.mark.parametrize(
    "key", [None, "sku", ["sku", "title"]], ids=["index", "column", "two columns"]
)
def test_any_key_names_the_rows(key: Any, jobs: Store) -> None:
    """The index or columns; the parts' names and types are kept."""
    job = a_job(FRAME, jobs, key=key)
    expected = {
        None: (["index"], [30, 10, 20]),
        "sku": (["sku"], ["x1", "x2", "x3"]),
    }.get(key if not isinstance(key, list) else "", (["sku", "title"], ["x1", "x2", "x3"]))

    assert expected == (job.key_names, job.sidecar()["key_0"].to_pylist())


# --- which job it is ------------------------------------------------------------------------------


def test_the_same_again_is_the_same_job(jobs: Store) -> None:
    """Nothing is written a second time, whatever happened to the job since."""
    job = a_job(FRAME, jobs)
    shard = job.shards(0)[0]
    shard.save(shard.batch.replace(id="batch_1"))
    before = {p: p.stat().st_mtime_ns for p in Path(job.path).rglob("*")}

    again = a_job(FRAME, jobs)

    assert (job.id, "batch_1") == (again.id, again.shards(0)[0].batch.id)
    assert before == {p: p.stat().st_mtime_ns for p in Path(job.path).rglob("*")}
    assert [job.id] == jobs.job_ids()


SAME: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "another order of rows": (FRAME.iloc[::-1], {}),
    "another column": (FRAME.assign(more=1), {}),
    "another dtype of text": (FRAME.astype({"title": "category"}), {}),
    "an unused value": (FRAME.assign(price=0.0), {}),
    "another pace": (FRAME, {"max_enqueued_tokens": 10**6}),
    "parameters in another order": (FRAME, {"params": {"top_p": 1, "temperature": 0}}),
}


@pytest.mark.parametrize("case", SAME)
def test_what_does_not_change_a_request_does_not_change_the_job(case: str, jobs: Store) -> None:
    """The job is found again, so nothing is paid twice."""
    frame, wishes = SAME[case]
    base: dict[str, Any] = {"params": {"temperature": 0, "top_p": 1}} if "params" in wishes else {}

    assert a_job(FRAME, jobs, **base).id == a_job(frame, jobs, **wishes).id


OTHER: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "a value": (FRAME.assign(title=["mug", "rake", "lamp"]), {}),
    "a key": (FRAME.set_axis([30, 10, 21]), {}),
    "values swapped under their keys": (FRAME.set_axis([10, 30, 20]), {}),
    "a row less": (FRAME.iloc[:2], {}),
    "the template": (FRAME, {"template": "Sort  {{ title }}"}),
    "the model": (FRAME, {"model": "m2"}),
    "the name": (FRAME, {"name": "other"}),
    "a parameter": (FRAME, {"params": {"temperature": 0}}),
    "the labels": (FRAME, {"labels": ["a", "b"]}),
    "the provider": (FRAME, {"provider": "openai"}),
    "a wish for a fresh one": (FRAME, {"nonce": "1"}),
}


@pytest.mark.parametrize("case", OTHER)
def test_what_changes_a_request_makes_another_job(case: str, jobs: Store) -> None:
    """Two jobs never share a folder."""
    frame, wishes = OTHER[case]

    assert a_job(FRAME, jobs).id != a_job(frame, jobs, **wishes).id


def test_columns_keep_their_order_in_a_later_session(jobs: Store) -> None:
    """The stored schema's properties are the columns, as they were written down."""
    wish = {"zeta": str, "alpha": int, "mid": Literal["x", "y"]}
    job = a_job(FRAME, jobs, response_model=wish)

    schema = JobPath(Store(jobs.root), job.id).open().spec.output.schema

    assert schema is not None
    assert list(wish) == list(schema["properties"])


# --- errors leave nothing -------------------------------------------------------------------------

BAD: dict[str, tuple[pd.DataFrame, dict[str, Any], type[InputError], str]] = {
    "no rows": (FRAME.iloc[:0], {}, InputError, "The frame is empty"),
    "missing column": (FRAME, {"template": "{{ titel }}"}, TemplateError, "mean 'title'"),
    "repeated key": (FRAME.set_axis([1, 1, 2]), {}, RowKeyError, "repeats"),
    "null key": (FRAME, {"key": "price"}, RowKeyError, "'price' is null in 1 row"),
    "no such key": (FRAME, {"key": "id"}, RowKeyError, "'id' is not in the frame"),
    "a null in the last row": (
        FRAME,
        {"template": "{{ price }}"},
        NullValueError,
        "^Row 20 would print a null: column 'price'",
    ),
    "the last row fails": (
        FRAME,
        {"template": "{{ 1 / (title != 'desk') }}"},
        TemplateError,
        "fails on row 20: ZeroDivisionError",
    ),
    "a row of a later chunk fails": (
        pd.DataFrame({"n": range(CHUNK_ROWS + 9)}, index=[f"k{i}" for i in range(CHUNK_ROWS + 9)]),
        {"template": f"{{{{ 1 / (n - {CHUNK_ROWS + 3}) }}}}"},
        TemplateError,
        f"fails on row 'k{CHUNK_ROWS + 3}': ZeroDivisionError",
    ),
    "all skipped": (
        FRAME.assign(price=np.nan),
        {"template": "{{ price }}", "on_null": "skip"},
        InputError,
        "All 3 rows would be skipped",
    ),
    "output column there": (
        FRAME.assign(llmbatch=1),
        {},
        ColumnCollisionError,
        "a column 'llmbatch' already",
    ),
    "status column there": (
        FRAME.assign(x_status=1),
        {"name": "x"},
        ColumnCollisionError,
        "'x_status' already",
    ),
    "field there": (FRAME, {"response_model": {"sku": str}}, ColumnCollisionError, "'sku' already"),
    "too large": (
        FRAME,
        {"limits": Limits(max_bytes=90)},
        RequestTooLargeError,
        "The request of row 30 has",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_an_error_in_any_row_leaves_no_job(case: str, jobs: Store) -> None:
    """Every row renders before the job exists; the error names the row by its key."""
    frame, wishes, error, message = BAD[case]

    with pytest.raises(error, match=message):
        a_job(frame, jobs, **wishes)

    assert jobs.job_ids() == []
    assert {p.name for p in Path(jobs.root).glob("*")} <= {".gitignore", ".lock"}


def test_a_prefix_keeps_fields_apart(jobs: Store) -> None:
    """The collision is checked with the names that the columns will have."""
    job = a_job(FRAME, jobs, response_model={"sku": str}, prefix="ai_")

    assert job.spec.prefix == "ai_"


# --- preview and input hashes ---------------------------------------------------------------------


def test_a_preview_is_what_would_be_sent(jobs: Store) -> None:
    """The first rows' bodies by key, and nothing on disk."""
    plan = a_plan(labels=["a", "b"])
    shown, _ = preview_bodies(FRAME.iloc[:2], check_frame(FRAME, plan), plan)

    assert not Path(jobs.root).exists()
    sent = requests(write_job(FRAME, plan, jobs, Limits()))
    assert [("30", sent[0]["body"]), ("10", sent[1]["body"])] == shown


def test_a_preview_leaves_out_skipped_rows() -> None:
    """It shows requests, and they have none."""
    plan = a_plan("{{ price }}", on_null="skip")

    shown, _ = preview_bodies(FRAME, check_frame(FRAME, plan), plan)

    assert [key for key, _ in shown] == ["30", "10"]


def test_input_hashes_are_of_what_is_printed() -> None:
    """A re-read frame agrees where its text does, row by row; a row that fails has none."""
    spec = a_plan("{{ title }} {{ price }}").spec
    before = input_hashes(FRAME, spec)
    price = np.array(["1.5", "2", None], dtype=object)
    text = FRAME.assign(price=price).astype({"price": "string", "title": "category"})
    changed = FRAME.assign(title=["mug", "spade", "desk"])

    assert before.equals(input_hashes(text, spec))
    assert [a == b for a, b in zip(before, input_hashes(changed, spec), strict=True)][:2] == [
        True,
        False,
    ]
    assert before.to_pylist()[2] is None


# --- what a large frame repeats -------------------------------------------------------------------


@FEW
@given(
    texts=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    remembered=st.integers(0, 5),
)
def test_repeats_are_sent_once_however_few_requests_are_remembered(
    tmp_path_factory: Any, texts: list[str], remembered: int
) -> None:
    """A frame with more requests than are remembered whole is written as a small one is."""
    frame, root = pd.DataFrame({"title": texts}), tmp_path_factory.mktemp("jobs")
    small = a_job(frame, Store(root / "small"), Limits(max_requests=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frameenrich.identity.dedupe.REMEMBERED", remembered)
        large = a_job(frame, Store(root / "large"), Limits(max_requests=3))

    assert small.id == large.id
    assert small.sidecar().equals(large.sidecar())
    assert asked(small) == asked(large)
    assert len(asked(large)) == len(set(texts))
    for shard in large.all_shards():
        assert shard.batch.requests == len(ids_of(shard)) <= 3


def test_an_answer_in_the_store_is_found_among_many_requests() -> None:
    """Halves of hashes find the candidates; the whole hash decides."""
    ordered = np.sort(np.array([5, 9, 2**63 + 1], np.uint64))

    assert is_in(ordered, np.array([9, 8, 2**63 + 1, 0, 2**64 - 1], np.uint64)).tolist() == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert duplicates(np.array([1, 1, 2, 3, 3, 3], np.uint64)).tolist() == [1, 3]


@pytest.mark.parametrize("endpoint", sorted(_PARAMETER_TYPES))
def test_parameters_are_read_as_the_sdk_would_import_them(endpoint: str) -> None:
    """The source is parsed, since importing it takes as long as pandas; nothing is missed."""
    module = import_module(_PARAMETER_TYPES[endpoint])
    imported = {
        name
        for item in vars(module).values()
        if isinstance(item, type) and item.__name__.endswith(("CreateParams", "CreateParamsBase"))
        for name in item.__annotations__
    }

    assert set(_known_parameters(endpoint)) == imported | {"stream"}

"""Another round by class: who is asked again, with what change, and when it ends."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply, pick, row_name
from conftest import DEPARTMENTS, ROOT, status_counts

import frameenrich
from frameenrich.errors import FrameEnrichWarning, OutputError, ParameterError, WaitTimeoutError
from frameenrich.model import Limits, Result, RowStatus
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

IMDB = ROOT.parent / "shared" / "data" / "imdb_top_1000.csv"
LABEL_NAMES = ", ".join(map(repr, DEPARTMENTS))
ASK = "Which department sells {{ title }}?"
FAST: dict[str, Any] = {"poll_seconds": 0.01}


def sent(job: Job, round_: int) -> dict[str, dict[str, Any]]:
    """Return the bodies of a round's requests by custom_id, without the job's tag."""
    files = [path for path in job.requests if f"/round-{round_}/" in path]
    lines = [json.loads(line) for path in files for line in Path(path).read_text().splitlines()]
    return {row_name(line["custom_id"]): line["body"] for line in lines}


def submit(frame: pd.DataFrame, client: openai.OpenAI, store: Path, **wishes: Any) -> Job:
    """Return a job of labels that has ended."""
    wishes = {"labels": DEPARTMENTS, "confirm_seconds": 0.02, **wishes}
    job: Job = frame.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store, **wishes)
    return job.wait(**FAST)


def first_question(body: dict[str, Any]) -> str:
    """Return the row's own question, whatever turns follow it."""
    return str(next(turn["content"] for turn in body["messages"] if turn["role"] == "user"))


# --- malformed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
def test_malformed_rows_are_shown_their_newest_answer_and_its_fault(
    endpoint: str, client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Round 2 shows what round 1 said, and not the whole quarrel."""
    server.faults.add("malformed", where=["row-A2"], content="no idea")
    server.faults.add("malformed", where=["r1-row-A2"], content='{"label": "Sports"}')
    place = "input" if endpoint == "/v1/responses" else "messages"
    job = submit(mugs, client, store, endpoint=endpoint)

    job.regenerate().wait(**FAST).regenerate().wait(**FAST)

    question = {"role": "user", "content": "Which department sells Blue hose?"}
    said = (
        "That answer could not be used: $.label: {} is not one of the 5 labels: "
        f"{LABEL_NAMES}. Answer again, in the form asked for and nothing else."
    )
    (first,), (second,) = sent(job, 1).values(), sent(job, 2).values()
    assert first[place] == [
        question,
        {"role": "assistant", "content": "no idea"},
        {"role": "user", "content": said.format("'no idea'")},
    ]
    assert second[place] == [
        question,
        {"role": "assistant", "content": '{"label": "Sports"}'},
        {"role": "user", "content": said.format("'Sports'")},
    ]
    assert status_counts(job.collect(mugs)) == {"ok": 4}
    assert {**first, place: None} == {**sent(job, 0)["row-A2"], place: None}


def test_feedback_can_be_left_out_and_plain_completions_have_none(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """``feedback=False`` and an endpoint without a conversation ask the very same again."""
    server.faults.add("malformed", where=["row-A2"], content="no idea")
    labels = submit(mugs, client, store).regenerate(feedback=False).wait(**FAST)
    numbers = submit(
        mugs, client, store, labels=None, parser=int, endpoint="/v1/completions", name="n"
    ).regenerate()

    assert sent(labels, 1)["r1-row-A2"] == sent(labels, 0)["row-A2"]
    assert list(sent(numbers, 1).values()) == list(sent(numbers, 0).values())


def test_a_parser_of_another_session_is_passed_again(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """`flagged` and `regenerate` take another reading, as `collect` does; ok rows stay as read."""

    def short(text: str) -> str:
        if len(text) > 38:
            raise ValueError(f"{len(text)} characters are too many")
        return text

    job = submit(mugs, client, store, labels=None, parser=str)

    with pytest.raises(OutputError, match="Pass it again"):
        mugs.llmbatch.regenerate(store=store, client=client)
    bad = mugs.llmbatch.flagged(job, parser=short)
    mugs.llmbatch.regenerate(job, parser=short)

    counts = [len(f"echo: Which department sells {title}?") for title in mugs["title"][1:]]
    assert bad["error"].tolist() == [f"{count} characters are too many" for count in counts]
    assert sorted(sent(job, 1)) == ["r1-row-A2", "r1-row-A3", "r1-row-A4"]
    assert "39 characters are too many" in str(sent(job, 1)["r1-row-A2"])


# --- truncated ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "params", "rounds"),
    [
        ("/v1/chat/completions", {"max_tokens": 7}, [{"max_tokens": 14}, {"max_tokens": 28}]),
        (
            "/v1/chat/completions",
            {"max_completion_tokens": 7},
            [{"max_completion_tokens": 14}, {"max_completion_tokens": 28}],
        ),
        (  # nothing set: from what the answer took, which is 4 tokens, cut by the server
            "/v1/chat/completions",
            {},
            [{"max_completion_tokens": 10}, {"max_completion_tokens": 20}],
        ),
        ("/v1/responses", {"max_output_tokens": 7}, [{"max_output_tokens": 14}]),
        ("/v1/responses", {}, [{"max_output_tokens": 10}]),
        ("/v1/completions", {"max_tokens": 7}, [{"max_tokens": 14}]),
    ],
)
def test_truncated_rows_get_twice_the_cap_each_time(
    endpoint: str,
    params: dict[str, int],
    rounds: list[dict[str, int]],
    client: openai.OpenAI,
    store: Path,
    mugs: pd.DataFrame,
    server: BatchServer,
) -> None:
    """The same cap would cut the answer at the same place; nothing else changes."""
    server.faults.add("truncated", where=["row-A1", "r1-row-A1"])
    job = submit(mugs, client, store, labels=None, endpoint=endpoint, params=params)

    for round_, cap in enumerate(rounds, 1):
        job.regenerate().wait(**FAST)
        assert sent(job, round_) == {f"r{round_}-row-A1": {**sent(job, 0)["row-A1"], **cap}}


def test_the_user_is_told_which_cap_was_raised(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """In the job's repr, its card and `rounds`, in later sessions too."""
    server.faults.add("truncated", where=["row-A1", "row-A2"])
    server.faults.add("malformed", where=["row-A3"], content="hm")
    server.faults.add("http_error", where=["row-A4"])
    job = submit(mugs, client, store, params={"max_tokens": 20})

    assert job.rounds().empty
    job.regenerate().wait(**FAST)

    again = frameenrich.open_job(job.id, store)
    assert again.rounds().to_dict("split", index=False)["data"] == [
        [1, "truncated", "max_tokens 20 -> 40", 2],
        [1, "malformed", "feedback", 1],
        [1, "failed", "unchanged", 1],
    ]
    told = "round 1: max_tokens 20 -> 40 for 2 truncated rows; round 1: feedback for 1 malformed"
    assert told in repr(again)
    assert "max_tokens 20 -&gt; 40 for 2 truncated rows" in again._repr_html_()


def test_parameters_win_over_the_doubled_cap_and_its_other_name(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """A request has one cap: both names at once would be refused by the API."""
    server.faults.add("truncated", where=["row-A1"])
    job = submit(mugs, client, store, params={"max_tokens": 20, "temperature": 0})

    job.regenerate(params={"max_completion_tokens": 500, "temperature": 1})

    body = {**sent(job, 0)["row-A1"], "max_completion_tokens": 500, "temperature": 1}
    del body["max_tokens"]
    assert sent(job, 1)["r1-row-A1"] == body
    assert job.rounds()["change"].tolist() == [
        "max_completion_tokens 20 -> 500, temperature 0 -> 1"
    ]


# --- unchanged, or not at all ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options", "status"),
    [
        ("http_error", {}, "failed"),
        ("http_error", {"status": 429}, "failed"),
        ("status_zero", {}, "failed"),
        ("no_response_key", {}, "failed"),
        ("missing", {}, "missing"),
        ("empty", {}, "empty"),
        ("expired_line", {}, "expired"),
    ],
)
def test_what_was_bad_luck_is_asked_as_before(
    fault: str,
    options: dict[str, Any],
    status: str,
    client: openai.OpenAI,
    store: Path,
    mugs: pd.DataFrame,
    server: BatchServer,
) -> None:
    """Expired, missing, empty, 5xx, 429 and lines without a status go again unchanged."""
    server.faults.add(fault, where=["row-A1"], **options)
    job = submit(mugs, client, store)
    before = job.collect(mugs)

    after = job.regenerate().wait(**FAST).collect(mugs)

    assert status_counts(before) == {"ok": 3, status: 1}
    assert status_counts(after) == {"ok": 4}
    assert sent(job, 1) == {"r1-row-A1": sent(job, 0)["row-A1"]}


@pytest.mark.parametrize(
    ("fault", "options", "status"),
    [
        ("refused", {}, "refused"),
        ("content_filter", {}, "refused"),
        ("http_error", {"status": 400}, "failed"),
        ("http_error_in_output", {"status": 404}, "failed"),
    ],
)
def test_what_was_refused_is_asked_again_only_by_name(
    fault: str,
    options: dict[str, Any],
    status: str,
    client: openai.OpenAI,
    store: Path,
    mugs: pd.DataFrame,
    server: BatchServer,
) -> None:
    """A refusal and a 4xx are answers; whether to insist is for the user to decide."""
    server.faults.add(fault, where=["row-A1"], **options)
    job = submit(mugs, client, store)

    with pytest.warns(FrameEnrichWarning, match="0 of 1 flagged rows sent"):
        job.regenerate()
    assert sent(job, 1) == {}
    job.regenerate(statuses=[status]).wait(**FAST)

    assert sent(job, 1) == {"r1-row-A1": sent(job, 0)["row-A1"]}
    assert status_counts(job.collect(mugs)) == {"ok": 4}


def test_the_http_status_decides_what_can_be_mended() -> None:
    """A 4xx is about the request; 5xx, 0 and no status at all are about the moment."""
    codes = {code: Result("r", RowStatus.FAILED, status_code=code) for code in (400, 422, 500, 0)}

    assert [codes[code].repairable for code in codes] == [False, False, True, True]
    assert Result("r", RowStatus.FAILED).repairable
    assert not Result("r", RowStatus.REFUSED).repairable
    assert not Result("r", RowStatus.OK).repairable
    assert not Result("r", RowStatus.PENDING).repairable


@pytest.mark.parametrize("statuses", [["malformed"], "malformed", [RowStatus.MALFORMED]])
def test_statuses_choose_rows(
    statuses: Any, client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Only the rows of the named statuses are sent; a word that is none is refused."""
    server.faults.add("malformed", where=["row-A1"])
    server.faults.add("http_error", where=["row-A2"])
    job = submit(mugs, client, store)

    job.regenerate(statuses=statuses)

    assert list(sent(job, 1)) == ["r1-row-A1"]
    with pytest.raises(ParameterError, match="'ok', which is not a flagged status"):
        job.regenerate(statuses=["ok"])


# --- rounds add up --------------------------------------------------------------------------------


def test_a_stronger_model_answers_what_is_left_and_the_columns_say_so(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """``model=`` escalates for the rows sent; a later round stays with it, a model a file."""
    server.faults.add("malformed", where=["row-A1", "r1-row-A1", "row-A2"], content="?")
    server.faults.add("http_error", where=["row-A3"])
    job = submit(mugs, client, store)

    job.regenerate(model="gpt-5", statuses=["malformed"]).wait(**FAST).regenerate().wait(**FAST)

    out = job.collect(mugs, usage=True)
    assert status_counts(out) == {"ok": 4}
    assert out["llmbatch_model"].tolist() == ["gpt-5", "gpt-5", "gpt-4o-mini", "gpt-4o-mini"]
    assert out["llmbatch_attempt"].tolist() == [3, 2, 2, 1]
    ids = list(map(row_name, out["llmbatch_custom_id"]))
    assert ids == ["row-A1", "row-A2", "row-A3", "row-A4"]
    models = [
        {json.loads(line)["body"]["model"] for line in Path(path).read_text().splitlines()}
        for path in job.requests
    ]
    assert models == [{"gpt-4o-mini"}, {"gpt-5"}, {"gpt-4o-mini"}, {"gpt-5"}]
    assert job.rounds()["change"].tolist() == [
        "feedback, model gpt-4o-mini -> gpt-5", "unchanged", "feedback",
    ]  # fmt: skip


def test_a_good_answer_is_never_overwritten_nor_asked_again(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Whatever later rounds bring, what was ok stays the very same cell."""
    server.faults.add("malformed", where=["row-A1"])
    job = submit(mugs, client, store)
    before = job.collect(mugs, usage=True).iloc[1:]
    server.faults.add("malformed")

    for _ in range(3):
        job.regenerate().wait(**FAST)

    after = job.collect(mugs, usage=True)
    pd.testing.assert_frame_equal(after.iloc[1:], before)
    assert after["llmbatch_attempt"].tolist() == [4, 1, 1, 1]
    times = Counter(custom_id.split("-")[-1] for custom_id in server.executed)
    assert times == {"A1": 4, "A2": 1, "A3": 1, "A4": 1}


def test_flagged_tells_the_history_of_each_row(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Each earlier attempt with status, reason, and what was changed after it; attempts count."""
    server.faults.add("truncated", where=["row-A1", "r1-row-A1"])
    server.faults.add("refused", where=["row-A2", "r2-row-A2"], message="No.")
    server.faults.add("malformed", where=["r2-row-A1"], content="hm")
    job = submit(mugs, client, store, params={"max_tokens": 20})
    fresh = job.flagged()

    job.regenerate().wait(**FAST)
    job.regenerate(statuses=["truncated", "refused"]).wait(**FAST)

    assert fresh["history"].tolist() == [[], []]
    bad = mugs.llmbatch.flagged(job)
    cut = "cut at the token limit; regenerate asks with twice the limit"
    assert bad.drop(columns=["raw", "prompt", "history"]).to_dict("index") == {
        "A1": {
            "sku": "A1",
            "status": "malformed",
            "error": f"$.label: 'hm' is not one of the 5 labels: {LABEL_NAMES}",
            "attempt": 3,
        },
        "A2": {"sku": "A2", "status": "refused", "error": "No.", "attempt": 2},
    }
    assert bad["history"].tolist() == [
        [
            {"attempt": 1, "status": "truncated", "error": cut, "then": "max_tokens 20 -> 40"},
            {"attempt": 2, "status": "truncated", "error": cut, "then": "max_tokens 40 -> 80"},
        ],
        [{"attempt": 1, "status": "refused", "error": "No.", "then": "unchanged"}],
    ]
    bad.to_parquet(store / "bad.parquet")


def test_a_round_keeps_to_the_limits_of_a_batch(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """A later round is cut into files as the first was, by number and by the model's queue."""
    server.faults.add("malformed", where="row-*")
    provider = OpenAIBatch(client, wait_seconds=0.01)
    provider.limits = Limits(max_requests=3)
    job = mugs.llmbatch.submit(
        ASK, "m", labels=DEPARTMENTS, provider=provider, store=store, max_enqueued_tokens=400
    ).wait(**FAST)

    job.regenerate().wait(**FAST)

    counts = [len(Path(path).read_text().splitlines()) for path in job.requests]
    assert sum(counts) == 8
    assert max(counts) <= 3
    assert all(Path(path).stat().st_size <= 400 * 4 for path in job.requests)
    assert status_counts(job.collect(mugs)) == {"ok": 4}


# --- unattended -----------------------------------------------------------------------------------


def test_collect_mends_by_itself_until_nothing_is_left(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """``max_rounds`` waits, asks again and waits; a cell run twice sends nothing more."""
    server.faults.add("malformed", where=["row-A1", "r1-row-A1"])
    server.faults.add("http_error", where=["row-A2"])
    server.faults.add("refused", where=["row-A3"])
    mugs.llmbatch.submit(ASK, "m", labels=DEPARTMENTS, client=client, store=store)
    options: dict[str, Any] = {"wait": True, "client": client, "store": store, **FAST}

    out = mugs.llmbatch.collect(max_rounds=5, usage=True, **options)
    again = mugs.llmbatch.collect(max_rounds=5, usage=True, **options)

    assert out["llmbatch_status"].tolist() == ["ok", "ok", "refused", "ok"]
    assert out["llmbatch_attempt"].tolist() == [3, 2, 1, 1]
    pd.testing.assert_frame_equal(again, out)
    assert server.count("POST", "/v1/batches") == 3


@pytest.mark.parametrize(("max_rounds", "sent_in_all"), [(0, 1), (1, 2), (2, 3)])
def test_no_more_rounds_than_allowed(
    max_rounds: int,
    sent_in_all: int,
    client: openai.OpenAI,
    store: Path,
    mugs: pd.DataFrame,
    server: BatchServer,
) -> None:
    """However often the cell is run, and though every answer is another bad one."""
    for custom_id in ("row-A1", "r1-row-A1", "r2-row-A1", "r3-row-A1"):
        server.faults.add("malformed", where=[custom_id], content=f"bad {custom_id}")
    job = submit(mugs, client, store)

    for _ in range(3):
        out = job.collect(mugs, wait=True, max_rounds=max_rounds, **FAST)

    assert status_counts(out) == {"ok": 3, "malformed": 1}
    assert server.count("POST", "/v1/batches") == sent_in_all


def test_a_round_that_changed_nothing_is_the_last(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """The same fault with the same words again: asking on would only cost."""
    server.faults.add("malformed", where="*row-A1", content="no")
    job = submit(mugs, client, store)

    job.collect(mugs, wait=True, max_rounds=9, **FAST)

    assert server.count("POST", "/v1/batches") == 2


def test_max_rounds_needs_wait_and_minds_the_timeout(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Without waiting there is nothing to mend yet; the timeout is for all rounds together."""
    server.faults.add("malformed", where="row-*")
    job = submit(mugs, client, store)

    with pytest.raises(ParameterError, match="without wait=True"):
        job.collect(mugs, max_rounds=2)
    server.hold("in_progress")
    with pytest.raises(WaitTimeoutError, match=r"after 0\.1 seconds"):
        job.collect(mugs, wait=True, max_rounds=2, timeout=0.1, **FAST)
    server.release()
    assert status_counts(job.collect(mugs, wait=True, **FAST)) == {"ok": 4}


# --- a thousand films -----------------------------------------------------------------------------

SEEN = ["yes", "no", "unsure"]


def film(body: dict[str, Any], custom_id: str) -> Reply:
    """Return what the model says of a film: a pure function of the row's own question."""
    question = first_question(body)
    return Reply(content=json.dumps({"length": len(question), "seen": pick(SEEN, question)}))


@pytest.mark.skipif(not IMDB.exists(), reason="shared/ is not beside this checkout")
def test_two_rounds_mend_every_film_that_can_be_mended(store: Path) -> None:
    """A third of 1,000 real rows broken in seven ways, some of them again in the first round."""
    frame = pd.read_csv(IMDB)
    template = "{{ Series_Title }} by {{ Director }}: {{ Overview }}"
    with (
        BatchServer(answer=film, seed=4) as server,
        openai.OpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        faults: list[tuple[str, dict[str, Any]]] = [
            ("malformed", {}),
            ("truncated", {}),
            ("http_error", {"status": 500}),
            ("http_error", {"status": 400}),
            ("refused", {}),
            ("missing", {}),
            ("empty", {}),
        ]
        for seed, (name, options) in enumerate(faults):
            server.faults.add(name, where="row-*", fraction=0.055, seed=seed, **options)
            if options.get("status") != 400 and name != "refused":
                server.faults.add(name, where="r1-*", fraction=0.06, seed=seed, **options)
        job = frame.llmbatch.submit(
            template,
            "gpt-4o-mini",
            name="film",
            response_model={"length": int, "seen": Literal["yes", "no", "unsure"]},
            params={"max_tokens": 60},
            client=client,
            store=store,
            confirm_seconds=0.02,
        )
        first = frame.llmbatch.collect(job, wait=True, **FAST)
        once = frame.llmbatch.collect(job, wait=True, max_rounds=1, **FAST)
        twice = frame.llmbatch.collect(job, wait=True, max_rounds=2, usage=True, **FAST)
        bad = frame.llmbatch.flagged(job)

    broken = {name: n for name, n in status_counts(first, "film").items() if name != "ok"}
    assert set(broken) == {"malformed", "truncated", "failed", "refused", "missing", "empty"}
    assert 280 < sum(broken.values()) < 400
    questions = [
        f"{row.Series_Title} by {row.Director}: {row.Overview}" for row in frame.itertuples()
    ]
    ok = twice["film_status"] == "ok"
    refused = first["film_status"] == "refused"
    bad_request = first["film_error"].str.startswith("HTTP 400").fillna(False)
    assert (~ok).tolist() == (refused | bad_request).tolist()
    assert status_counts(once, "film")["ok"] < ok.sum()
    assert status_counts(twice, "film") == {
        "ok": ok.sum(), "refused": refused.sum(), "failed": bad_request.sum()
    }  # fmt: skip
    assert twice["film_error"].isna().tolist() == ok.tolist()
    assert twice["length"][ok].tolist() == [len(questions[i]) for i in twice.index[ok]]
    assert twice["seen"][ok].tolist() == [pick(SEEN, questions[i]) for i in twice.index[ok]]
    assert set(twice["film_attempt"]) == {1, 2, 3}
    assert (twice["film_attempt"][~ok] == 1).all()
    assert bad.index.tolist() == twice.index[~ok].tolist()
    same = first["film_status"] == "ok"
    assert twice["length"][same].equals(first["length"][same])

"""What a job will cost, may cost and has cost: tokens, prices, caps, usage."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from conftest import DEPARTMENTS, status_counts, tagged
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st
from rs_bpe.bpe import openai as second_tokenizer
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import BudgetError, FrameEnrichWarning, ParameterError
from frameenrich.model import JobSpec, Limits, Message
from frameenrich.pricing import tokens as tokens_module
from frameenrich.pricing.money import show_usd
from frameenrich.pricing.prices import Price, check_prices, find_rates, rate_of, rates_of_answer
from frameenrich.pricing.tokens import TokenCounter, vocabulary
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

ASK = "Which department sells {{ title }}?"
CHAT = "/v1/chat/completions"
FAST: dict[str, Any] = {"poll_seconds": 0.01}
MILLION: dict[str, Any] = {"input": 1.0, "output": 1.0}
"""USD per million tokens; in a batch a token then costs half a millionth."""
SIZE = {"prompt_tokens": 100, "completion_tokens": 10}
HARD = [
    "<|endoftext|>",
    "<|im_start|>system\n",
    "<|think|>",
    "😀👨\u200d👩\u200d👧",
    "a\u2028b\x85",
    "\x00",
    "ñandú 漢字",
]
TOKENIZERS = {
    "o200k_base": ("gpt-4o", second_tokenizer.o200k_base()),
    "cl100k_base": ("gpt-4", second_tokenizer.cl100k_base()),
}


CORPORATE = """\
You are a helpful, pattern-following assistant that translates corporate jargon into plain English.
Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.
Let's talk later when we're less busy about how to do better.
This late pivot means we don't have time to boil the ocean for the client deliverable.\
""".splitlines()


def body(model: str, **members: Any) -> bytes:
    """Return a request's body."""
    return json.dumps({"model": model, **members}).encode()


def tokens(model: str, text: str) -> int:
    """Return how many tokens a text has, with nothing around it."""
    return TokenCounter("/v1/embeddings").count(body(model, input=text)).prompt_tokens


def submit(frame: pd.DataFrame, store: Path, **wishes: Any) -> Job:
    """Return a job of labels with a cap of ten tokens an answer."""
    wishes = {"labels": DEPARTMENTS, "params": {"max_tokens": 10}, "prices": MILLION, **wishes}
    job: Job = frame.llmbatch.submit(ASK, "gpt-4o-mini", store=store, **wishes)
    return job


def jobs_in(store: Path) -> list[str]:
    """Return the ids of a store's jobs."""
    return list(frameenrich.jobs(store)["job"])


def reply(content: str, prompt: int = 100, completion: int = 10) -> Reply:
    """Return an answer that took so many tokens."""
    return Reply(content=content, usage={"prompt_tokens": prompt, "completion_tokens": completion})


# --- tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(HARD))
@example(text="".join(HARD))
@example(text="  \n\n\t 12345678 don't DON'T it's\r\n  " * 20)
@examples(60)
def test_a_text_has_as_many_tokens_as_a_second_tokenizer_says(name: str, text: str) -> None:
    """Whatever is in it; what looks like a special token is text, as it is to the API."""
    model, second = TOKENIZERS[name]

    assert vocabulary(model) == (name, True)
    assert second.count(text) == tokens(model, text)


def test_half_a_character_is_counted_as_the_mark_that_replaces_it() -> None:
    """Lone surrogates come out of damaged CSV files; they must not stop an estimate."""
    assert tokens("gpt-4o", "a \ufffd mug") == tokens("gpt-4o", "a \ud83d mug")
    assert tokens("gpt-4o", "a 😀 mug") == tokens("gpt-4o", "a \ud83d\ude00 mug")


@pytest.mark.parametrize(("model", "expected"), [("gpt-4o", 124), ("gpt-4", 129)])
def test_a_conversation_is_counted_as_the_api_did(model: str, expected: int) -> None:
    """The example of OpenAI's cookbook, with the numbers that its API gave there."""
    turns = [
        ("system", None, CORPORATE[0]),
        ("system", "example_user", "New synergies will help drive top-line growth."),
        ("system", "example_assistant", "Things working well together will increase revenue."),
        ("system", "example_user", CORPORATE[1]),
        ("system", "example_assistant", CORPORATE[2]),
        ("user", None, CORPORATE[3]),
    ]
    messages = [
        {"role": role, "content": text, **({"name": name} if name else {})}
        for role, name, text in turns
    ]

    found = TokenCounter(CHAT).count(body(model, messages=messages))

    assert expected == found.prompt_tokens


@pytest.mark.parametrize(
    ("endpoint", "members", "cap"),
    [
        (CHAT, {"messages": [], "max_tokens": 7}, 7),
        (CHAT, {"messages": [], "max_completion_tokens": 8}, 8),
        (CHAT, {"messages": []}, None),
        ("/v1/responses", {"input": [], "max_output_tokens": 9}, 9),
        ("/v1/completions", {"prompt": "x"}, 16),
        ("/v1/embeddings", {"input": "x"}, 0),
    ],
)
def test_the_cap_is_read_where_the_endpoint_has_it(
    endpoint: str, members: dict[str, Any], cap: int | None
) -> None:
    """Plain completions have one of their own; vectors have no answer to write."""
    assert cap == TokenCounter(endpoint).count(body("gpt-4o", **members)).cap


@pytest.mark.parametrize("detail", ["low", "auto"])
@pytest.mark.parametrize("form", ["chat", "responses"])
def test_an_image_counts_as_the_most_it_can_take_and_unknown_ones_are_told(
    form: str, detail: str
) -> None:
    """In both forms; at low detail it is exact. A model of another maker says nothing."""
    url = "https://example.org/a.png"
    chat = {"type": "image_url", "image_url": {"url": url, "detail": detail}}
    responses = {"type": "input_image", "image_url": url, "detail": detail}
    place, part = ("messages", chat) if form == "chat" else ("input", responses)

    def count(model: str, parts: list[Any]) -> tuple[int, int]:
        asked = {place: [{"role": "user", "content": parts}]}
        found = TokenCounter(CHAT).count(body(model, **asked))
        return found.prompt_tokens, found.uncounted

    bare, _ = count("gpt-4o", [])

    assert (bare + (85 if detail == "low" else 1445), 0) == count("gpt-4o", [part])
    assert (bare, 2) == count("llava", [part, part])


# --- prices ---------------------------------------------------------------------------------------


def test_prices_come_from_the_wheel_and_a_batch_costs_half() -> None:
    """Where the package lists a batch price it is taken; else half of the live one."""
    listed, unlisted = (find_rates(m, {}, "openai") for m in ("gpt-5", "text-embedding-3-small"))

    assert listed is not None
    assert unlisted is not None
    assert listed.live.output / 2 == listed.batch.output > 0
    assert listed.live.cached_input < listed.live.input
    assert (unlisted.live.input / 2, 0) == (unlisted.batch.input, unlisted.batch.output)
    assert find_rates("smollm9", {}, "openai") is None


def test_own_prices_win_and_a_dated_name_goes_by_the_name_it_begins_with() -> None:
    """The longest name wins; one price without a name is for every model."""
    own = check_prices({"gpt-4o": {"input": 8, "output": 0}, "gpt-4o-mini": MILLION})
    rates = find_rates("gpt-4o-mini-2024-07-18", own, "openai")
    deployment = rates_of_answer("my-eu-4o", "gpt-4o-2024-08-06", {}, "azure")

    assert rates is not None
    assert Price(0.5, 0.5, 0.5) == rates.batch
    assert Price(1, 1, 1) == rates.live
    assert find_rates("anything", check_prices(MILLION), "openai") == rates
    assert deployment is not None  # by the name in its answers


def test_each_kind_of_job_has_its_rate() -> None:
    """The embedded model and moderations are free; live calls have the live price."""

    def rate(provider: str, endpoint: str = CHAT) -> str:
        return rate_of(JobSpec("n", "m", (Message("user", "x"),), endpoint, provider=provider))

    assert list(map(rate, ("openai", "file", "live", "local"))) == [
        "batch",
        "batch",
        "live",
        "free",
    ]
    assert rate("openai", "/v1/moderations") == "free"


@pytest.mark.parametrize(
    "prices",
    [{}, {"input": 1}, {"input": 1, "output": -1}, {"input": 1, "output": True}, "0.1",
     {"m": {"input": 1}}, {"input": 1, "output": 2, "out": 3},
     {"input": 1, "output": float("nan")}],
)  # fmt: skip
def test_prices_that_are_none_are_refused(prices: Any, mugs: pd.DataFrame, store: Path) -> None:
    """Before anything is rendered; the message shows the form."""
    with pytest.raises(ParameterError, match="live USD per million tokens"):
        submit(mugs, store, prices=prices, provider="file")


@pytest.mark.parametrize("max_cost", [-1, float("nan"), float("inf"), "5", True])
def test_a_cap_that_is_no_amount_is_refused(max_cost: Any, mugs: pd.DataFrame, store: Path) -> None:
    """A cap that could never bind is a mistake, too."""
    with pytest.raises(ParameterError, match="is not an amount"):
        submit(mugs, store, max_cost=max_cost, provider="file")


# --- estimate -------------------------------------------------------------------------------------


def estimate(frame: pd.DataFrame, store: Path, **wishes: Any) -> Any:
    """Return an estimate of what `submit` would send."""
    wishes = {"labels": DEPARTMENTS, "params": {"max_tokens": 10}, **wishes}
    return frame.llmbatch.estimate(ASK, "gpt-4o-mini", store=store, **wishes)


def test_an_estimate_counts_what_submit_would_write(mugs: pd.DataFrame, store: Path) -> None:
    """Repeated rows once, skipped rows not at all; no key, no folder."""
    frame = pd.concat([mugs, mugs, mugs[:1].assign(title=None)]).reset_index(drop=True)

    found = estimate(frame, store, on_null="skip")
    made_nothing = not store.exists()
    job = submit(frame, store, on_null="skip", provider="file")

    counter = TokenCounter(CHAT)
    lines = [json.loads(line) for line in Path(job.requests[0]).read_text().splitlines()]
    sent = [
        counter.count(json.dumps(line["body"], separators=(",", ":")).encode()) for line in lines
    ]
    assert made_nothing
    assert (found.rows, found.skipped, found.reused, found.requests) == (9, 1, 0, 4)
    assert sum(own.prompt_tokens for own in sent) == found.prompt_tokens
    assert (
        found.max_completion_tokens, found.expected_completion_tokens, found.bound
    ) == (40, None, "at most")  # fmt: skip
    expected = (found.prompt_tokens * 0.15 + 40 * 0.60) / 1e6
    assert (expected, expected / 2, expected / 2) == pytest.approx(
        (found.live_usd, found.batch_usd, found.usd)
    )


def test_what_is_in_the_store_is_free_and_measures_the_rest(
    mugs: pd.DataFrame, store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """Answers of the same template, model and parameters; another template's do not count."""
    free: dict[str, Any] = {"params": {}}
    before = estimate(mugs, store, client=client, **free)
    submit(mugs[:2], store, client=client, **free).wait(**FAST)
    calls = len(server.executed)

    after = estimate(mugs, store, client=client, **free)
    fresh = estimate(mugs, store, client=client, fresh=True, **free)
    other = estimate(mugs, store, client=client, params={"temperature": 1})

    table = frameenrich.open_job(jobs_in(store)[0], store).usage()
    mean = table.completion_tokens / table.requests
    assert (before.requests, before.reused, before.bound) == (4, 0, "at least")
    assert (after.requests, after.reused, after.bound) == (2, 2, "about")
    assert round(2 * mean) == after.expected_completion_tokens
    assert (fresh.requests, fresh.reused) == (4, 0)
    assert other.bound == "at least"
    assert calls == len(server.executed)


def test_an_unknown_model_is_named_and_prices_are_asked_for(
    mugs: pd.DataFrame, store: Path
) -> None:
    """With prices it is estimated, and says whose vocabulary it was counted with."""
    with pytest.raises(ParameterError, match=r"'our-llama' is not known\. Pass prices="):
        mugs.llmbatch.estimate(ASK, "our-llama", store=store)
    found = mugs.llmbatch.estimate(ASK, "our-llama", store=store, prices=MILLION)
    local = mugs.llmbatch.estimate(ASK, "smollm2-135m", store=store, provider="local")

    assert found.notes == ("tokens estimated with o200k_base: the model's own are not known",)
    assert "unknown: no cap such as max_tokens" in str(found)
    assert local.usd == 0
    assert "nothing" in str(local)


def test_an_estimate_is_shown_with_its_markup_escaped(mugs: pd.DataFrame, store: Path) -> None:
    """Model names are anybody's text."""
    found = mugs.llmbatch.estimate(ASK, "<b>x</b>", store=store, prices=MILLION)

    assert "<b>x" not in found._repr_html_()
    assert "&lt;b&gt;x" in found._repr_html_()
    assert "<b>x</b>" in repr(found)


def test_an_estimate_opens_no_connection(tmp_path: Path) -> None:
    """Vocabulary and prices are in the wheels: a process that may not connect estimates."""
    program = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        raise RuntimeError(event)
sys.addaudithook(refuse)
import pandas as pd, frameenrich
print(pd.DataFrame({"t": ["Red mug"]}).llmbatch.estimate("{{ t }}", "gpt-4o").prompt_tokens)
"""
    run = [sys.executable, "-c", program]

    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)

    assert (done.stdout, done.stderr) == ("9\n", "")


# --- max_cost -------------------------------------------------------------------------------------


def test_what_could_cost_more_is_refused_before_anything_exists(
    mugs: pd.DataFrame, store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """No job, no upload; with the cap that the message names, the same submit goes."""
    asked = estimate(mugs, store, client=client, prices=MILLION)

    with pytest.raises(BudgetError, match=r"max_cost is \$0\.00001") as refused:
        submit(mugs, store, client=client, max_cost=0.00001)
    nothing = (jobs_in(store), dict(server.executed), len(server.files))
    job = submit(mugs, store, client=client, max_cost=asked.usd).wait(**FAST)

    assert asked.usd == pytest.approx(vars(refused.value)["estimate_usd"])
    assert nothing == ([], {}, 0)
    assert job.usage().usd is not None
    assert status_counts(job.collect(mugs)) == {"ok": 4}


def test_half_an_emoji_is_counted_and_shown(
    mugs: pd.DataFrame, store: Path, tmp_path: Path
) -> None:
    """Text that is no Unicode is asked, counted, held to a cap and reported like any other."""
    titles = ["half \ud83d", *mugs["title"].tolist()[1:]]
    frame = mugs.assign(title=pd.Series(titles, index=mugs.index, dtype=object))

    job = submit(frame, store, provider="file", max_cost=1, prices=MILLION)
    job.report(tmp_path / "report.html")

    assert job.usage().usd == 0
    assert "half" in (tmp_path / "report.html").read_text()


def test_money_is_no_part_of_what_a_job_is(mugs: pd.DataFrame, store: Path) -> None:
    """Another cap or price finds the same job; the newest cap counts, the first prices are kept."""
    job = submit(mugs, store, provider="file", max_cost=1, prices=MILLION)
    again = submit(mugs, store, provider="file", max_cost=2, prices=None)

    assert job.id == again.id
    assert (again.spec.max_cost, again.spec.prices) == (2.0, {"": MILLION})


def test_a_cap_wants_an_end_to_answers_and_a_price(mugs: pd.DataFrame, store: Path) -> None:
    """Nothing is promised that cannot be kept: each refusal says what to set."""
    with pytest.raises(ParameterError, match=r"the length of 4 answers\. Set params="):
        submit(mugs, store, provider="file", params={}, max_cost=5)
    with pytest.raises(ParameterError, match="Pass prices="):
        mugs.llmbatch.submit(
            ASK, "our-llama", params={"max_tokens": 1}, provider="file", store=store, max_cost=5
        )
    with pytest.raises(ParameterError, match="what an image costs"):
        mugs.assign(photo="https://example.org/a.png").llmbatch.submit(
            ASK, "our-llama", params={"max_tokens": 1}, provider="file", store=store,
            max_cost=5, prices=MILLION, image="photo",
        )  # fmt: skip
    assert jobs_in(store) == []


def test_earlier_answers_bound_those_without_a_cap(
    mugs: pd.DataFrame, store: Path, client: openai.OpenAI
) -> None:
    """As after a pilot: the longest of them counts for each answer."""
    submit(mugs[:2], store, client=client, params={}).wait(**FAST)

    job = submit(mugs, store, client=client, params={}, max_cost=5)

    assert job.reused == 2


def test_the_cap_of_submit_holds_for_rounds_of_later_sessions(
    mugs: pd.DataFrame, store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """What is spent counts; to go beyond, a later call names a greater cap."""
    server.faults.add("malformed", where=["row-A2"], content="no idea", times="always")
    plan = estimate(mugs, store, client=client, prices=MILLION)
    job = submit(mugs, store, client=client, max_cost=plan.usd).wait(**FAST)
    later = frameenrich.open_job(job.id, store, client=client)
    spent = later.usage().usd
    rounds = len(job.rounds())

    with pytest.raises(BudgetError, match=f"where \\{show_usd(spent)} is spent") as refused:
        later.regenerate(params={"max_tokens": 1000})
    left = (len(server.executed), len(later.rounds()))
    later.regenerate(params={"max_tokens": 1000}, max_cost=1).wait(**FAST)

    assert vars(refused.value)["spent_usd"] == spent
    assert left == (4, rounds)
    assert len(later.rounds()) == 1


def test_unattended_rounds_end_where_the_money_does(
    mugs: pd.DataFrame, store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """The answers that are there are given back, with a warning; a greater cap goes on."""
    server.faults.add("malformed", where=["row-A2"], content="no idea")
    job = submit(mugs, store, client=client, max_cost=1).wait(**FAST)
    spent = job.usage().usd or 0

    with pytest.warns(FrameEnrichWarning, match=f"No further round of the job {job.id}: Sending"):
        short = job.collect(mugs, wait=True, max_rounds=3, max_cost=spent, **FAST)
    rounds = len(job.rounds())
    whole = mugs.llmbatch.collect(job, wait=True, max_rounds=3, **FAST)

    assert status_counts(short) == {"ok": 3, "malformed": 1}
    assert rounds == 0
    assert status_counts(whole) == {"ok": 4}


def test_a_cap_for_no_round_is_refused(mugs: pd.DataFrame, store: Path) -> None:
    """It would promise something that is not asked for."""
    job = submit(mugs, store, provider="file")

    with pytest.raises(ParameterError, match="without max_rounds="):
        job.collect(max_cost=1)


def test_what_is_still_running_counts_as_much_as_it_can_cost(
    mugs: pd.DataFrame, store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """Two files, of which one never ends: a round for the other has to leave it its money."""
    route = OpenAIBatch(client, wait_seconds=0.01)
    route.limits = Limits(max_requests=2)
    server.faults.add("malformed", where=["row-A2"], content="no idea")
    server.faults.add("stuck", where="*s00001*")
    job = submit(mugs, store, provider=route)
    while not job.usage().requests:
        job.collect()
    spent = job.usage().usd or 0

    with pytest.raises(BudgetError, match="is on its way"):
        job.regenerate(max_cost=spent + 0.00009)
    job.regenerate(max_cost=1)

    assert len(job.rounds()) == 1


# --- usage ----------------------------------------------------------------------------------------


def test_usage_adds_up_and_each_row_has_its_part(store: Path, mugs: pd.DataFrame) -> None:
    """Flagged answers cost, too; rows that share a request share its cost; all of it once."""

    def answer(body: dict[str, Any], custom_id: str) -> Reply:
        bad = custom_id == "row-A2"
        return reply("no idea" if bad else json.dumps({"label": "Toys"}))

    frame = pd.concat([mugs, mugs.set_axis(["B1", "B2", "B3", "B4"])])
    with (
        BatchServer(answer=answer) as server,
        openai.OpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        job = submit(frame, store, client=client).wait(**FAST).regenerate().wait(**FAST)

    used, out = job.usage(), job.collect(frame, usage=True)

    each = 110 * 0.5 / 1e6
    assert used.table.astype(object).values.tolist() == [
        [0, "gpt-4o-mini", 4, 400, 0, 0, 40, pytest.approx(4 * each)],
        [1, "gpt-4o-mini", 1, 100, 0, 0, 10, pytest.approx(each)],
    ]
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (5, 500, 50)
    assert used.usd == pytest.approx(5 * each)
    cost = out["llmbatch_cost_usd"]
    assert cost.dtype == "Float64"
    assert cost.loc[["A1", "B1", "A2", "B2"]].tolist() == pytest.approx(
        [each / 2, each / 2, each, each]
    )
    assert cost.sum() == pytest.approx(used.usd)
    assert job.collect(frame.iloc[::-3], usage=True)["llmbatch_cost_usd"].tolist() == pytest.approx(
        cost.iloc[::-3].tolist()
    )
    first = list(out.columns).index("llmbatch_model")
    order = [name.removeprefix("llmbatch_") for name in out.columns[first:]]
    assert order[:5] == ["model", "attempt", "prompt_tokens", "completion_tokens", "cost_usd"]
    assert "5 requests, 500 prompt tokens (0 cached), 50 completion tokens" in repr(used)


def test_what_was_reused_costs_nothing_here(
    mugs: pd.DataFrame, store: Path, client: openai.OpenAI
) -> None:
    """The job that was paid for it has the cost."""
    submit(mugs[:3], store, client=client).wait(**FAST)
    job = submit(mugs, store, client=client, name="again", labels=DEPARTMENTS).wait(**FAST)

    used, out = job.usage(), job.collect(mugs, usage=True)

    assert (used.requests, used.reused) == (1, 3)
    assert out["again_cost_usd"].tolist()[:3] == [0.0, 0.0, 0.0]
    assert out["again_cost_usd"].sum() == pytest.approx(used.usd)


def test_rows_without_a_request_and_models_without_a_price_have_no_cost(
    mugs: pd.DataFrame, store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """Unknown is not nothing; prices given later say it."""
    frame = mugs.assign(title=["", *mugs["title"][1:]]).replace("", None)
    job: Job = frame.llmbatch.submit(
        ASK, "our-llama", client=client, store=store, on_null="skip"
    ).wait(**FAST)

    bare = job.collect(frame, usage=True)["llmbatch_cost_usd"]
    priced = job.collect(frame, usage=True, prices=MILLION)["llmbatch_cost_usd"]

    assert bare.isna().all()
    assert job.usage().usd is None
    assert "unknown" in str(job.usage())
    assert priced.isna().tolist() == [True, False, False, False]
    assert priced.sum() == pytest.approx(job.usage(prices=MILLION).usd)


def test_cached_tokens_are_cheaper_in_every_form_of_answer(mugs: pd.DataFrame, store: Path) -> None:
    """Chat's and Responses' names of it, a body that is a string, broken lines and doubles."""
    job = submit(mugs, store, provider="file", prices={**MILLION, "cached_input": 0.5})
    chat = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    responses = {
        "input_tokens": 100,
        "output_tokens": 10,
        "input_tokens_details": {"cached_tokens": 60},
    }

    def line(custom_id: str, answered: Any) -> bytes:
        return json.dumps(
            {
                "custom_id": tagged(job, custom_id),
                "response": {"status_code": 200, "body": answered},
            }
        ).encode()

    lines = [
        line("row-A1", {"model": "gpt-4o-mini-2024-07-18", "usage": chat}),
        line("row-A1", {"model": "gpt-4o-mini-2024-07-18", "usage": chat, "twice": 1}),
        line("row-A2", {"model": "gpt-4o-mini-2024-07-18", "usage": responses}),
        line("row-A3", json.dumps({"model": "gpt-4o-mini-2024-07-18", "usage": chat})),
        line("row-A4", {"usage": "none"}),
        b"{broken",
        json.dumps({"custom_id": tagged(job, "row-A4"), "response": None}).encode(),
    ]
    Path("answers.jsonl").write_bytes(b"\n".join(lines))
    used = job.import_responses("answers.jsonl").usage()

    assert (
        used.requests, used.prompt_tokens, used.cached_tokens, used.completion_tokens
    ) == (3, 300, 180, 30)  # fmt: skip
    assert used.usd == pytest.approx(3 * (40 + 60 * 0.5 + 10) * 0.5 / 1e6)


# --- the command line -----------------------------------------------------------------------------


def test_the_command_line_estimates_and_holds_to_a_cap(
    monkeypatch: pytest.MonkeyPatch, server: BatchServer
) -> None:
    """`estimate` needs no key; `run` over its cap ends with 2, and nothing was sent."""
    Path("mugs.csv").write_text("title\nRed mug\nBlue hose\n")
    ask = ["mugs.csv", "-t", ASK, "-m", "our-llama", "--param", "max_tokens=10"]

    bare = CliRunner().invoke(app, ["estimate", *ask])
    told = CliRunner().invoke(app, ["estimate", *ask, "--prices", "1,1", "--json"])
    shown = CliRunner().invoke(app, ["estimate", *ask, "--prices", "1,1"])
    wrong = CliRunner().invoke(app, ["estimate", *ask, "--prices", "1"])
    nothing = not Path(".frameenrich").exists()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    spend = [*ask[:1], "out.csv", *ask[1:], "--prices", "1,1", "--poll-seconds", "0.01"]
    refused = CliRunner().invoke(app, ["run", *spend, "--max-cost", "0.00001"])
    untouched = dict(server.executed)
    done = CliRunner().invoke(app, ["run", *spend, "--max-cost", "1", "--usage"])

    assert (bare.exit_code, wrong.exit_code, refused.exit_code) == (2, 2, 2)
    assert "Pass --prices INPUT,OUTPUT" in bare.stderr
    assert "--prices INPUT,OUTPUT[,CACHED]" in wrong.stderr
    assert tuple(
        json.loads(told.stdout)[name] for name in ("requests", "max_completion_tokens", "bound")
    ) == (2, 20, "at most")
    assert "completion tokens\tat most 20" in shown.stdout
    assert "max_cost is $0.00001" in refused.stderr
    assert (nothing, untouched, done.exit_code) == (True, {}, 0)
    assert pd.read_csv("out.csv")["llmbatch_cost_usd"].gt(0).all()


# --- without the tokenizer, and at other service tiers --------------------------------------------


@pytest.fixture
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation without ``frameenrich[cost]``."""
    monkeypatch.setitem(sys.modules, "splintr", None)
    tokens_module.counts_bytes.cache_clear()
    tokens_module._texts.cache_clear()
    yield
    monkeypatch.undo()
    tokens_module.counts_bytes.cache_clear()
    tokens_module._texts.cache_clear()


@pytest.mark.parametrize("text", [*CORPORATE, "Überfluß 😀 中文 \ud83d", " " * 40])
def test_bytes_bound_the_tokens(text: str, request: pytest.FixtureRequest) -> None:
    """Without the tokenizer a count is never too small, or `max_cost` would not hold."""
    exact = tokens("gpt-4o", text)
    request.getfixturevalue("no_tokenizer")

    assert tokens("gpt-4o", text) >= exact


@pytest.mark.usefixtures("no_tokenizer")
def test_an_estimate_and_a_cap_take_no_extra(store: Path) -> None:
    """After a plain pip install money can be bounded, and the words say what the figures are."""
    frame = pd.DataFrame({"title": ["Red mug", "Blue hose"]})
    options: Any = {"provider": "file", "store": store}
    capped = frame.llmbatch.estimate(
        "{{ title }}?", "gpt-4o-mini", params={"max_tokens": 5}, **options
    )
    open_ended = frame.llmbatch.estimate("{{ title }}?", "gpt-4o-mini", **options)

    assert (capped.bound, open_ended.bound) == ("at most", "prompts at most")
    assert "frameenrich[cost]" in str(capped)
    assert "at most" in dict(capped.cells())["prompt tokens"]
    with pytest.raises(BudgetError, match="could cost"):
        frame.llmbatch.submit(
            "{{ title }}?", "gpt-4o-mini", params={"max_tokens": 5}, max_cost=0.000001, **options
        )


def test_service_tiers_have_their_prices(mugs: pd.DataFrame, store: Path) -> None:
    """Flex and priority calls are estimated at their tier's price, and a batch refuses a tier."""

    def live_usd(**params: Any) -> float:
        found = mugs.llmbatch.estimate(
            "{{ title }}?",
            "gpt-5.4-mini",
            params={"max_completion_tokens": 9, **params},
            provider="live",
            store=store,
        )
        return float(found.usd)

    standard = live_usd()
    assert live_usd(service_tier="flex") == pytest.approx(standard / 2)
    assert live_usd(service_tier="priority") == pytest.approx(standard * 2)
    assert live_usd(service_tier="default") == standard
    with pytest.raises(ParameterError, match="for live calls"):
        mugs.llmbatch.submit(
            "{{ title }}?",
            "gpt-5.4-mini",
            params={"service_tier": "flex"},
            store=store,
            client=openai.OpenAI(api_key="sk-test", base_url="http://127.0.0.1:9"),
        )


def test_an_answer_is_billed_at_the_tier_that_it_names(
    client: openai.OpenAI, mugs: pd.DataFrame, store: Path
) -> None:
    """What was spent goes by the tier in the answer: flex may have been served as default."""

    def spent(**params: Any) -> float:
        job = mugs.llmbatch.submit(
            "{{ title }}?",
            "gpt-5.4-mini",
            params=params,
            provider="live",
            client=client,
            store=store,
        )
        return float(job.usage().usd or 0)

    assert spent(service_tier="flex") == pytest.approx(spent() / 2) != 0

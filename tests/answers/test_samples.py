"""Several answers to a row: the majority, its share, what it costs, and where it is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply

from frameenrich.answers.fields import Field
from frameenrich.answers.votes import by_majority
from frameenrich.errors import FrameEnrichWarning, ParameterError
from frameenrich.model import JobSpec, Result, RowStatus
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.providers.registry import connect

LABELS = ["Kitchen", "Garden", "Toys"]
ASK = "Where is {{ title }}?"


def says(*labels: str | None) -> Reply:
    """Return a reply of several answers, each a label; None is no JSON."""
    texts = ["hm" if label is None else json.dumps({"label": label}) for label in labels]
    return Reply(content=texts[0], others=tuple(texts[1:]))


def answers(server: BatchServer, replies: dict[str, Reply]) -> None:
    """Make the server answer each title with its own replies."""
    server.answer = lambda body, _: replies[body["messages"][-1]["content"]]


def test_the_majority_is_the_value_and_its_share_the_agreement(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A tie goes to what came first; an answer that does not parse agrees with none."""
    frame = pd.DataFrame({"title": ["mug", "hose", "kite", "sock"]})
    answers(
        server,
        {
            "mug": says("Kitchen", "Garden", "Kitchen", "Kitchen"),
            "hose": says("Garden", "Toys", "Toys", "Garden"),
            "kite": says(None, "Toys", "Toys", None),
            "sock": says(None, None, None, None),
        },
    )
    options: dict[str, Any] = {"labels": LABELS, "samples": 4, "provider": provider, "store": store}
    job = frame.llmbatch.submit("{{ title }}", "m", **options)
    out = job.wait(poll_seconds=0.01).collect(frame, usage=True)

    assert out["llmbatch"].astype(object).tolist()[:3] == ["Kitchen", "Garden", "Toys"]
    assert out["llmbatch_status"].tolist() == ["ok", "ok", "ok", "malformed"]
    assert out["llmbatch_agreement"].tolist()[:3] == [0.75, 0.5, 0.5]
    assert pd.isna(out["llmbatch_agreement"].iloc[3])
    assert json.loads(out["llmbatch_votes"].iloc[0]) == {"": {"Kitchen": 3, "Garden": 1}}
    assert "llmbatch_votes" not in job.collect(frame)
    again = frame.llmbatch.submit("{{ title }}", "m", **options)
    assert (again.id, len(server.batches)) == (job.id, 1)
    path = store.parent / "out.parquet"
    out.to_parquet(path)
    assert pd.read_parquet(path)["llmbatch_agreement"].dtype == "Float64"


def test_fields_are_voted_on_one_by_one(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """With several fields each has its own majority; the agreement is the least of them."""
    frame = pd.DataFrame({"title": ["mug"]})
    said = [{"color": "red", "size": 1}, {"color": "red", "size": 2}, {"color": "blue", "size": 2}]
    texts = [json.dumps(each) for each in said]
    answers(server, {"mug": Reply(content=texts[0], others=tuple(texts[1:]))})
    job = frame.llmbatch.submit(
        "{{ title }}", "m", response_model={"color": str, "size": int}, samples=3,
        provider=provider, store=store,
    )  # fmt: skip
    row = job.wait(poll_seconds=0.01).collect(frame).iloc[0]

    assert (row["color"], row["size"]) == ("red", 2)
    assert row["llmbatch_agreement"] == pytest.approx(2 / 3)


def test_the_prompt_is_counted_and_priced_once(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """`n` answers cost their own tokens and one prompt: in the estimate's bound and in the bill."""
    frame = pd.DataFrame({"title": ["mug"]})
    options: dict[str, Any] = {
        "labels": LABELS, "store": store, "params": {"max_tokens": 10},
        "prices": {"input": 1.0, "output": 10.0},
    }  # fmt: skip
    one = frame.llmbatch.estimate(ASK, "m", **options)
    five = frame.llmbatch.estimate(ASK, "m", samples=5, **options)

    assert five.prompt_tokens == one.prompt_tokens
    assert (one.max_completion_tokens, five.max_completion_tokens) == (10, 50)
    server.answer = lambda _, __: says("Kitchen")
    single = frame.llmbatch.submit(ASK, "m", provider=provider, **options).wait(poll_seconds=0.01)
    several = frame.llmbatch.submit(ASK, "m", samples=5, provider=provider, **options)
    several.wait(poll_seconds=0.01)
    assert several.usage().prompt_tokens == single.usage().prompt_tokens
    assert several.usage().completion_tokens == 5 * single.usage().completion_tokens
    usd = several.usage().usd or 0
    tokens = several.usage()
    assert usd == pytest.approx((tokens.prompt_tokens + 10 * tokens.completion_tokens) / 2e6)


def test_live_calls_take_samples(server: BatchServer, store: Path) -> None:
    """`provider="live"` sends `n`, and reads the choices as batches' are read."""
    frame = pd.DataFrame({"title": ["mug"]})
    answers(server, {"mug": says("Garden", "Kitchen", "Kitchen")})
    client = openai.OpenAI(api_key="sk-test", base_url=server.base_url)
    job = frame.llmbatch.submit(
        "{{ title }}", "m", labels=LABELS, samples=3, provider="live", client=client, store=store
    )

    row = job.collect(frame).iloc[0]
    assert (row["llmbatch"], row["llmbatch_agreement"]) == ("Kitchen", pytest.approx(2 / 3))


@pytest.mark.slow
@pytest.mark.xdist_group("model")
@pytest.mark.usefixtures("one_core")
def test_the_embedded_model_gives_several_answers(store: Path) -> None:
    """`provider="local"` draws with seeds of its own, the same each time; one prompt counts."""
    frame = pd.DataFrame({"title": ["Red mug"]})
    options: dict[str, Any] = {"provider": "local", "labels": ["Kitchen", "Garden"]}
    one = frame.llmbatch.submit(ASK, "smollm2-135m", store=store, **options)
    job = frame.llmbatch.submit(ASK, "smollm2-135m", samples=3, store=store, **options)
    out = job.collect(frame, usage=True)
    votes = [json.loads(cell)[""] for cell in out["llmbatch_votes"]]

    assert [sum(each.values()) for each in votes] == [3]
    assert out["llmbatch_agreement"].tolist() == [max(each.values()) / 3 for each in votes]
    assert job.usage().prompt_tokens == one.usage().prompt_tokens
    again = frame.llmbatch.submit(
        ASK, "smollm2-135m", samples=3, store=store.parent / "other", **options
    )
    pd.testing.assert_series_equal(
        again.collect(frame, usage=True)["llmbatch_votes"], out["llmbatch_votes"]
    )


def test_order_changes_no_clear_majority() -> None:
    """A property: whatever order answers come in, a value that most gave is the value."""
    chance = random.Random(5)
    for _ in range(200):
        most = chance.choice("abc")
        cells = [most] * 4 + chance.choices("abc", k=3)
        chance.shuffle(cells)
        results = [Result("row-1", RowStatus.OK, (cell,)) for cell in cells]
        made = by_majority(results, (Field("", "category", ("a", "b", "c")),), 7)

        assert made.values == (most,)
        assert made.agreement == cells.count(most) / 7


def test_samples_are_no_part_of_older_ids(store: Path) -> None:
    """Promise 14: a job of one answer has the id it had; with samples it is another job."""
    frame = pd.DataFrame({"title": ["mug"]})
    options: dict[str, Any] = {"provider": "file", "labels": LABELS, "store": store}
    one = frame.llmbatch.submit(ASK, "m", **options)
    five = frame.llmbatch.submit(ASK, "m", samples=5, **options)

    assert "samples" not in json.loads(one.spec.identity_json())["output"]
    assert "n" not in one.spec.params
    assert one.id != five.id
    assert JobSpec.from_json(five.spec.to_json()).output.samples == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples=0 is not a number of answers"),
        ({"samples": True}, "samples=True is not a number"),
        ({"samples": 2.0}, "samples=2.0 is not a number"),
        ({"samples": 3, "labels": None}, "no two free texts are the same"),
        ({"samples": 3, "labels": None, "parser": json.loads}, "no two free texts are the same"),
        ({"samples": 3, "endpoint": "/v1/responses"}, "has no n"),
        ({"samples": 3, "params": {"n": 3}}, "several answers a row"),
    ],
)
def test_samples_that_cannot_be_counted_are_refused(
    store: Path, options: dict[str, Any], said: str
) -> None:
    """Promise 9: what has no `n`, or no majority, is refused before anything is written."""
    frame = pd.DataFrame({"title": ["mug"]})
    settings = {"labels": LABELS, "provider": "file", "store": store, **options}
    with pytest.raises(ParameterError) as caught:
        frame.llmbatch.submit(ASK, "m", **settings)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "variable"),
    [("groq", "GROQ_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY"), ("gemini", "GEMINI_API_KEY")],
)
def test_servers_without_n_refuse_samples(
    provider: str, variable: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that gives one answer a request is not asked for five."""
    monkeypatch.setenv(variable, "test")
    frame = pd.DataFrame({"title": ["mug"]})
    assert connect(provider, None, "m").name == provider
    with pytest.raises(ParameterError, match=f"The provider '{provider}' has no n"):
        frame.llmbatch.submit(
            ASK, "m", labels=LABELS, samples=5, provider=provider, store=store,
            params={"max_tokens": 9},
        )  # fmt: skip


def test_samples_at_temperature_0_are_warned_of(store: Path) -> None:
    """Five times the same question with the same answer is agreement with itself."""
    frame = pd.DataFrame({"title": ["mug"]})
    with pytest.warns(FrameEnrichWarning, match="samples=5 at temperature 0"):
        frame.llmbatch.submit(
            ASK, "m", labels=LABELS, samples=5, provider="file", store=store,
            params={"temperature": 0},
        )  # fmt: skip

"""Prefix caching: marks at each provider's edge, no part of ids, and bills reckoned by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audit import check_rows, shelf
from batch_server import BatchServer
from mistralai.client import Mistral
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import ParameterError
from frameenrich.jsonl import encode
from frameenrich.lifecycle.approve import TokenDemand
from frameenrich.model import JobSpec, Limits, Message
from frameenrich.prepare.options import make_plan
from frameenrich.prepare.submit_options import Options
from frameenrich.pricing.prices import find_rates
from frameenrich.providers.anthropic.translate import message_params, response_line
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.rendering.body import request_body
from frameenrich.rendering.caching import unmarked, with_marks
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.any_pandas
SYSTEM = "Sort by the codebook. " * 20
ASK = "Which department sells {{ title }}?"


def bodies(job: Job) -> Iterator[dict[str, Any]]:
    """The bodies that went out."""
    for path in job.requests:
        for line in Path(path).read_bytes().splitlines():
            yield json.loads(line)["body"]


def submit(provider: Any, store: Path, model: str = "gpt-5.4-mini", **options: Any) -> Job:
    """Submit three rows with a system message."""
    made: Job = shelf(3).llmbatch.submit(
        ASK, model, **{"system": SYSTEM, "provider": provider, "store": store, **options}
    )
    return made


# --- what goes out -------------------------------------------------------------------------------


def test_nothing_is_added_where_it_is_not_known_to_be_taken(
    provider: OpenAIBatch, store: Path
) -> None:
    """A server that only speaks OpenAI's API may refuse an unknown parameter."""
    assert not any("prompt_cache_key" in body for body in bodies(submit(provider, store)))


def test_by_default_a_key_where_it_is_known_to_be_taken(store: Path) -> None:
    """Mistral takes one: the same for all rows, and for another job that begins alike."""
    with BatchServer(dialect="mistral") as server:
        mistral = MistralBatch(Mistral(api_key="k", server_url=server.origin), wait_seconds=0.01)
        first = submit(mistral, store, "mistral-small-latest")
        second = shelf(2, first=9).llmbatch.submit(
            ASK, "mistral-small-latest", system=SYSTEM, provider=mistral, store=store
        )
        keys = {body.get("prompt_cache_key") for job in (first, second) for body in bodies(job)}
        uploaded = [json.loads(line) for f in server.files for line in lines_of(server, f)]

    assert len(keys) == 1
    assert str(keys.pop()).startswith("frameenrich-")
    assert all("prompt_cache_key" in line["body"] for line in uploaded if "body" in line)


def lines_of(server: BatchServer, file_id: str) -> list[bytes]:
    """An uploaded file's lines."""
    is_input = server.files[file_id]["purpose"] == "batch"
    return server.content(file_id).splitlines() if is_input else []


@pytest.mark.parametrize("model", ["gpt-5.6-luna", "gpt-6-sol"])
def test_openai_from_5_6_gets_one_explicit_breakpoint(
    provider: OpenAIBatch, store: Path, model: str
) -> None:
    """The system message is one marked block; nothing else may be written to the cache."""
    (body, *_) = bodies(submit(provider, store, model, cache=True))

    assert body["prompt_cache_options"] == {"mode": "explicit"}
    assert body["prompt_cache_key"].startswith("frameenrich-")
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": SYSTEM, "prompt_cache_breakpoint": {"mode": "explicit"}}
    ]
    assert body["messages"][1]["content"] == "Which department sells thing 0?"


def test_an_older_model_gets_a_key_alone(provider: OpenAIBatch, store: Path) -> None:
    """It caches by itself, and knows no breakpoint."""
    (body, *_) = bodies(submit(provider, store, cache=True))

    assert body["prompt_cache_key"].startswith("frameenrich-")
    assert "prompt_cache_options" not in body
    assert body["messages"][0]["content"] == SYSTEM


def test_the_responses_api_has_its_own_word_for_a_part(provider: OpenAIBatch, store: Path) -> None:
    """There a part of the input is an input_text."""
    job = submit(provider, store, "gpt-5.6-sol", cache=True, endpoint="/v1/responses")

    assert next(bodies(job))["input"][0]["content"][0]["type"] == "input_text"


def test_anthropic_gets_the_system_message_as_one_block_for_an_hour() -> None:
    """The joined text of before cannot be marked; words on a schema come behind the block."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = {
        "model": "claude-haiku-4-5",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Sort.", **mark}]},
            {"role": "user", "content": "A mug"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": False, "schema": {"type": "object"}},
        },
    }

    system = message_params(body)["system"]

    assert system[0] == {"type": "text", "text": "Sort.", **mark}
    assert [block.keys() for block in system[1:]] == [{"type", "text"}]


def test_a_users_own_key_wins(provider: OpenAIBatch, store: Path) -> None:
    """What is in params= is sent as it was written."""
    job = submit(provider, store, cache=True, params={"prompt_cache_key": "mine"})

    assert {body["prompt_cache_key"] for body in bodies(job)} == {"mine"}


def test_caching_is_no_part_of_a_job(provider: OpenAIBatch, store: Path) -> None:
    """Promises 3 and 14: neither the id nor any hash has it, so no answer is paid again."""
    job = submit(provider, store, "gpt-5.6-luna").wait(poll_seconds=0.01)

    assert submit(provider, store, "gpt-5.6-luna", cache=True).id == job.id
    assert submit(provider, store, "gpt-5.6-luna", cache=True, name="other").reused == 3


def test_images_do_not_make_caching_a_part_of_a_job(provider: OpenAIBatch, store: Path) -> None:
    """Their rows are hashed one by one, by the body without marks."""
    frame = shelf(2).assign(photo="https://example.org/a.png")
    ask = {"system": SYSTEM, "image": "photo", "provider": provider, "store": store}

    plain = frame.llmbatch.submit(ASK, "gpt-5.6-luna", **ask)
    marked = frame.llmbatch.submit(ASK, "gpt-5.6-luna", cache=True, **ask)

    assert plain.id == marked.id


def test_marked_requests_are_those_that_were_written(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A later session checks each request by its hash before it is sent, in later rounds too."""
    server.faults.add("empty", where=lambda custom_id, _: custom_id.startswith("row-T-00"))
    full = server.faults.add(
        "rate_limited", where="POST /v1/batches", retry_after=0, times="always"
    )
    provider.limits = Limits(queue_wait_seconds=0.01)
    job = submit(provider, store, "gpt-5.6-luna", cache=True)
    server.faults.clear(full.name)
    again = frameenrich.open_job(job.id, store, provider=provider).wait(poll_seconds=0.01)
    server.faults.add("rate_limited", where="POST /v1/batches", retry_after=0, times=4)
    again.regenerate()

    last = frameenrich.open_job(job.id, store, provider=provider).wait(poll_seconds=0.01)

    check_rows(last.collect(shelf(3)), shelf(3))
    assert sum("prompt_cache_options" in body for body in bodies(last)) == 4


def test_a_second_opinion_is_asked_without_the_first_ones_marks(
    provider: OpenAIBatch, store: Path
) -> None:
    """Its system message is a text again, to which words may be added."""
    job = submit(provider, store, "gpt-5.6-luna", cache=True, labels=["Toys", "Garden"])
    second = job.wait(poll_seconds=0.01).second_opinion("gpt-4o-mini", provider=provider)

    for body in bodies(second):
        assert SYSTEM.strip() in body["messages"][0]["content"]


def test_another_provider_is_not_sent_the_first_ones_marks(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A round that goes elsewhere leaves them behind."""
    server.faults.add("empty", where=["row-T-00"])
    job = submit(provider, store, "gpt-5.6-luna", cache=True).wait(poll_seconds=0.01)
    with BatchServer(dialect="mistral") as other:
        mistral = MistralBatch(Mistral(api_key="k", server_url=other.origin), wait_seconds=0.01)
        job.regenerate(provider=mistral, model="mistral-small-latest")
        *_, last = bodies(job)

    assert last["messages"][0] == {"role": "system", "content": SYSTEM}
    assert not [name for name in last if name.startswith("prompt_cache")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cache": "always"}, "cache='always' is not known"),
        ({"cache": True, "system": None}, "there is no system message"),
        ({"cache": True, "system": "Be kind to {{ title }}."}, "it uses columns"),
        ({"cache": True, "provider": "file"}, "'file' takes no cache="),
        ({"cache": True, "endpoint": "/v1/completions", "system": None}, "this is /v1/completions"),
    ],
)
def test_what_cannot_be_cached_is_said(
    provider: OpenAIBatch, store: Path, options: dict[str, Any], says: str
) -> None:
    """Before anything is sent, with what to do."""
    with pytest.raises(ParameterError, match=says):
        submit(options.pop("provider", provider), store, **options)


# --- the seed ------------------------------------------------------------------------------------


def test_a_seed_goes_ahead_and_the_rest_follows(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A batch of one; when it has ended, and not before, all others."""
    provider.limits = Limits(max_requests=4)
    frame = shelf(6)
    server.hold("in_progress")
    job = frame.llmbatch.submit(
        "Which department sells {{ title }}?",
        "gpt-5.6-luna",
        system=SYSTEM,
        provider=provider,
        store=store,
        cache="seed",
    )
    job.status()
    frame.llmbatch.collect(job)

    assert [b["request_counts"]["total"] for b in server.batches.values()] == [1]
    server.release()
    out = frame.llmbatch.collect(job, wait=True, poll_seconds=0.01)

    assert sorted(b["request_counts"]["total"] for b in server.batches.values()) == [1, 1, 4]
    assert out["llmbatch_status"].eq("ok").all()
    assert max(server.executed.values()) == 1


def test_a_seed_that_fails_holds_nobody_up(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Its end lets the others go, whatever the end was."""
    server.faults.add("expired_silently", ran=0.0)
    job = submit(provider, store, cache="seed").wait(poll_seconds=0.01)

    assert job.collect(shelf(3))["llmbatch_status"].tolist() == ["expired", "ok", "ok"]
    check_rows(job.regenerate().wait(poll_seconds=0.01).collect(shelf(3)), shelf(3))


def test_answers_that_the_store_has_need_no_second_seed(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The reused shard is no batch; of what is left the first goes ahead."""
    submit(provider, store).wait(poll_seconds=0.01)
    job = shelf(6).llmbatch.submit(
        ASK, "gpt-5.4-mini", system=SYSTEM, provider=provider, store=store, cache="seed"
    )

    assert job.reused == 3
    check_rows(job.wait(poll_seconds=0.01).collect(shelf(6)), shelf(6))
    assert sorted(b["request_counts"]["total"] for b in server.batches.values()) == [1, 2, 3]


def test_from_the_command_line(
    server: BatchServer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--cache on, --cache seed; another word is told with the flag."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    shelf(2).to_csv(tmp_path / "in.csv")
    words = ["submit", str(tmp_path / "in.csv"), "-m", "gpt-5.6-luna", "-t", ASK, "--key", "sku",
             "--system", SYSTEM, "--store", str(store)]  # fmt: skip

    done = CliRunner().invoke(app, [*words, "--cache", "on"])
    wrong = CliRunner().invoke(app, [*words, "--cache", "yes"])

    assert done.exit_code == 0, done.output
    job = frameenrich.open_job(done.stdout.strip(), store)
    assert next(bodies(job))["prompt_cache_options"] == {"mode": "explicit"}
    assert wrong.exit_code == 2
    assert "--cache yes is not known" in wrong.stderr


# --- bills ---------------------------------------------------------------------------------------

ROWS, PREFIX, OWN, ANSWER = 100_000, 2_000, 100, 10

BILLS = {
    # Worked by hand, USD for 100,000 rows of 2,000 + 100 tokens and 10 of answer, in batches:
    # 210 M x input + 1 M x output; 200 M x cached + 10 M x input + 1 M x output; the same with
    # 200 M x write, where no row finds what another wrote.
    ("openai", "gpt-5.6-luna"): (21.60, 3.60, 26.60),
    ("openai", "gpt-5.4-mini"): (81.00, 13.50, 81.00),
    ("anthropic", "claude-haiku-4-5"): (107.50, 17.50, 207.50),
    ("mistral", "mistral-small-latest"): (16.05, 2.55, 16.05),
    ("gemini", "gemini-2.5-flash"): (32.75, 8.75, 32.75),
}


@pytest.mark.parametrize(("provider_name", "model"), BILLS)
def test_the_bill_of_100_000_rows_with_a_codebook(provider_name: str, model: str) -> None:
    """docs/providers.md has the same figures."""
    plain, cached, none_found = BILLS[provider_name, model]
    rates = find_rates(model, {}, provider_name)
    assert rates is not None
    price, all_tokens = rates.batch, ROWS * (PREFIX + OWN)
    written = 0 if none_found == plain else ROWS * PREFIX
    hour = written if provider_name == "anthropic" else 0
    demand = TokenDemand(ROWS, all_tokens, prefix_tokens=ROWS * PREFIX,
                         written_tokens=written, written_1h_tokens=hour)  # fmt: skip

    assert price.usd(all_tokens, ROWS * ANSWER) == pytest.approx(plain)
    assert price.usd(all_tokens, ROWS * ANSWER, ROWS * PREFIX) == pytest.approx(cached)
    assert demand.most(price, ROWS * ANSWER) == pytest.approx(none_found)
    assert demand.least(price, ROWS * ANSWER) == pytest.approx(cached, abs=0.01)
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    assert f"| `{model}` | ${plain:.2f} | ${cached:.2f} | ${none_found:.2f} |" in page


def test_an_anthropic_bill_by_what_the_response_says(store: Path) -> None:
    """30 tokens afresh, 200 written for an hour, 1,000 read, 10 of answer, of claude-haiku-4-5.

    In a batch: 30 x 0.5 + 200 x 1.0 + 1,000 x 0.05 + 10 x 2.5 = 290 USD a million rows.
    """
    job = pd.DataFrame({"t": ["a"]}).llmbatch.submit(
        "{{ t }}", "claude-haiku-4-5", provider="file", store=store
    )
    message = {
        "model": "claude-haiku-4-5", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Toys"}],
        "usage": {"input_tokens": 30, "cache_creation_input_tokens": 200,
                  "cache_read_input_tokens": 1000, "output_tokens": 10,
                  "cache_creation": {"ephemeral_1h_input_tokens": 200}},
    }  # fmt: skip
    own_id = json.loads(Path(job.requests[0]).read_bytes())["custom_id"]
    result = {"custom_id": own_id, "result": {"type": "succeeded", "message": message}}
    lines = store / "out.jsonl"
    lines.write_bytes(response_line(json.dumps(result).encode(), lambda own: own) + b"\n")
    job.import_responses(lines)
    prices = {"input": 1.0, "output": 5.0, "cached_input": 0.1, "cache_write": 2.0}

    used = job.usage(prices=prices)

    assert (used.prompt_tokens, used.cached_tokens, used.cache_write_tokens) == (1230, 1000, 200)
    assert used.usd == pytest.approx(290 / 1e6)
    assert "200 written" in str(used)
    assert job.collect(usage=True)["llmbatch_status"].tolist() == ["ok"]


def test_an_estimate_says_both_ends(provider: OpenAIBatch, store: Path) -> None:
    """Dearer where nothing is found, cheaper where all is; a short prefix is told."""
    frame, ask = shelf(3), {"provider": provider, "store": store, "params": {"max_tokens": 10}}
    plain = frame.llmbatch.estimate(ASK, "gpt-5.6-luna", system=SYSTEM * 20, **ask)
    both = frame.llmbatch.estimate(ASK, "gpt-5.6-luna", system=SYSTEM * 20, cache=True, **ask)
    short = frame.llmbatch.estimate(ASK, "gpt-5.6-luna", system="Sort.", cache=True, **ask)

    assert plain.cached_usd is None
    assert both.cached_usd is not None
    assert both.cached_usd < both.batch_usd <= plain.batch_usd
    assert "system message cached" in str(both)
    assert any("providers cache from 1,024" in note for note in short.notes)


@pytest.mark.parametrize("cached_by", ["", "breakpoint", "cache_control"])
def test_the_hash_of_an_earlier_version_is_found_in_a_marked_request(cached_by: Any) -> None:
    """Promise 14: taken off again, a body is what it was, byte for byte."""
    messages = (Message("system", "Sort: é\u2028."), Message("user", "{{ t }}"))
    spec = JobSpec("a", "m", messages, params={"temperature": 0.1}, cached_by=cached_by,
                   cache_key="frameenrich-1")  # fmt: skip
    plain = request_body(spec, ["Sort: é\u2028.", "half \ud83d"])

    sent = encode(with_marks(spec, plain))

    assert sent != encode(plain)
    assert unmarked(spec, sent) == encode(plain)


def test_a_plan_keeps_what_was_asked_beside_what_it_came_to() -> None:
    """Promise 14: ids are of neither."""
    plan = make_plan(ASK, "m", Options(system=SYSTEM, cache="seed"))

    assert plan.spec.cache == "seed"
    assert "cache" not in json.loads(plan.spec.identity_json())

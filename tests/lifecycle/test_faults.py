"""Every fault of tests/README.md, on demand, through ``df.llmbatch`` and a real server.

Each test ends with the same audit (`audit.py`): rows in = rows out, exact statuses, the right
answer in the right row, nothing executed twice, and how many batches were made.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import audit
import openai
import pandas as pd
import pytest
from audit import check_paid, check_rows, finish, reach, said, shelf, unrun
from batch_server import BatchServer
from batch_server.life import batch_error, parse_line, split_lines
from batch_server.rows import SEPARATORS

from frameenrich.errors import FrameEnrichWarning, ProviderError, WaitTimeoutError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch

TESTS = Path(__file__).parent.parent


@pytest.fixture
def frame() -> pd.DataFrame:
    """Twelve rows."""
    return shelf()


@pytest.fixture
def provider(client: openai.OpenAI) -> OpenAIBatch:
    """The provider with short waits, for full queues too."""
    made = OpenAIBatch(client, attempts=4, wait_seconds=0.01)
    made.limits = Limits(queue_wait_seconds=0.05)
    return made


@pytest.fixture
def halves(provider: OpenAIBatch) -> OpenAIBatch:
    """The same, with two shards to twelve rows."""
    provider.limits = Limits(max_requests=6, queue_wait_seconds=0.05)
    return provider


submit = partial(audit.submit, confirm_seconds=0.05)


# --- what really comes back: the thirteen of tests/README.md --------------------------------------


@pytest.mark.parametrize("status", [400, 500])
def test_1_all_lines_failed(
    status: int, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """`completed`, no output file, all in the error file: every row says why, none is lost."""
    server.faults.add("all_lines_failed", status=status)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, dict.fromkeys(frame.index, "failed"))
    check_paid(server, batches=1)
    assert out["llmbatch_error"].str.startswith(f"HTTP {status}: ").all()


@pytest.mark.parametrize("fault", ["error_file_id_empty_string", "empty_error_file"])
def test_2_no_error_file_worth_the_name(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """`error_file_id` is ``""`` or names an empty file: the answers are there all the same."""
    server.faults.add(fault)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


def test_2_empty_output_file(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The output file is empty: every row is ``missing``, nothing is made up."""
    server.faults.add("empty_output_file")

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, dict.fromkeys(frame.index, "missing"))
    check_paid(server, batches=1)


def test_3_http_400_among_the_answers(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """``error: null`` with status 400 in the output file is a failure of that row alone."""
    server.faults.add("http_error_in_output", where=["row-T-03"], message="Bad picture.")

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, {"T-03": "failed"})
    check_paid(server, batches=1)
    assert out["llmbatch_error"]["T-03"] == "HTTP 400: invalid_value: Bad picture."


def test_4_status_zero(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """``status_code: 0, body: {}`` is a failure, whatever the counts say."""
    server.faults.add("status_zero", where=["row-T-00", "row-T-07"])

    job = submit(frame, provider, store)
    out = finish(frame, job)

    assert job.status().completed == 12
    check_rows(out, frame, {"T-00": "failed", "T-07": "failed"})
    check_paid(server, batches=1)


@pytest.mark.parametrize(
    ("fault", "flagged"),
    [("string_body", {}), ("no_error_key", {}), ("no_response_key", {"T-05": "failed"})],
)
def test_5_odd_envelopes(
    fault: str,
    flagged: dict[str, str],
    frame: pd.DataFrame,
    provider: OpenAIBatch,
    store: Path,
    server: BatchServer,
) -> None:
    """A body that is a JSON string is read; an absent ``error`` or ``response`` breaks nothing."""
    server.faults.add(fault, where=["row-T-05"])

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, flagged)
    check_paid(server, batches=1)


@pytest.mark.parametrize("fault", ["expired", "expired_silently"])
def test_6_expired(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """What finished is merged; the rest is ``expired``, with lines or without; nobody waits on."""
    server.faults.add(fault, ran=0.25)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, unrun(frame, server, "expired"))
    check_paid(server, batches=1)
    assert out["llmbatch_status"].eq("ok").sum() == 3


def test_6_expired_before_any_row(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A batch that expires without any file at all leaves every row ``expired``."""
    server.faults.add("expired_silently", ran=0.0)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, dict.fromkeys(frame.index, "expired"))
    check_paid(server, batches=1)


@pytest.mark.parametrize("lines", [False, True])
def test_7_cancelled_by_somebody_else(
    lines: bool, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Partial output is paid for and merged; the rest is ``cancelled``, not sent again."""
    server.faults.add("cancelled", ran=0.5, lines=lines)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, unrun(frame, server, "cancelled"))
    check_paid(server, batches=1)
    assert out["llmbatch_status"].eq("ok").sum() == 6


@pytest.mark.parametrize("fault", ["null_custom_id_line", "stranger_line", "duplicate_line"])
def test_8_lines_that_nobody_needs(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A line without custom_id, one that nobody asked for, a line twice: no row is touched."""
    server.faults.add(fault)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)
    assert server.faults.fired[fault] == 1


def test_8_a_row_that_lost_its_name(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """An answer with ``custom_id: null`` belongs to nobody: its row is ``missing``."""
    server.faults.add("null_custom_id", where=["row-T-04"])

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, {"T-04": "missing"})
    check_paid(server, batches=1)


def test_8_an_error_beside_an_answer(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Of two lines for one row, an answer and an error, the answer counts."""
    server.faults.add("conflicting_line", where=["row-T-04"], as_error=True)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


def test_8_two_answers_to_one_row(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Of two answers the first stands, today and tomorrow; no other row gets the second."""
    server.faults.add("conflicting_line", where=["row-T-04"])

    job = submit(frame, provider, store)
    out = finish(frame, job)

    mine, other = out["llmbatch"].pop("T-04"), said("thing 4")
    assert mine in {other, "another answer under the same custom_id"}
    check_rows(out.drop("T-04"), frame.drop("T-04"))
    check_paid(server, batches=1)
    assert job.collect(frame)["llmbatch"]["T-04"] == mine


def test_9_raw_line_separators_inside_strings(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """U+2028, U+2029 and U+0085 cut no line in two and reach the frame."""
    server.faults.add("raw_separators")

    out = finish(frame, submit(frame, provider, store))

    assert out["llmbatch"].tolist() == [said(title) + SEPARATORS for title in frame["title"]]
    assert out["llmbatch_status"].eq("ok").all()
    check_paid(server, batches=1)


def test_10_a_line_cut_in_the_middle(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """It loses itself and nothing else; the reason says that a line could not be read."""
    server.faults.add("unparseable_line", where=["row-T-09"])

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, {"T-09": "missing"})
    check_paid(server, batches=1)
    assert "1 line(s) of its responses could not be read" in out["llmbatch_error"]["T-09"]


def test_10_a_line_that_is_not_utf8(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A bad byte in one line loses at most that line."""
    server.faults.add("not_utf8_line", where=["row-T-09"])

    out = finish(frame, submit(frame, provider, store))

    status = out["llmbatch_status"]["T-09"]
    check_rows(out, frame, {"T-09": status})
    check_paid(server, batches=1)
    assert status in {"ok", "missing"}


@pytest.mark.parametrize(
    "fault", ["truncated_download", "short_download", "download_without_length"]
)
def test_11_a_download_cut_short(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Fewer bytes than promised are fetched again and never half-merged."""
    server.faults.add(fault, times=2)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)
    assert server.count("GET", "/v1/files/*/content") == (1 if "without" in fault else 3)


@pytest.mark.parametrize("less", [1, 2, 40])
def test_11_a_download_without_a_length_cut_in_its_last_line(
    less: int, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """It ends as a whole one does, with as many lines: fetched again, but for a mere line end."""
    server.faults.add("half_written", where="GET /v1/files/*output*", less=less, times=2)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)
    assert server.count("GET", "/v1/files/*/content") == (1 if less == 1 else 2)


def test_11_a_download_that_stays_short(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Given up, it merges nothing and leaves no torn file; the next collect fetches it all."""
    server.faults.add("truncated_download", times=4)
    job = submit(frame, provider, store)

    with pytest.raises(ProviderError, match=r"did not download the file .* Nothing is lost"):
        finish(frame, job)

    assert not list(Path(job.path).rglob("*responses*"))
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("fault", ["html_502", "not_json"])
def test_12_nonsense_while_polling(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A 502 page and a 200 that is no JSON are looked past; the batch goes on."""
    server.faults.add(fault, times=3)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("fault", ["html_502", "not_json"])
def test_12_nonsense_for_good(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """When it does not end, one plain sentence without HTML; the same call goes on later."""
    server.faults.add(fault, times="always")
    job = submit(frame, provider, store)

    with pytest.raises(ProviderError, match="Nothing is lost: call again later") as caught:
        finish(frame, job)

    assert "<" not in str(caught.value)
    server.faults.clear()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_13_a_batch_that_never_ends(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A deadline, a handle and rows that are ``pending``; once it moves, all is there."""
    server.faults.add("stuck")
    job = submit(frame, provider, store)
    reach("in_progress", job)

    with pytest.raises(WaitTimeoutError, match=f"{job.id} was still in_progress"):
        job.wait(timeout=0.05, poll_seconds=0.01)

    check_rows(job.collect(frame), frame, dict.fromkeys(frame.index, "pending"))
    assert str(job.status()).startswith(f"{job.id}: in_progress for 0 h 00 min; 0 of 12")
    server.release()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


# --- the client and the service ------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["accepted_then_500", "accepted_then_closed"])
def test_create_accepted_but_the_answer_is_lost(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The batch that was made is found by its tag, not made again."""
    server.faults.add(fault)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)
    assert server.count("GET", "/v1/batches") == 1


@pytest.mark.parametrize("fault", ["accepted_then_500", "accepted_then_closed"])
def test_create_accepted_but_every_answer_is_lost(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Even when looking for it fails too: a later submit finds the batch, and pays nothing."""
    server.faults.add(fault)
    server.faults.add("http_503", where="GET /v1/batches", times=3)

    with pytest.raises(ProviderError, match="did not create the batch"):
        submit(frame, provider, store)
    check_paid(server, batches=1)

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("fault", ["accepted_then_500", "accepted_then_closed"])
def test_upload_accepted_but_the_answer_is_lost(
    fault: str, frame: pd.DataFrame, halves: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The uploaded file is found by its name: one file a shard, no orphan."""
    server.faults.add(fault, where="POST /v1/files")

    out = finish(frame, submit(frame, halves, store))

    check_rows(out, frame)
    check_paid(server, batches=2, inputs=2)


@pytest.mark.parametrize(
    "where", ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/*"], ids=str
)
def test_429_with_retry_after(
    where: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Asked to wait, we wait as long as asked, then go on."""
    server.faults.add("rate_limited", where=where, retry_after=0.2)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)
    waits = [late.at - soon.at for soon, late in pairwise(server.requests) if soon.status == 429]
    assert len(waits) == 1
    assert waits[0] >= 0.19


@pytest.mark.parametrize(
    "where",
    ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/*", "GET /v1/files/*"],
    ids=str,
)
@pytest.mark.parametrize("fault", ["http_500", "http_503", "closed_before"])
def test_refused_before_accepting(
    fault: str,
    where: str,
    frame: pd.DataFrame,
    provider: OpenAIBatch,
    store: Path,
    server: BatchServer,
) -> None:
    """A 5xx or a closed connection on any route is tried again, and makes nothing twice."""
    server.faults.add(fault, where=where, times=2)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


def test_the_server_is_down(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Nobody listens: a sentence, rows on disk, and the same submit later sends them once."""
    server.stop()
    where = rf" at http://127\.0\.0\.1:{server.port}\. Nothing is lost: call again later"
    with pytest.raises(ProviderError, match=where):
        submit(frame, provider, store)

    server.start()
    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


def test_waiting_in_another_session_where_nobody_listens(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The address is named, and no time that nobody set is said to be up."""
    server.hold("in_progress")
    job = submit(frame, provider, store)
    server.stop()
    elsewhere = openai.OpenAI(api_key="k", base_url=server.base_url)

    with pytest.raises(ProviderError, match=rf" at http://127\.0\.0\.1:{server.port}\. Nothing"):
        frame.llmbatch.collect(job.id, wait=True, client=elsewhere, store=store)

    server.start()
    server.release()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_cannot_find_file_just_after_upload(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The file that was just uploaded is not found yet: asked again, not uploaded again."""
    server.faults.add("cannot_find_file", times=2)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1, inputs=1)


def test_cannot_find_file_for_good(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A file that went away is uploaded anew by the next call; still one batch."""
    server.faults.add("cannot_find_file", times=4)
    with pytest.raises(ProviderError, match="Cannot find file"):
        submit(frame, provider, store)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1, inputs=2)


def test_create_succeeds_and_fails_after_validating(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A batch that fails as a whole says why in every row, and is not sent again unasked."""
    server.faults.add("fails_after_validating", message="Something is off.")

    job = submit(frame, provider, store)
    out = finish(frame, job)

    check_rows(out, frame, dict.fromkeys(frame.index, "failed"))
    check_paid(server, batches=1)
    assert out["llmbatch_error"].str.contains("invalid_request: Something is off.").all()

    job.regenerate()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=2)


def test_the_queue_of_tokens_is_full(
    frame: pd.DataFrame, halves: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """``token_limit_exceeded``: the shard waits, goes again when another ends, as the same file."""
    server.max_enqueued_tokens = 400  # room for one shard

    job = submit(frame, halves, store)
    out = finish(frame, job)

    check_rows(out, frame)
    check_paid(server, batches=len(server.batches), inputs=2)
    batches = list(server.batches.values())
    refused = [batch for batch in batches if batch["true_status"] == "failed"]
    assert [batch["errors"]["data"][0]["code"] for batch in refused] == (
        ["token_limit_exceeded"] * (len(batches) - 2)
    )
    assert 1 <= len(refused) <= 2


def test_a_full_queue_is_not_hammered(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Between two tries of a full queue lies `queue_wait_seconds`; until then rows are pending."""
    provider.limits = Limits(queue_wait_seconds=2.0)  # longer than a busy machine's six collects
    server.faults.add("token_limit_exceeded")
    job = submit(frame, provider, store)

    while not server.batches[next(iter(server.batches))]["errors"]:
        early = job.collect(frame)
    for _ in range(5):
        early = job.collect(frame)

    check_rows(early, frame, dict.fromkeys(frame.index, "pending"))
    check_paid(server, batches=1)
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=2, inputs=1)


def test_429_at_create_waits_while_another_shard_runs(
    frame: pd.DataFrame, halves: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A refused create is kept for later; the shard that runs is collected meanwhile."""
    second = iter([False, *[True] * 8])
    server.faults.add(
        "rate_limited",
        times=6,
        retry_after=0,
        where=lambda request: (
            (request.method, request.path) == ("POST", "/v1/batches") and next(second)
        ),
    )

    job = submit(frame, halves, store)
    assert len(server.batches) == 1
    while server.batches[next(iter(server.batches))]["true_status"] != "completed":
        out = job.collect(frame)

    assert out["llmbatch_status"].iloc[:6].isin(["ok", "pending"]).all()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=2)


class PickyServer(BatchServer):
    """Refuses every line that holds the word ``poison``, as validation does: the whole batch."""

    def _validate(self, batch: Any) -> None:
        bad = [
            batch_error("invalid_request", f"Poison in {parse_line(line)['custom_id']}.", number)
            for number, line in enumerate(split_lines(batch.source), 1)
            if b"poison" in line
        ]
        if bad:
            self._fail(batch, bad if self.list_all_errors else bad[:1])
        else:
            super()._validate(batch)


@pytest.fixture
def picky() -> Iterator[tuple[PickyServer, OpenAIBatch]]:
    """A picky server and a provider for it."""
    with (
        PickyServer() as server,
        openai.OpenAI(api_key="sk-test", base_url=server.base_url) as client,
    ):
        yield server, OpenAIBatch(client, attempts=4, wait_seconds=0.01)


@pytest.mark.parametrize("poisoned", [["T-00"], ["T-03", "T-04", "T-11"]], ids=len)
def test_validation_names_lines(
    poisoned: list[str],
    frame: pd.DataFrame,
    picky: tuple[PickyServer, OpenAIBatch],
    store: Path,
) -> None:
    """The rows that validation named are ``failed`` with its words; the others are sent once."""
    server, provider = picky
    frame.loc[poisoned, "title"] = [f"poison {key}" for key in poisoned]

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, dict.fromkeys(poisoned, "failed"))
    check_paid(server, batches=2)
    for key in poisoned:
        assert out["llmbatch_error"][key].startswith(f"invalid_request: Poison in row-{key}-")
        assert f"row-{key}" not in server.executed

    out.llmbatch.collect(wait=True, max_rounds=2, store=store, client=provider._client)
    check_paid(server, batches=2)  # asked again as they are, they would be refused again


@pytest.mark.parametrize("count", [1, 3])
def test_validation_names_only_the_first_line(
    count: int, frame: pd.DataFrame, picky: tuple[PickyServer, OpenAIBatch], store: Path
) -> None:
    """Where only the first bad line is named, they are found one by one; nothing ran meanwhile."""
    server, provider = picky
    server.list_all_errors = False
    poisoned = ["T-02", "T-05", "T-10"][:count]
    frame.loc[poisoned, "title"] = [f"poison {key}" for key in poisoned]

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, dict.fromkeys(poisoned, "failed"))
    check_paid(server, batches=count + 1)
    for key in poisoned:
        assert out["llmbatch_error"][key].startswith(f"invalid_request: Poison in row-{key}-")


def test_validation_names_every_line(
    frame: pd.DataFrame, picky: tuple[PickyServer, OpenAIBatch], store: Path
) -> None:
    """All lines bad: every row has its own reason, and nothing is sent again."""
    server, provider = picky
    frame["title"] = "poison " + frame["title"]

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, dict.fromkeys(frame.index, "failed"))
    check_paid(server, batches=1)


def test_401(frame: pd.DataFrame, store: Path, server: BatchServer, provider: OpenAIBatch) -> None:
    """A wrong key is one sentence without the key, after one try; with the right one it goes on."""
    server.require_key = "sk-test"
    with (
        openai.OpenAI(api_key="sk-wrong-key-1234", base_url=server.base_url) as other,
        pytest.raises(ProviderError, match=r"HTTP 401.*Check the API key") as caught,
    ):
        submit(frame, OpenAIBatch(other, wait_seconds=0.01), store)

    assert "sk-wrong" not in str(caught.value)
    assert len(server.requests) == 1
    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


def test_404_under_another_projects_key(
    frame: pd.DataFrame, store: Path, provider: OpenAIBatch, server: BatchServer
) -> None:
    """Says that the batch may be another project's; never resends; the right key finds it."""
    server.per_key_projects = True
    job = submit(frame, provider, store)
    with openai.OpenAI(api_key="sk-other", base_url=server.base_url) as other:
        for _ in range(2):
            with pytest.raises(ProviderError, match=r"HTTP 404.*another project.*nothing is sent"):
                frame.llmbatch.collect(client=other, store=store, wait=True)
        with pytest.raises(ProviderError, match="HTTP 404"):
            frame.llmbatch.status(client=other, store=store)

    check_paid(server, batches=1)
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("status", [400, 413, 429])
def test_file_quota_exceeded(
    status: int, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A full file store is told at once, in the provider's words; cleaned up, the job goes on."""
    server.faults.add("file_quota_exceeded", status=status)

    with pytest.raises(ProviderError, match="exceeded your file storage quota"):
        submit(frame, provider, store)
    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing"])
def test_an_unknown_status_word(
    status: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A word that nobody knows is "not finished yet", never a crash."""
    server.faults.add("unknown_status", status=status, word="SCHEDULING_2")

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("fault", ["null_counts", "null_request_counts"])
def test_counts_that_are_null(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Counts are for progress bars: without them everything still works."""
    server.faults.add(fault)

    job = submit(frame, provider, store)
    out = finish(frame, job)

    check_rows(out, frame)
    check_paid(server, batches=1)
    assert str(job.status()).endswith("of 12 requests done")


def test_errors_that_are_null(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A failed batch whose errors are all null still gives each row a reason."""
    server.faults.add("null_errors")
    server.faults.add("fails_after_validating")

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame, dict.fromkeys(frame.index, "failed"))
    check_paid(server, batches=1)
    assert out["llmbatch_error"].str.startswith("the provider refused the whole batch").all()


def test_slow_answers(frame: pd.DataFrame, store: Path, server: BatchServer) -> None:
    """The client's timeout strikes after the work was done: found, not made again."""
    with openai.OpenAI(api_key="sk-test", base_url=server.base_url, timeout=0.25) as client:
        # Many attempts: on a busy machine other answers may be late, too.
        provider = OpenAIBatch(client, attempts=20, wait_seconds=0.01)
        for where in ("POST /v1/files", "POST /v1/batches", "GET /v1/batches/*"):
            server.faults.add("slow_answer", where=where, seconds=0.6)

        out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


def test_stuck_in_finalizing(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Counts at 100 % are no end: nothing is downloaded before a terminal status."""
    server.hold("finalizing")
    job = submit(frame, provider, store)
    reach("finalizing", job)
    with pytest.raises(WaitTimeoutError, match="still finalizing"):
        job.wait(timeout=0.1, poll_seconds=0.01)

    status = job.status()
    assert (status.completed, status.ended) == (12, False)
    assert server.count("GET", "/v1/files/*/content") == 0
    server.release()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_one_shard_fails_and_the_other_is_brought_home(
    frame: pd.DataFrame, halves: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A batch that cannot be looked at holds up nothing else; its rows stay ``pending``."""
    job = submit(frame, halves, store)
    first = next(iter(server.batches))
    server.finish()
    server.faults.add("batch_not_found", where=f"GET /v1/batches/{first}")

    with pytest.warns(FrameEnrichWarning, match="HTTP 404"):
        job.collect(frame)

    check_rows(finish(frame, job), frame)
    check_paid(server, batches=2)
    assert server.count("GET", "/v1/files/*/content") == 2


def test_answers_that_are_not_answers(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Refused, filtered, cut, empty and null answers are statuses, each in its own row."""
    server.faults.add("refused", where=["row-T-00"])
    server.faults.add("content_filter", where=["row-T-01"])
    server.faults.add("truncated", where=["row-T-02"])
    server.faults.add("empty", where=["row-T-03"])
    server.faults.add("empty", where=["row-T-04"], content=None)

    out = finish(frame, submit(frame, provider, store))

    flagged = ["refused", "refused", "truncated", "empty", "empty"]
    check_rows(out, frame, dict(zip(frame.index[:5], flagged, strict=True)))
    check_paid(server, batches=1)


def test_waiting_ends_when_the_time_is_up(
    frame: pd.DataFrame,
    provider: OpenAIBatch,
    store: Path,
    server: BatchServer,
    pauses: list[float],
) -> None:
    """``timeout=`` holds with the default pauses too, which grow to a minute."""
    server.hold("in_progress")
    job = submit(frame, provider, store)

    with pytest.raises(WaitTimeoutError):
        job.wait(timeout=0.2)

    assert sum(pauses) <= 0.2  # what was planned, however slow the machine
    check_paid(server, batches=1)


# --- the map -------------------------------------------------------------------------------------


def test_the_readme_names_real_tests() -> None:
    """Every test that tests/README.md points to exists, and every fault test is on its map."""
    there = {
        (path.relative_to(TESTS).as_posix(), node.name)
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    text = (TESTS / "README.md").read_text()
    named = set(re.findall(r"`([\w/]*test_\w+\.py)::(test_\w+)`", text))

    assert named - there == set()
    mine = {(name, test) for name, test in there if name == "lifecycle/test_faults.py"}
    assert mine - named == {("lifecycle/test_faults.py", "test_the_readme_names_real_tests")}

"""What a user sees: errors as they come, on a page that this test makes (`WRITE`).

Each step is run as it stands there, against real servers and files. Only what differs from run to
run is written with dots: folders, ports, ids.
"""

from __future__ import annotations

import gzip
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import ROOT, answer_lines
from test_strangers import gossiping, rewrite_spec

import frameenrich
from frameenrich.errors import FrameEnrichError

PAGE = ROOT / "tests" / "TRANSCRIPTS.md"
WRITE = "FRAMEENRICH_WRITE_MESSAGES=1 uv run pytest -n 0 tests/test_transcripts.py"
HEAD = """\
# What users see

Errors as they come at the prompt, each after the step that caused it. `tests/test_transcripts.py`
runs the steps and writes this page; ids, ports and folders are dots. All messages that there are:
[MESSAGES.md](MESSAGES.md).
"""
STEPS = {
    "Answers of another job": "job.import_responses('answers-of-other.jsonl')",
    "The requests in place of the answers": "job.import_responses(job.requests[0])",
    "A file as Windows' PowerShell saves it": "job.import_responses('answers-utf16.jsonl')",
    "A zip archive of answers": "job.import_responses('answers.zip')",
    "A small file that unpacks to gigabytes": "job.import_responses('endless.jsonl.gz')",
    "An import that is not there": "job.withdraw_import('answers.jsonl')",
    "A schema that refers elsewhere": (
        "mugs.llmbatch.submit('Sort {{ title }}', 'm', provider='file', response_model={'type': "
        "'object', 'properties': {'n': {'$ref': 'http://10.0.0.1/n.json'}}})"
    ),
    "A job that somebody changed": "frameenrich.open_job('spoiled', store='a-friends')",
    "A responses file that lost a line, and the provider deleted its own": "sent.collect(mugs)",
    "A requests file in which a letter flipped": "half.regenerate()",
    "A server that repeats every credential it was shown": (
        "mugs.llmbatch.submit('Sort {{ title }}', 'm', name='leaky', client=leaky)"
    ),
    "Nobody answers in time, and nothing was sent": "unsent.wait(timeout=0.1)",
    "A cap that is no number of tokens": (
        "mugs.llmbatch.submit('Sort {{ title }}', 'gpt-4o-mini', provider='file', max_cost=1.0, "
        "params={'max_tokens': '1000'})"
    ),
    "A store that cannot be written": (
        "mugs.llmbatch.submit('Sort {{ title }}', 'm', provider='file', store='answers.jsonl')"
    ),
}


def prepared(mugs: pd.DataFrame, client: openai.OpenAI, server: BatchServer) -> dict[str, Any]:
    """Make the jobs, files and clients that the steps speak of; all lie in the working folder."""

    def ask(name: str, **how: Any) -> Any:
        # Each another question, or one would be answered by what another job has.
        return frameenrich.llmbatch(mugs).submit(name + ": {{ title }}", "m", name=name, **how)

    job, other = ask("job", provider="file"), ask("other", provider="file")
    Path("answers-of-other.jsonl").write_bytes(answer_lines(other, "a", list(mugs.index)))
    ours = answer_lines(job, "a", list(mugs.index))
    Path("answers.jsonl").write_bytes(ours)
    Path("answers-utf16.jsonl").write_bytes(ours.decode().encode("utf-16"))
    with zipfile.ZipFile("answers.zip", "w") as archive:
        archive.writestr("answers.jsonl", ours)
    Path("endless.jsonl.gz").write_bytes(gzip.compress(b"x" * (260 << 20), 1))

    spoiled = ask("spoiled", provider="file", store="a-friends")
    rewrite_spec(spoiled, messages=7)

    sent = ask("sent", client=client).wait(poll_seconds=0.01)
    sent.cleanup()
    server.faults.add("http_error", where=["row-A2"])
    half = ask("half", client=client).wait(poll_seconds=0.01)
    server.faults.add("file_quota_exceeded")
    with pytest.raises(FrameEnrichError):
        ask("unsent", client=client)
    answers = Path(sent.path, "round-0", "shard-00000.responses.jsonl")
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:-1]))

    requests = Path(half.path, "round-0", "shard-00000.requests.jsonl")
    requests.write_bytes(requests.read_bytes().replace(b"Blue hose", b"Blue rose"))

    server.faults.add("http_503", times="always")
    return {
        "job": job, "sent": sent, "half": half, "mugs": mugs, "frameenrich": frameenrich,
        "unsent": frameenrich.open_job("unsent", client=client),
    }  # fmt: skip


def told(step: str, names: dict[str, Any]) -> str:
    """Run a step, and return what a prompt shows of it."""
    with pytest.raises(FrameEnrichError) as caught:
        eval(step, names)
    shown = f"{type(caught.value).__name__}: {caught.value}"
    for seen, dots in (
        (os.getcwd(), "..."),
        (r"\b([a-z]+)-[0-9a-f]{16}\b", r"\1-..."),
        (r"-[0-9a-f]{6}\b", "-......"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:..."),
        (r"(?<![\d,])\d,\d{3}(?![\d,])", "..."),
    ):
        shown = re.sub(seen if "\\" in seen or "[" in seen else re.escape(seen), dots, shown)
    return shown


def test_the_page_is_what_a_user_sees(
    mugs: pd.DataFrame, client: openai.OpenAI, server: BatchServer
) -> None:
    """Promise 9: one sentence names the row, file or argument, another one the way out."""
    rows = [HEAD]
    names = prepared(mugs, client, server)
    with gossiping(most=48) as origin:
        names["leaky"] = openai.OpenAI(
            api_key="sk-secret-key", base_url=f"{origin}/v1", max_retries=0
        )
        for title, step in STEPS.items():
            shown = told(step, names)
            assert "sk-secret-key" not in shown
            rows.append(f"\n## {title}\n\n```\n>>> {step}\n{shown}\n```\n")

    if os.environ.get("FRAMEENRICH_WRITE_MESSAGES"):
        PAGE.write_text("".join(rows))
    assert PAGE.read_text() == "".join(rows), f"Messages changed; this writes the page: {WRITE}"

"""Write the old store; kept as the record of what wrote it.

Run once, at the commit that ``manifest.json`` names (frameenrich 0.1.0), before anything of the
package moved: ``uv run python tests/old_store/write.py``. It refuses to run where a store is: a
store that newer code wrote would prove nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openai
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from batch_server import BatchServer

import frameenrich
from old_store import HERE, Entry, books_of

MODEL = "gpt-4o-mini"
DEPARTMENTS = ["Kitchen", "Garden", "Clothing"]
TITLES = ["Red mug", "Blue hose", 'Grüne "Socke"\u2028neu', "Grey phone", "Oak bowl", "Rake", "Hat"]
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "blue", "other"]},
        "size_cm": {"type": "integer", "minimum": 0},
    },
    "required": ["colour", "size_cm"],
    "additionalProperties": False,
}


def titles(prefix: str, count: int) -> pd.DataFrame:
    """Make a frame of titles under keys that no other job has."""
    keys = pd.Index([f"{prefix}-{n}" for n in range(count)], name="sku")
    return pd.DataFrame({"title": TITLES[:count]}, index=keys)


def plain(frame: pd.DataFrame) -> dict[str, Any]:
    """Say how a frame of titles is read from CSV."""
    return {"frame": frame, "read": {"index_col": "sku"}}


def of_dates() -> dict[str, Any]:
    """Make a frame whose index is moments."""
    texts = ["2024-02-29 00:00:00", "2024-03-01 12:30:00.25", "1969-12-31 23:59:59"]
    index = pd.Index(texts, name="at")
    frame = pd.DataFrame({"title": TITLES[:3]}, index=index)
    read = {"index_col": "at", "parse_dates": ["at"], "date_format": "ISO8601"}
    return {"frame": frame, "read": read}


def of_levels() -> dict[str, Any]:
    """Make a frame whose index has a level of moments, one of texts and one of numbers."""
    levels = [("2024-05-01", "north", 1), ("2024-05-01", "south", -2), ("2024-05-02", "north", 1)]
    index = pd.MultiIndex.from_tuples(levels, names=["day", "shop", "till"])
    frame = pd.DataFrame({"title": TITLES[:3]}, index=index)
    return {"frame": frame, "read": {"index_col": [0, 1, 2], "parse_dates": ["day"]}}


def of_types() -> dict[str, Any]:
    """Make a frame of pandas' own types, with a key of moments in a zone."""
    moments = pd.to_datetime(["2024-07-01 08:00", "2024-12-01 08:00", "2024-12-02 00:00"])
    frame = pd.DataFrame(
        {
            "at": moments.tz_localize("Europe/Berlin"),
            "title": TITLES[:3],
            "stock": pd.array([3, pd.NA, 40], "Int64"),
            "fragile": pd.array([True, False, pd.NA], "boolean"),
            "shelf": pd.Categorical(["a", "b", "a"]),
            "weight": [0.5, 1.25, 1e-7],
        }
    )
    return {"frame": frame, "read": {}}


def of_numbers() -> dict[str, Any]:
    """Make a frame of whole numbers that pandas reads as floats."""
    frame = titles("num", 4).assign(
        price=[3.0, 12.5, 4.0, 1e6], stock=[7.0, float("nan"), 0.0, 12.0]
    )
    return {"frame": frame, "read": {"index_col": "sku"}}


PLAN: list[dict[str, Any]] = [
    {
        "kind": "running",
        "what": "its batch is in progress at the provider",
        "arguments": {"template": "Who buys {{ title }}?"},
        **plain(titles("run", 3)),
    },
    {
        "kind": "intent",
        "what": "the batch was made and its answer lost: on disk there is only the intent",
        "arguments": {"template": "Who needs {{ title }}?"},
        **plain(titles("int", 3)),
    },
    {
        "kind": "expired",
        "what": "half of its rows ran before the batch expired",
        "arguments": {"template": "Who sells {{ title }}?"},
        **plain(titles("exp", 4)),
    },
    {
        "kind": "cancelled",
        "what": "cancelled while it ran; half of its rows had their answers",
        "arguments": {"template": "Who makes {{ title }}?"},
        **plain(titles("can", 4)),
    },
    {
        "kind": "flagged",
        "what": "one row is ok, each other one is flagged for another reason",
        "arguments": {"template": "Which shelf is {{ title }} on?", "labels": DEPARTMENTS},
        **plain(titles("flg", 7)),
    },
    {
        "kind": "two_rounds",
        "what": "a JSON Schema; three rows were asked again, one of them is flagged still",
        "arguments": {
            "template": "Describe {{ title }}.",
            "response_model": SCHEMA,
            "params": {"max_tokens": 40, "temperature": 0.0},
        },
        **plain(titles("two", 4)),
    },
    {
        "kind": "image",
        "what": "an image a row; its image_root is relative",
        "arguments": {
            "template": "What is on the photo of {{ title }}?",
            "image": "photo",
            "image_root": "images",
            "image_detail": "low",
        },
        **plain(titles("img", 3).assign(photo=["red.png", "blue.png", "red.png"])),
    },
    {
        "kind": "dates",
        "what": "its keys are moments",
        "arguments": {"template": "When was {{ title }} sold?"},
        **of_dates(),
    },
    {
        "kind": "levels",
        "what": "its keys are of three levels: a moment, a text, a number",
        "arguments": {"template": "Who sold {{ title }}?"},
        **of_levels(),
    },
    {
        "kind": "typed",
        "what": "a Parquet file; nullable types, a key column of moments in a zone, null policy",
        "arguments": {
            "template": (
                "{{ title }}: {{ stock or 'no' }} pieces, {{ weight }} kg, shelf {{ shelf }}"
                "{% if fragile %}, fragile{% endif %}"
            ),
            "key": "at",
        },
        **of_types(),
    },
    {
        "kind": "whole_numbers",
        "what": "whole numbers in float columns, printed as 3.0; a row without one is skipped",
        "arguments": {
            "template": "Is {{ title }} at {{ price }} cheap? {{ stock }} are left.",
            "on_null": "skip",
        },
        **of_numbers(),
    },
    {
        "kind": "types",
        "what": "its response_model is a dict of types",
        "arguments": {
            "template": "Facts on {{ title }}",
            "response_model": {"code": "types"},
            "prefix": "is_",
        },
        **plain(titles("typ", 3)),
    },
    {
        "kind": "pydantic",
        "what": "its response_model is a pydantic class",
        "arguments": {"template": "Sheet of {{ title }}", "response_model": {"code": "Product"}},
        **plain(titles("pyd", 3)),
    },
    {
        "kind": "parser",
        "what": "its answers are read by a function of the user's",
        "arguments": {"template": "Rhyme on {{ title }}", "parser": {"code": "last_word"}},
        **plain(titles("par", 3)),
    },
    {
        "kind": "labels",
        "what": "its labels= is a list; two rows ask the same",
        "arguments": {"template": "Sort {{ title }}", "labels": DEPARTMENTS, "name": "labelled"},
        **plain(pd.concat([titles("lab", 3), titles("dup", 1)])),
    },
    {
        "kind": "reused",
        "what": "the same question to more rows: answers of the job before it were taken over",
        "arguments": {"template": "Sort {{ title }}", "labels": DEPARTMENTS, "name": "labelled"},
        **plain(pd.concat([titles("lab", 5), titles("dup", 1)])),
    },
    {
        "kind": "responses",
        "what": "the Responses endpoint, with a system message",
        "arguments": {
            "template": "Say {{ title }}",
            "system": "Be brief.",
            "endpoint": "/v1/responses",
            "params": {"max_output_tokens": 50},
        },
        **plain(titles("rsp", 2)),
    },
    {
        "kind": "embedding",
        "what": "vectors",
        "verb": "embed",
        "arguments": {
            "template": "{{ title }}",
            "model": "text-embedding-3-small",
            "dimensions": 4,
        },
        **plain(titles("emb", 3)),
    },
    {
        "kind": "live",
        "what": "one call a request",
        "arguments": {"template": "Now {{ title }}", "provider": "live"},
        **plain(titles("liv", 3)),
    },
    {
        "kind": "pilot",
        "what": "two rows of the frame of the job after it, asked live",
        "verb": "pilot",
        "arguments": {"template": "Try {{ title }}", "name": "piloted", "n": 2},
        **plain(titles("pil", 4)),
    },
    {
        "kind": "piloted",
        "what": "a batch that took over a pilot's answers",
        "arguments": {"template": "Try {{ title }}", "name": "piloted"},
        **plain(titles("pil", 4)),
    },
    {
        "kind": "file",
        "what": "sent by other means; answers to two of its three rows were imported",
        "arguments": {"template": "Read {{ title }}", "provider": "file"},
        **plain(titles("fil", 3)),
    },
    {
        "kind": "ready",
        "what": "requests that came ready, one under a custom_id that no provider takes",
        "verb": "submit_requests",
        "arguments": {"requests": "requests.jsonl"},
        "frame": None,
        "read": {},
    },
]

FLAGS: dict[str, dict[str, Any]] = {
    "malformed": {"where": ["row-flg-1", "row-two-1"], "content": "no such thing"},
    "refused": {"where": ["row-flg-2"], "message": "I cannot help with that."},
    "truncated": {"where": ["row-flg-3", "row-two-2"]},
    "empty": {"where": ["row-flg-4"]},
    "http_error": {"where": ["row-flg-5", "row-two-3", "r1-row-two-3"], "status": 500},
    "missing": {"where": ["row-flg-6"]},
}


@dataclasses.dataclass
class Session:
    """Hold what the acts below need."""

    server: BatchServer
    client: openai.OpenAI

    def finish(self, entry: Entry) -> frameenrich.Job:
        """Submit and wait to the end, as nearly all jobs were."""
        job: frameenrich.Job = entry.call(self.client)
        return job.wait(poll_seconds=0.01)

    def newest(self, entry: Entry) -> frameenrich.Job:
        """Find a job that was not given back."""
        job_id = str(frameenrich.jobs(entry.store)["job"][0])
        return frameenrich.open_job(job_id, entry.store, client=self.client)

    def running(self, entry: Entry) -> frameenrich.Job:
        """Leave the batch in progress."""
        job: frameenrich.Job = entry.call(self.client)
        self.server.hold("in_progress", list(self.server.batches)[-1])
        for _ in range(3):
            job.status()
        return job

    def intent(self, entry: Entry) -> frameenrich.Job:
        """Lose the answer to the create, and whatever would find the batch."""
        self.server.faults.add("accepted_then_closed")
        self.server.faults.add("http_503", where="GET /v1/batches", times="always")
        with contextlib.suppress(frameenrich.ProviderError):
            entry.call(self.client)
        self.server.faults.clear()
        self.server.hold("validating", list(self.server.batches)[-1])
        return self.newest(entry)

    def expired(self, entry: Entry) -> frameenrich.Job:
        """Have the batch expire in the middle."""
        self.server.faults.add("expired", ran=0.5)
        return self.finish(entry)

    def cancelled(self, entry: Entry) -> frameenrich.Job:
        """Cancel it in the middle."""
        job = self.running(entry).cancel()
        return job.wait(poll_seconds=0.01)

    def flagged(self, entry: Entry) -> frameenrich.Job:
        """Have each row but one go wrong in its own way."""
        for fault, options in FLAGS.items():
            self.server.faults.add(fault, **options)
        return self.finish(entry)

    def two_rounds(self, entry: Entry) -> frameenrich.Job:
        """Ask again what went wrong (`flagged` has set the faults)."""
        job = self.finish(entry)
        job.regenerate().wait(poll_seconds=0.01)
        self.server.faults.clear()
        return job

    def pilot(self, entry: Entry) -> frameenrich.Job:
        """Look at two rows first."""
        entry.call(self.client)
        return self.newest(entry)

    def file(self, entry: Entry) -> frameenrich.Job:
        """Import two answers of three."""
        job: frameenrich.Job = entry.call(None)
        lines = [
            json.dumps(
                {
                    "id": f"line-{n}",
                    "custom_id": f"row-fil-{n}",
                    "response": {
                        "status_code": 200,
                        "body": {
                            "model": "facebook/opt-125m",
                            "choices": [
                                {
                                    "finish_reason": "stop",
                                    "message": {"role": "assistant", "content": f"read {n}"},
                                }
                            ],
                            "usage": {"prompt_tokens": 4, "completion_tokens": 2},
                        },
                    },
                    "error": None,
                }
            )
            for n in range(3)
        ]
        (HERE / "answers.jsonl").write_text("".join(f"{line}\n" for line in lines))
        two = HERE / "two.jsonl"
        two.write_text("".join(f"{line}\n" for line in lines[:2]))
        job.import_responses(two)
        two.unlink()
        return job


def make_entry(planned: dict[str, Any]) -> Entry:
    """Write the frame of a planned job, and say what the manifest says of it."""
    kind, frame = planned["kind"], planned["frame"]
    arguments = dict(planned["arguments"])
    verb = planned.get("verb", "submit")
    if verb != "submit_requests":
        arguments.setdefault("model", MODEL)
    arguments.setdefault("name", kind)
    file = None if frame is None else f"frames/{kind}.{'csv' if planned['read'] else 'parquet'}"
    if file is not None and file.endswith(".csv"):
        frame.to_csv(HERE / file)
    elif file is not None:
        frame.to_parquet(HERE / file)
    return Entry(HERE, kind, planned["what"], verb, arguments, file, planned["read"])


def write_inputs() -> None:
    """Write the images, and the requests that came ready."""
    for folder in ("frames", "images"):
        (HERE / folder).mkdir(exist_ok=True)
    for color in ("red", "blue"):
        Image.new("RGB", (4, 3), color).save(HERE / "images" / f"{color}.png")
    asked = {"plain-1": "Ready mug?", "https://example.org/2": "Ready hose?"}
    lines = [
        {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "messages": [{"role": "user", "content": text}]},
        }
        for custom_id, text in asked.items()
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (HERE / "requests.jsonl").write_text(text)


def main() -> None:
    """Write the folder."""
    if (HERE / "store").exists():
        sys.exit("There is an old store already; it is not written anew.")
    write_inputs()
    told: list[Entry] = []
    with (
        contextlib.chdir(HERE),
        BatchServer() as server,
        openai.OpenAI(api_key="sk-test", base_url=server.base_url) as client,
    ):
        session = Session(server, client)
        for planned in PLAN:
            entry = make_entry(planned)
            act: Callable[[Entry], Any] = getattr(session, entry.kind, session.finish)
            told.append(dataclasses.replace(entry, job=act(entry).id))
        books = books_of(server)
        (HERE / "provider.json").write_text(json.dumps(books, indent=1) + "\n")
        write_manifest(told, server, client)


def write_manifest(told: Sequence[Entry], server: BatchServer, client: openai.OpenAI) -> None:
    """Write what `collect` gives now, and when the provider is done; in a copy of the folder."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(HERE, copy)
        os.chdir(copy)
        copied = [dataclasses.replace(entry, home=copy) for entry in told]
        before = [entry.collect(entry.open(client)) for entry in copied]
        server.release()
        after = [entry.finish(client) for entry in copied]
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, check=True, capture_output=True, text=True, cwd=HERE)
    jobs = [
        dataclasses.asdict(dataclasses.replace(entry, before=then, after=ended))
        for entry, then, ended in zip(told, before, after, strict=True)
    ]
    manifest = {
        "written_by": {
            "frameenrich": frameenrich.__version__,
            "commit": commit.stdout.strip(),
            "pandas": pd.__version__,
        },
        "jobs": [_told(job) for job in jobs],
    }
    (HERE / "manifest.json").write_text(show(manifest), "utf-8")
    for path in [HERE / "store" / ".gitignore", *(HERE / "store").glob("*/.lock")]:
        path.unlink()  # the folder belongs into the repository, and nobody is at work


def _told(job: dict[str, Any]) -> dict[str, Any]:
    left_out = {"home"} | ({"after"} if job["after"] == job["before"] else set())
    return {name: value for name, value in job.items() if name not in left_out}


def show(value: Any, depth: int = 0) -> str:
    """Write JSON with a line for each member, and a list of cells in one line."""
    if isinstance(value, dict) and value and depth < 4:
        pad = " " * (depth + 1)
        members = [f"{pad}{json.dumps(k)}: {show(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(members) + "\n" + pad[1:] + "}" + "\n" * (depth == 0)
    if isinstance(value, list) and value and depth == 1:
        return "[\n" + ",\n".join(f"  {show(each, 2)}" for each in value) + "\n ]"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()

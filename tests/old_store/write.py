"""Write the old store anew, with whatever code is checked out; kept to show how it was made.

cd tests/old_store && PYTHONPATH=.. uv run python write.py .
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import openai
from batch_server import BatchServer
from old_store.jobs import FRAMES, SUBMITS

import frameenrich  # noqa: F401 - registers df.llmbatch

FAST = {"timeout": 30, "poll_seconds": 0.01}


def main(folder: Path) -> None:
    """Submit and end the jobs, but for the one that stays with its provider."""
    known: dict[str, Any] = {"jobs": {}}
    for name, frame in FRAMES.items():
        with (
            BatchServer() as server,
            openai.OpenAI(api_key="k", base_url=server.base_url) as client,
        ):
            if name in {"flagged", "rounds"}:
                server.faults.add("malformed", where=["row-A2", "row-A3"], content="no idea")
            if name == "expired":
                server.faults.add("expired", ran=0.5)
            if name == "running":
                server.hold("in_progress")
            store = folder / "store"
            job = frame.llmbatch.submit(client=client, store=store, **SUBMITS[name])
            if name == "running":
                job.status()
                (batch,) = server.batches.values()
                known["batch"] = {"id": batch["id"], "metadata": batch["metadata"]}
                known["file"] = server.files[batch["input_file_id"]]["filename"]
                known["requests"] = server.content(batch["input_file_id"]).decode()
            else:
                job.wait(**FAST)
            if name == "rounds":
                job.regenerate().wait(**FAST)
            answers = frame.llmbatch.collect(job)
            made = [column for column in answers.columns if column not in frame.columns]
            table = answers[made].reset_index(drop=True)
            known["jobs"][name] = {"id": job.id, "answers": json.loads(table.to_json())}
    text = json.dumps(known, indent=1, ensure_ascii=False)
    (folder / "known.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Plays ``vllm run-batch``: reads its arguments and writes lines of its form, without a model.

As vllm/entrypoints/openai/run_batch.py writes them (v0.10 to v0.15, and main of early 2026): one
output file in the order of the input, failures among the answers with no body and an error that is
a text or an ``ErrorResponse``; a line that does not parse ends the run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

REFUSED = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 500}}
FAILURES: tuple[tuple[int, Any], ...] = ((500, REFUSED), (400, "No such role"))
"""What becomes of the first requests of a file that nobody asked before."""


def answer(request: dict[str, Any], number: int) -> dict[str, Any]:
    """One line of the output file."""
    status, error, body = 200, None, None
    if number < len(FAILURES) and not request["custom_id"].startswith("r1-"):
        status, error = FAILURES[number]
    else:
        said = request["body"]["messages"][-1]["content"]
        message: dict[str, Any] = {"role": "assistant", "content": f"echo: {said}", "refusal": None,
                   "reasoning_content": None, "tool_calls": []}  # fmt: skip
        body = {
            "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0,
            "model": request["body"]["model"], "prompt_logprobs": None, "kv_transfer_params": None,
            "choices": [{"index": 0, "message": message, "logprobs": None, "stop_reason": None,
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3,
                      "prompt_tokens_details": None},
        }  # fmt: skip
    response = {"status_code": status, "request_id": f"vllm-batch-{number}", "body": body}
    return {"id": f"vllm-{number}", "custom_id": request["custom_id"], "response": response,
            "error": error}  # fmt: skip


def main() -> None:
    """Read the input, write the output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run-batch"])
    parser.add_argument("-i", "--input-file", type=Path, required=True)
    parser.add_argument("-o", "--output-file", type=Path, required=True)
    parser.add_argument("--model", required=True)
    wishes = parser.parse_args()
    with wishes.output_file.open("w", encoding="utf-8") as file:
        for number, line in enumerate(wishes.input_file.read_text("utf-8").splitlines()):
            request = json.loads(line)
            assert request["body"]["model"] == wishes.model
            file.write(json.dumps(answer(request, number)) + "\n")


if __name__ == "__main__":
    main()

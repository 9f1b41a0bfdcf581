"""Two files that are put into one: a last line without its end must not swallow the next one."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import openai

from frameenrich.providers.once import fetch_files
from frameenrich.providers.retries import Calls, stainless_errors


def test_a_file_without_its_last_line_end_gets_one() -> None:
    """Else the last answer and the first error would be one broken line, and two rows lost."""
    files = {"out": [b'{"custom_id": "row-0"}'], "errors": [b'{"custom_id"', b': "row-1"}\n']}
    calls = Calls(stainless_errors(openai), lambda: (), attempts=1, wait_seconds=0.01)
    batch: Any = SimpleNamespace(output_file_id="out", error_file_id="errors")
    sink = io.BytesIO()

    fetch_files(calls, batch, sink, lambda file_id: files[file_id])

    assert sink.getvalue() == b'{"custom_id": "row-0"}\n{"custom_id": "row-1"}\n'

"""Two files that are put into one: a last line without its end must not swallow the next one."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from frameenrich.providers.once import fetch_files, whole_lines
from frameenrich.providers.retries import Calls, TornDownloadError, stainless_errors


def test_a_file_without_its_last_line_end_gets_one() -> None:
    """Else the last answer and the first error would be one broken line, and two rows lost."""
    files = {"out": [b'{"custom_id": "row-0"}'], "errors": [b'{"custom_id"', b': "row-1"}\n']}
    calls = Calls(stainless_errors(openai), lambda: (), attempts=1, wait_seconds=0.01)
    batch: Any = SimpleNamespace(output_file_id="out", error_file_id="errors")
    sink = io.BytesIO()

    fetch_files(calls, batch, sink, lambda file_id: files[file_id])

    assert sink.getvalue() == b'{"custom_id": "row-0"}\n{"custom_id": "row-1"}\n'


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([b'{"a": 1}\n', b'{"b', b'": 2', b"}"], True),
        ([b'{"a": 1}\n{"b": 2', b"}\n"], True),
        ([b'{"a": 1}\n', b" \r"], True),
        ([b"not JSON, and ended\n"], True),
        ([b"[" * 100_000], True),  # nobody can tell
        ([], True),
        ([b'{"a": 1}\n', b'{"b', b'": 2'], False),
        ([b'{"a": 1}\n{"b": "\xc3'], False),
        ([b"{"], False),
    ],
)
def test_a_file_that_ends_within_a_line_is_not_whole(pieces: list[bytes], whole: bool) -> None:
    """However it was cut into pieces; each is handed on all the same."""
    came: list[bytes] = []
    with contextlib.nullcontext() if whole else pytest.raises(TornDownloadError, match="out was"):
        came.extend(whole_lines(pieces, "out"))
    if whole:
        assert came == pieces

"""Two files that are put into one: a last line without its end must not swallow the next one."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from frameenrich.providers.once import fetch_files, refuse_torn, whole_body
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
        ([b'{"a": 1}', b"\0" * 9], True),
        (['{"a": 1}\u2028'.encode()], True),
        ([b'\xef\xbb\xbf{"a": 1}'], True),
        ([b'{"a": ' + b"1" * 5_000 + b"}"], True),
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
        came.extend(refuse_torn(pieces, "out"))
    if whole:
        assert came == pieces


@pytest.mark.parametrize(
    ("headers", "size", "known"),
    [
        ({"content-length": "12"}, None, True),
        ({"content-length": "9", "content-encoding": "gzip"}, None, True),
        ({}, 12, True),
        ({}, 0, False),
        ({}, None, False),
        ({}, "12", False),
    ],
)
def test_a_file_is_taken_as_it_is_where_its_size_is_known(
    headers: dict[str, str], size: Any, known: bool
) -> None:
    """Each of its bytes came: a gigabyte that ends in no JSON is not fetched again and again."""
    response: Any = SimpleNamespace(
        headers=headers, iter_bytes=lambda _: iter([b'{"a": 1}\n', b'{"b'])
    )
    with contextlib.nullcontext() if known else pytest.raises(TornDownloadError):
        assert b"".join(whole_body(response, "out", size)) == b'{"a": 1}\n{"b'

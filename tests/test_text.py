"""One rule for text that no file can hold, and for text that no terminal should see."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reviews import answered

from frameenrich.answers.judge import read_result
from frameenrich.cli.tables.files import table_file
from frameenrich.cli.tables.read import read_table
from frameenrich.cli.tables.records import without_formula
from frameenrich.cli.tables.write import write_table
from frameenrich.cli.terminal import print_rows
from frameenrich.prepare.output_options import output_from_options
from frameenrich.text import escaped, without_secrets

HALF, WHOLE = "a\ud83d", "a\ufffd"


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.xlsx"])
def test_half_a_character_is_the_same_in_every_file(name: str, tmp_path: Path) -> None:
    """U+FFFD, as in the columns of a collect; never a question mark here and a box there."""
    source = tmp_path / "in.csv"
    source.write_text("title\nx\n")
    with read_table(table_file(str(source))) as table:
        answered = table.frame.assign(answer=pd.Series([HALF], table.frame.index, dtype=object))
        write_table(table, answered, table_file(str(tmp_path / name)))

    read: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".xlsx": partial(pd.read_excel, engine="openpyxl"),
    }
    written = tmp_path / name
    cells = read[written.suffix](written)
    assert list(cells["answer"].to_numpy()) == [WHOLE]


def test_half_a_character_in_an_answer() -> None:
    """A line that was cut within a pair is read, and its answer has the same mark."""
    line = (
        b'{"custom_id": "row-1", "response": {"status_code": 200, "body": {"choices": [{"message": '
        b'{"content": "a\\ud83d"}, "finish_reason": "stop"}]}}, "error": null}'
    )

    result = read_result(line, output_from_options())

    assert result is not None
    assert result.values == (WHOLE,)


@pytest.mark.parametrize("character", ["\x1b", "\x00", "\x7f", "\x9b", "\u202e", "\u200f"])
def test_a_terminal_and_a_reason_hide_the_same_characters(character: str) -> None:
    """What is written out in a row's error is written out on the command line, too."""
    shown = io.StringIO()
    print_rows(["error"], [[f"a{character}b"]], file=shown)

    assert shown.getvalue().splitlines()[1] == escaped(f"a{character}b") != f"a{character}b"


def test_a_short_key_spoils_no_words() -> None:
    """Local servers take "EMPTY" for a key: it stays in a reason, in texts as in bytes."""
    assert without_secrets("EMPTY answer of open-sesame", ["EMPTY", "open-sesame", None]) == (
        "EMPTY answer of ***"
    )
    assert without_secrets(b"EMPTY open-sesame", ["EMPTY", "open-sesame"]) == b"EMPTY ***"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\n=", "\u2003=", "\uff1d", "\ufeff\uff0b"])
def test_a_formula_is_quoted_in_tables_and_in_review_sheets(start: str, tmp_path: Path) -> None:
    """Promise 7, by one rule: blanks that a spreadsheet passes over and full-width signs too."""
    answer = f"{start}HYPERLINK(A1)"
    frame = pd.DataFrame({"title": ["mug", "hose"]}, index=pd.Index(["A", "B"], name="sku"))
    job = answered(frame, [answer, "plain"], tmp_path)

    sheet = pd.read_csv(job.review(n=2).to_csv(tmp_path / "review.csv"), dtype=str)

    assert without_formula(answer) == f"'{answer}"
    assert set(sheet["answer"]) == {f"'{answer}", "plain"}

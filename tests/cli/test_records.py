"""Records keep the bytes they came in, and Python's `csv` agrees on where each ends."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frameenrich.cli.tables.records import (
    cell_text,
    csv_records,
    json_lines,
    json_object,
    quoted,
    raw_cells,
    to_json,
    with_cells,
    with_members,
    without_formula,
)
from frameenrich.errors import InputError

TEXT = st.text(st.sampled_from('a0 ,;"\t\r\né漢\x00\u2028\x85'), max_size=6)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def by_csv(text: str, delimiter: str = ",") -> list[list[str]] | None:
    """What Python's own reader makes of a text; None where it refuses it."""
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None


@st.composite
def tables(draw: st.DrawFn) -> str:
    """CSV as programs write it: quoting styles, line ends, blank lines, a missing last end."""
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1, max_size=6))
    end = draw(LINE_ENDS)
    file = io.StringIO(newline="")
    for row in rows:
        quoting: Any = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        csv.writer(file, quoting=quoting, lineterminator=end).writerow(row)
        file.write(end * draw(st.sampled_from([0, 0, 0, 1])))
    text = file.getvalue()
    return text.removesuffix(end) if draw(st.booleans()) else text


@given(tables(), st.booleans())
def test_records_are_those_of_pythons_csv_and_their_bytes_are_the_file(
    text: str, has_mark: bool
) -> None:
    """Splitting loses no byte, with and without a byte order mark, and reads as `csv` does."""
    data = (b"\xef\xbb\xbf" if has_mark else b"") + text.encode()

    records = list(csv_records(io.BytesIO(data), ","))

    assert b"".join(record.raw.encode() for record in records) == data
    assert [record.cells for record in records] == by_csv(text)


@given(st.text(st.sampled_from('a,"\r\n'), max_size=30))
def test_any_text_is_read_as_python_reads_it_or_refused_as_it_refuses_it(text: str) -> None:
    """No input is CSV to us that is none to Python, or the other way round."""
    try:
        cells = [record.cells for record in csv_records(io.BytesIO(text.encode()), ",")]
    except InputError:
        cells = None

    assert cells == by_csv(text)


@given(tables(), st.lists(TEXT, max_size=3), st.dictionaries(st.integers(0, 0), TEXT, max_size=1))
def test_added_and_replaced_cells_are_read_back_beside_untouched_ones(
    text: str, added: list[str], replaced: dict[int, str]
) -> None:
    """What is appended or put in place of a cell reads back; every other cell is as it was."""
    records = [r for r in csv_records(io.BytesIO(text.encode()), ",") if r.cells]

    for record in records:
        enlarged = with_cells(record, replaced, added, ",").decode()
        wanted = [replaced.get(i, cell) for i, cell in enumerate(record.cells)] + added
        if wanted != [""]:
            assert by_csv(enlarged) == [wanted]
        if not replaced:
            body = record.raw.rstrip("\r\n") if record.raw.endswith(("\r", "\n")) else record.raw
            assert enlarged.startswith(body)


@given(tables())
def test_raw_cells_are_what_csv_decodes(text: str) -> None:
    """Each cell as it is written decodes to the cell; joined again they are the record."""
    records = [r for r in csv_records(io.BytesIO(text.encode()), ",") if r.cells]

    for record in records:
        body = record.raw
        for end in ("\r\n", "\n", "\r"):
            if body.endswith(end):
                body = body.removesuffix(end)
                break
        cells = raw_cells(body, ",")
        assert ",".join(cells) == body
        assert [(by_csv(cell) or [[""]])[0][0] for cell in cells] == record.cells


def test_line_numbers_count_lines_and_not_records() -> None:
    """A record that spans lines moves the number of the next one."""
    data = b'a,b\n1,"x\ny\nz"\n\n2,3\n'

    assert [r.line for r in csv_records(io.BytesIO(data), ",")] == [1, 2, 5, 6]


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (b'a,b\n1,"x" y\n', 2, "this is not CSV (',' expected after '\"')"),
        (b'a,b\n1,2\n3,"never\nends\n', 3, "this is not CSV (unexpected end of data)"),
        (b"a,b\n1,2\ncaf\xe9,3\n", 3, "this is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), 1, "this is not UTF-8"),
    ],
)
def test_a_broken_line_is_named(data: bytes, line: int, says: str) -> None:
    """Bytes that are no text and texts that are no CSV are refused with their line."""
    with pytest.raises(InputError, match=rf"goods\.csv, line {line}: ") as raised:
        list(csv_records(io.BytesIO(data), ",", "goods.csv"))

    assert says in raised.value.problem
    assert vars(raised.value)["line"] == line


def test_a_cell_may_be_a_whole_book() -> None:
    """The `csv` module's own limit of 128 KiB a cell does not stand."""
    book = "word " * 100_000

    cells = [r.cells for r in csv_records(io.BytesIO(f"a\n{book}\n".encode()), ",")]

    assert cells == [["a"], [book]]


@pytest.mark.parametrize("sign", list("=+-@\t\r\n") + list("\uff1d\uff0b\uff0d\uff20"))
def test_formulas_become_texts(sign: str) -> None:
    """Every sign that starts a formula in a spreadsheet is led by a quote; numbers stay numbers."""
    assert without_formula(f"{sign}cmd|' /C calc'!A0") == f"'{sign}cmd|' /C calc'!A0"
    assert without_formula(f"a{sign}b") == f"a{sign}b"
    assert [without_formula(value) for value in (-5, None, -0.5, ["=1"])] == [
        -5,
        None,
        -0.5,
        ["=1"],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (12.5, "12.5"),
        (False, "False"),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        (2**70, str(2**70)),
        ([2**70], f"[{2**70}]"),
        (np.array([0.5, 2.0], dtype="float32"), "[0.5,2.0]"),
    ],
)
def test_values_as_cells(value: Any, text: str) -> None:
    """A list or an object is JSON in its cell, and nothing is rounded."""
    assert cell_text(value) == text


@given(st.text(max_size=8))
def test_quoted_cells_read_back(text: str) -> None:
    """A quoted text is one cell, and the same text."""
    assert (by_csv(quoted(text, ",")) or [[""]]) == [[text]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(
    st.dictionaries(st.text(max_size=3), JSON, max_size=3),
    st.dictionaries(st.text(min_size=4, max_size=6), JSON, max_size=3),
    st.sampled_from(["", "\n", "\r\n", " \n"]),
    st.sampled_from([None, 1]),
)
def test_members_are_added_after_the_objects_own_bytes(
    own: dict[str, Any], added: dict[str, Any], end: str, indent: int | None
) -> None:
    """The line begins with its own bytes, ends as it ended, and parses to both together."""
    text = json.dumps(own, indent=indent).replace("\n", " ")

    line = with_members((text + end).encode(), added)

    assert json.loads(line) == {**own, **added}
    assert line.startswith(text.encode()[:-1])
    assert line.endswith(b"}" + end.encode())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[1, 2]", "this is a JSON array, not an object"),
        (b"3", "this is a JSON value, not an object"),
        (b'{"a": }', "this is not JSON (Expecting value: line 1 column 7 (char 6))"),
        (b'{"a": "\xe9"}', "this is not UTF-8"),
        (b"[" * 100_000, "this is not JSON"),
    ],
)
def test_a_line_that_is_no_object_is_named(line: bytes, says: str) -> None:
    """JSON Lines are objects; anything else is refused with its line."""
    with pytest.raises(InputError, match=r"goods\.jsonl, line 7: ") as raised:
        json_object(line, 7, "goods.jsonl")

    assert says in raised.value.problem


def test_blank_lines_and_a_byte_order_mark_are_no_objects() -> None:
    """Blank lines are told apart, and a mark before the first object does not count."""
    lines = list(json_lines(io.BytesIO(b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{}'), "goods.jsonl"))

    assert [full for *_, full in lines] == [True, False, False, True]
    assert json_object(lines[0][1], 1, "x") == {"a": 1}


def test_json_has_a_form_for_everything() -> None:
    """What JSON lacks becomes a text or null, and the result is valid JSON."""
    value = {"half": "\ud800", "big": 2**80}

    assert json.loads(to_json(value)) == {"half": "\ud800", "big": 2**80}
    assert to_json([float("inf"), float("nan")]) == b"[null,null]"

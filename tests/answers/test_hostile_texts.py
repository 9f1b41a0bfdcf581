"""Answers of thousands of equal pieces: reading one takes no longer than it is."""

from __future__ import annotations

import pytest

from frameenrich.answers.error_text import error_text
from frameenrich.answers.json_text import CutOffError, NotJsonError, find_json
from frameenrich.answers.mending import mend
from frameenrich.answers.thinking import UnclosedThinkingError, split_thinking

MANY = 100_000


def found(text: str) -> str:
    """Return what comes of a text: short, as pytest would compare long ones for minutes."""
    try:
        return str(find_json(text).value)
    except NotJsonError as error:
        return type(error).__name__


# Each took minutes, as the rest of the text was read again from each of its pieces.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 1," + "\n" * 300_000 + "'b': 'x'}", "{'a': 1, 'b': 'x'}"),
        ("{'a': 1, x" + " //" * MANY + "\"'}", CutOffError.__name__),
        ("{'a': 1, \"b\" " + "/* " * MANY + "'}", NotJsonError.__name__),
        ("{" + "\n" * MANY + "x", NotJsonError.__name__),
        ("{a" + " " * MANY + "x", NotJsonError.__name__),
        ("[" + " " * MANY + "x", NotJsonError.__name__),
    ],
    ids=["newlines", "remarks", "comments", "before a key", "after a key", "in a list"],
)
def test_pieces_repeated_in_json_end(text: str, value: str) -> None:
    """An answer in which a model repeats itself does not hold up the others."""
    assert found(text) == value


@pytest.mark.parametrize("piece", ["/* ", " //", "\n", "'", '"', ":'", "[{"])
def test_pieces_that_no_repair_could_make_clear_end(piece: str) -> None:
    """What is unclear is not given to the repair library, which takes the square of its length."""
    assert mend("{'a': 1, b; " + piece * MANY + "\"'}") is None


def test_tags_that_nothing_closes_end() -> None:
    """Of each opening tag the rest of the answer was searched for its end."""
    with pytest.raises(UnclosedThinkingError):
        split_thinking("<think>" * MANY, anywhere=True)


def test_thoughts_one_after_another_end() -> None:
    """Before each thought, JSON around it was sought up to the answer's end."""
    answer, thinking, _ = split_thinking("<think>a</think>" * 4_000 + "b", anywhere=True)

    assert answer == "b"
    assert thinking is not None
    assert thinking.count("a") == 4_000


def test_remarks_in_json_are_no_words_of_it() -> None:
    """Only what ends as a remark is one: a text may hold what begins like one."""
    text = "{\n# one\n\n  // two\n'a': /* three */ 'x', // four\n'b': 'y/*', // five\n'c': 1}"

    assert found(text) == "{'a': 'x', 'b': 'y/*', 'c': 1}"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<html><STYLE>\nbody {\n}\n</Style >Busy", "a web page: Busy"),
        ("<html><p>Busy<script>\nlet a = 1;", "a web page: Busy"),
        ("<html><!-- a > b -->Busy<p cl", "a web page: Busy"),
        ("<html><style>" + "a {}\n" * 1_000 + "</style>", "a web page without words"),
        ("<html>\ud800", "a web page: \ufffd"),
        ("[\ud800", "[\ufffd"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_an_error_s_words_are_words_that_can_be_written(page: str, words: str) -> None:
    """Neither the style of a page nor half a character stands in an error."""
    assert error_text(page) == words

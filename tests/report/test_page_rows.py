"""The rows of a report's page, written in pieces, against the same made all at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frameenrich.rendering.readable import Prompt
from frameenrich.report import page_rows
from frameenrich.report.locate_error import locate_error
from frameenrich.report.page_rows import Column, PageRows, Row, plain, utf16_length
from frameenrich.text import script_json

COLUMNS = [Column("n", "number"), Column("__proto__", "text"), Column("parts", "json")]
CAPS, LIMIT = (400, 90, 20, 5), 700


def at_once(columns: Sequence[Column], own_turn: int, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the page's data of some rows, with every text in memory until all are there."""
    numbers: dict[str, int] = {}
    images: dict[tuple[str, str], int] = {}

    def number(text: str | None) -> int | None:
        return None if text is None else numbers.setdefault(text, len(numbers))

    def members(row: Row) -> dict[str, Any]:
        may_lack = {
            "e": number(row.error),
            "v": row.values
            and [
                number(value) if column.kind in {"text", "json"} else plain(value)
                for column, value in zip(columns, row.values, strict=True)
            ],
            "r": number(row.raw),
            "n": None if row.raw is None else len(row.raw),
            "p": row.prompt and [[role, number(text)] for role, text in row.prompt.messages],
            "i": [images.setdefault(image, len(images)) for image in row.images] or None,
            "h": list(row.history) or None,
            "a": row.attempt,
            "c": row.score,
            "w": list(row.verdicts) or None,
            "o": row.model,
            "f": row.finish_reason,
            "id": row.custom_id,
            "m": row.repaired or None,
        }
        used = [row.prompt_tokens, row.completion_tokens, row.cost_usd]
        own = {name: value for name, value in may_lack.items() if value is not None}
        return {"k": row.key, "s": row.status, "u": used} | own | {"g": row.group}

    made = [members(row) for row in rows]
    lengths = [len(text) for text in numbers]
    cap = next((c for c in CAPS if sum(min(n, c) for n in lengths) <= LIMIT), CAPS[-1])
    texts = [text[:cap] for text in numbers]
    for own, row in zip(made, rows, strict=True):
        shown = row.raw is not None and row.error and len(row.raw) <= cap
        span = locate_error(row.raw or "", row.error or "") if shown else None
        own["x"] = span and [utf16_length((row.raw or "")[:end]) for end in span]
    prompts = [own["p"] for own in made if own.get("p")]
    turns = min([own_turn, *map(len, prompts)]) if prompts else 0
    same = [
        prompts[0][i][1] if len({prompt[i][1] for prompt in prompts}) == 1 else None
        for i in range(turns)
    ]
    asked = sorted({texts[p[own_turn][1]] for p in prompts if len(p) > own_turn})
    start = ""
    if len(asked) > 1:
        while all(text.startswith(asked[0][: len(start) + 1]) for text in asked):
            if len(start) == len(asked[0]):
                break
            start = asked[0][: len(start) + 1]
        start = start[: max(start.rfind(" "), start.rfind("\n")) + 1]
    return {
        "job": "j",
        "rows": made,
        "texts": texts,
        "clipped": {i: length for i, length in enumerate(lengths) if length > cap},
        "images": list(images),
        "own": own_turn,
        "same": same,
        "shared": utf16_length(start) if len(start) >= 12 else 0,
    }


TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "</script><!--",
            "\u2028 \ud83d \x00",
            '{"parts": [{"size": "wide"}], "n": 1}',
            "__proto__",
            "x" * 85,
            "Which shelf has the red mug? ",
        ]
    ),
    st.text(max_size=30).map(lambda text: text * 20),
)
PROMPTS = st.lists(
    st.tuples(st.sampled_from(["system", "user"]), st.one_of(st.just("You sort goods."), TEXTS)),
    max_size=3,
).map(lambda messages: Prompt(tuple(messages)))
OWN = TEXTS.map(lambda text: Prompt((("system", "Sort."), ("user", f"The goods in stock: {text}"))))
ROWS = st.builds(
    Row,
    key=st.sampled_from(["a", "constructor", "<b>"]),
    status=st.sampled_from(["ok", "malformed"]),
    values=st.none()
    | st.tuples(
        st.sampled_from([None, 1, 2**60, float("inf"), True]), st.none() | TEXTS, st.none() | TEXTS
    ),
    error=st.none() | st.sampled_from(["$.parts[0].size: not a number", "</script>"]),
    group=st.none() | st.integers(0, 3),
    raw=st.none() | TEXTS,
    prompt=st.none() | PROMPTS | OWN,
    images=st.lists(st.sampled_from([("url", "http://a/<b>"), ("note", "")]), max_size=2).map(
        tuple
    ),
    history=st.sampled_from([(), ({"attempt": 1, "status": "failed", "error": "\u2029"},)]),
    score=st.none() | st.just(0.25),
    verdicts=st.sampled_from([(), ("wrong:Ada, Kitchen",)]),
    repaired=st.booleans(),
)


@given(rows=st.lists(ROWS, max_size=8), own_turn=st.integers(0, 2))
def test_rows_in_pieces_are_the_rows_all_at_once(rows: list[Row], own_turn: int) -> None:
    """A page that never holds its texts whole is the one that does, byte for byte (promise 8)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_rows, "_CAPS", CAPS)
        patch.setattr(page_rows, "_MAX_CHARACTERS", LIMIT)
        pieces = list(PageRows(COLUMNS, own_turn, iter(rows)).pieces({"job": "j"}))

    assert "".join(pieces) == script_json(at_once(COLUMNS, own_turn, rows))
    json.loads("".join(pieces))


def test_no_more_than_a_page_of_texts_is_held() -> None:
    """However long the answers are, they are cut while they come, not afterwards (promise 8)."""
    rows = (Row(f"{n}", "malformed", raw=f"{n} " + "x" * 200_000) for n in range(2_000))
    held = PageRows([], 0, rows)._texts  # what is in memory has no other witness
    assert sum(map(len, held.texts)) <= 40_000_000
    assert len(held.texts) == 2_000
    assert held.clipped()[0] == 200_002

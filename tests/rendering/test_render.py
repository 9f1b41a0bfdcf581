"""Rows to text: plain Jinja2's results, with a null policy, a sandbox, and helpful errors."""

from __future__ import annotations

import io
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from draws import examples
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from frameenrich.cells import cell_values
from frameenrich.errors import InputError, NullValueError, TemplateError
from frameenrich.identity.keys import BLOCK_ROWS
from frameenrich.model import Message, OnNull
from frameenrich.rendering.column_cells import plain_cell
from frameenrich.rendering.prompt import CHUNK_CHARACTERS, CHUNK_ROWS, Prompt, Rendered
from frameenrich.rendering.template_source import read_template

FEW = examples(30)

ROW: dict[str, Any] = {
    "title": "Bob's “Deluxe” <mug>",
    "price": 12.5,
    "n": 3,
    "on": True,
    "tags": ["red", "blue", "red"],
    "specs": {"width": 10, "height": {"cm": 4}},
    "Name with spaces": "spaced",
    "ünï": "日本語 😀",
    "empty": "",
    "html": "a & b <c>",
    "lines": "one\ntwo\r\nthree",
    "range": "a column called range",
}


def prompt(
    template: str, on_null: OnNull = "raise", sources: dict[str, str] | None = None
) -> Prompt:
    """Return the prompt of one user message."""
    return Prompt((Message("user", template),), on_null, sources)


def render_all(wanted: Prompt, frame: pd.DataFrame) -> list[Rendered | None]:
    """Return every row's messages."""
    return [row for chunk in wanted.render(frame) for row in chunk]


def texts(template: str, frame: pd.DataFrame, on_null: OnNull = "raise") -> list[str | None]:
    """Return what each row renders to."""
    rendered = render_all(prompt(template, on_null), frame)
    return [None if row is None else row[0] for row in rendered]


def one_row(**values: Any) -> pd.DataFrame:
    """Return a frame of one row whose cells are these very objects."""
    return pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in values.items()})


TEMPLATES = [
    "{{ title }}",
    "no variable at all",
    "{{ title }} costs {{ price }}, {{ n }} left, {{ on }}",
    "{{ title|upper }} {{ title|lower }} {{ title|title }} {{ title|capitalize }}",
    "{{ title|truncate(8) }}|{{ title|wordwrap(5) }}|{{ title|center(40) }}",
    "{{ title|replace('mug', 'cup') }} {{ title|replace('b', 'x', 1) }}",
    "{{ html|e }} {{ html|escape }} {{ html|forceescape }} {{ html|safe }} {{ html|striptags }}",
    "{{ title|urlencode }} {{ 'see https://a.example now'|urlize }}",
    "{{ lines|indent(4) }} {{ lines|wordcount }} {{ lines|trim }} {{ '  x '|trim }}",
    "{{ tags|join(', ') }} {{ tags|join }} {{ tags|unique|join('-') }}",
    "{{ [specs]|join(', ', attribute='width') }} {{ [specs]|join(', ', 'width') }}",
    "{{ tags|first }} {{ tags|last }} {{ tags|length }}",
    "{{ tags|sort|join }} {{ tags|reverse|list }} {{ title|reverse }}",
    "{{ tags|map('upper')|join(' ') }} {{ tags|select('equalto', 'red')|list }}",
    "{{ tags|groupby('0') }} {{ tags|batch(2)|list }} {{ tags|slice(2)|list }}",
    "{{ price|round(1) }} {{ price|int }} {{ n|float }} {{ n|abs }} {{ '7'|int + n }}",
    "{{ '%.2f' % price }} {{ '%s and %s' % (title, n) }} {{ '%.1f|%s'|format(price, title) }}",
    "{{ '{} {x}'.format(title, x=n) }} {{ '%(a)s' % {'a': title} }} {{ 7 % n }} {{ n % 2 }}",
    "{{ specs|tojson }} {{ specs|dictsort }} {{ specs|items|list }} {{ specs.height.cm }}",
    "{{ specs['width'] }} {{ specs.get('depth', 1) }} {{ specs.keys()|list }}",
    "{{ n + 1 }} {{ n * price }} {{ n // 2 }} {{ n / 2 }} {{ n ** 2 }} {{ -n }}",
    "{{ title ~ ' / ' ~ n ~ price }} {{ n ~ 1 }} {{ 'a' ~ 'b' }}",
    "{{ n > 2 and n < 5 }} {{ n in [1, 3] }} {{ 'red' in tags }} {{ not on }}",
    "{{ empty or 'unknown' }} {{ empty|default('d', true) }} {{ empty|default('d') }}",
    "{{ absent|default('none there') }} {{ absent is defined }} {{ n is defined }}",
    "{% if on %}yes{% else %}no{% endif %} {% if empty %}x{% elif n == 3 %}three{% endif %}",
    "{{ 'many' if n > 1 else 'one' }} {{ 'x' if not on }}",
    "{% for tag in tags %}{{ loop.index }} {{ tag }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for tag in tags if tag != 'red' %}{{ tag }}{% else %}none{% endfor %}",
    "{% for k, v in specs.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for x in [] %}{% else %}e{% endfor %}",
    "{% for tag in tags recursive %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% set x = n * 2 %}{{ x }} {% set y %}<{{ title }}>{% endset %}{{ y }}",
    "{% set ns = namespace(t=0) %}{% for i in [1] %}{% set ns.t = 7 %}{% endfor %}{{ ns.t }}",
    "{% macro item(x, y=1) %}[{{ x }}:{{ y }}]{% endmacro %}{{ item(title) }}{{ item(n, y=2) }}",
    "{% macro m() %}{{ caller(9) }}{{ varargs }}{% endmacro %}{% call(z) m(1) %}z{% endcall %}",
    "{% with a = title %}{{ a }}{% endwith %} {% filter upper %}{{ title }}{% endfilter %}",
    "{% block b %}{{ title }}{% endblock %} {{ self.b() }}",
    "  {%- if on -%}  tight  {%- endif -%}  \n{{- n }}\n\n  {{ n -}}  \nend",
    "first\n{% if on %}\nsecond\n{% endif %}\nlast\n",
    "a\r\nb\rc\n\n",
    "{# a comment #}{{ n }}{# {{ not run }} #}",
    "{% raw %}{{ not a variable }} {% if %}{% endraw %} {{ '{{ title }}' }}",
    r"{{ 'quote \' and \\ and \n newline' }} \{{ n }} $ % {} {{ '}}' }}",
    "{{ ünï }} 日本語 😀 \u2028 \u00a0 {{ ünï|length }} {{ ünï[::-1] }}",
    "{{ range }}",
    "{{ dict(a=n) }} {{ [1, 2, 3][1:] }} {{ (1, 'a') }} {{ 'abc'[1] }} {{ tags[-1] }}",
    "{{ title.upper() }} {{ title.split(' ')[0] }} {{ title.startswith('Bob') }}",
    "{{ 1e3 }} {{ 0.1 + 0.2 }} {{ true }} {{ 'a' 'b' }} {{ 10_000 }}",
    "{{ title|trim }} {{ '--x-'|trim('-') }} {{ '-x'|trim(chars='-') }} {{ n|upper }}{{ n|trim }}",
    "{{ title|upper|lower|capitalize }} {{ [1]|string }} {{ title|string|e|upper }}",
    "{{ (html|e) ~ html }} {{ html|e ~ n }} {{ (title ~ n) ~ (n ~ price) ~ ('a' ~ on) }}",
    "{% set a = title ~ n %}{{ a ~ a }} {{ (title ~ n)|length }} {{ n ~ n == '33' }}",
    "{% set value = n %}{% set printed = title %}{% set concat = 1 %}{{ value }}{{ printed }}",
    "{% macro m(value) %}{{ value }}{{ value ~ title }}{% endmacro %}{{ m(n) ~ m(title) }}",
    "{% set x %}{{ n }}{% set y %}{{ n ~ title }}{% endset %}{{ y }}{% endset %}{{ x }}{{ x|e }}",
    "{% set x | upper %}{{ title }}{{ n }}{% endset %}{{ x }}",
    "{% for t in tags recursive %}{{ t ~ loop.index }}{{ loop(t[:0]) }}{% endfor %}",
    "{% macro m() %}[{{ caller() ~ n }}]{% endmacro %}{% call m() %}{{ price }}{% endcall %}",
    "{% filter replace('a', 'b') %}{{ n }}{{ title ~ price }}{% endfilter %}",
    "{{ 1 if n else 2 }}{{ (n, title) }}{{ [price] }}{{ specs }}{{ 10 ** 30 }}{{ n == 3 }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_renders_as_in_plain_jinja(template: str) -> None:
    """What people know of Jinja2 holds: the same text, to the last blank."""
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    expected = plain.from_string(template).render(ROW)

    assert [expected] == texts(template, one_row(**ROW))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{ row["Name with spaces"] }}', "spaced"),
        ("{{ row['n'] }} {{ row.title|length }}", "3 20"),
        ("{{ row[7 * '' or 'n'] }}", "3"),
        ("{% for k in row %}{{ k[0] }}{% endfor %}", "tpnotsNüehlr"),
        (
            "{{ row.values()|list|length }} {{ 'n' in row }} {{ row.get('absent', '-') }}",
            "12 True -",
        ),
        ("{% macro m(r) %}{{ r['n'] }}{% endmacro %}{{ m(row) }}", "3"),
    ],
)
def test_row_is_the_whole_row(template: str, expected: str) -> None:
    """Columns whose names are no identifiers are taken from ``row``."""
    assert [expected] == texts(template, one_row(**ROW))


def test_a_column_called_row_is_that_column() -> None:
    """The frame's own names come first."""
    assert texts("{{ row }}", one_row(row="seven")) == ["seven"]


def test_columns_may_have_names_that_are_no_texts() -> None:
    """A header of numbers works through ``row``."""
    assert texts("{{ row[0] }}-{{ row[1] }}", pd.DataFrame([["a", "b"]])) == ["a-b"]


@FEW
@given(st.lists(st.text() | st.just("{{ 7 * 7 }}{% for"), min_size=1, max_size=5))
def test_row_data_is_never_a_template(cells: list[str]) -> None:
    """Whatever a cell holds is printed, not evaluated."""
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object)})

    assert [f"<{cell}>" for cell in cells] == texts("<{{ x }}>", frame)


@pytest.mark.parametrize("rows", [1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS])
def test_chunks_keep_every_row_in_order(rows: int) -> None:
    """However many rows, each renders once, in chunks of bounded size."""
    frame = pd.DataFrame({"n": range(rows)})

    chunks = list(prompt("{{ n }}").render(frame))

    assert [(str(n),) for n in range(rows)] == [row for chunk in chunks for row in chunk]
    assert max(map(len, chunks)) <= CHUNK_ROWS


@pytest.mark.parametrize("period", [2, 3, 4, 7, 8, 64])
@pytest.mark.parametrize("kind", [str, bytes])
def test_long_cells_that_come_at_every_so_many_rows_are_seen(period: int, kind: type) -> None:
    """Memory is flat whatever the order of the rows: no stride of a sample passes them over."""
    long, short = CHUNK_CHARACTERS // 8, 10
    lengths = [long if n % period == 1 else short for n in range(4096)]
    cells = {n: kind(n * "x", *["ascii"] * (kind is bytes)) for n in (long, short)}
    frame = pd.DataFrame({"c": pd.Series([cells[n] for n in lengths], dtype=object)})

    chunks = (
        list(prompt("{{ c[:3] }}").render(frame))
        if kind is str
        else list(prompt("{{ c[:3].decode() }}").render(frame))
    )

    sizes, at = [], 0
    for chunk in chunks:
        sizes.append(sum(lengths[at : at + len(chunk)]))
        at += len(chunk)
    assert at == len(frame)
    # The first chunk is of 64 rows, before any length is known.
    assert max(sizes[1:]) <= 2 * CHUNK_CHARACTERS


def test_short_texts_among_long_ones_do_not_bring_all_rows() -> None:
    """A few short rows say little of those to come: chunks grow by steps."""
    lengths = [10, 10, *[CHUNK_CHARACTERS // 4] * 30] * 40
    rendered = prompt("{{ 'x' * n }}").render(pd.DataFrame({"n": lengths}))

    chunks = [sum(len(row[0]) for row in chunk if row is not None) for chunk in rendered]

    assert max(chunks[1:]) <= 4 * CHUNK_CHARACTERS


def test_long_texts_come_a_few_at_a_time() -> None:
    """Memory is flat: rows of a megabyte are not held by the thousand, short ones are together."""
    lengths = [10] * 100 + [CHUNK_CHARACTERS // 8] * 200 + [10] * 3000
    frame = pd.DataFrame({"n": lengths})

    rendered = prompt("{{ 'x' * n }}").render(frame)
    chunks = [[len(row[0]) for row in chunk if row is not None] for chunk in rendered]

    assert [n for chunk in chunks for n in chunk] == lengths
    # A chunk is as large as the one before allows, and the next one knows better.
    assert sum(sum(chunk) > 2 * CHUNK_CHARACTERS for chunk in chunks) <= 1
    assert max(map(len, chunks)) == CHUNK_ROWS
    # Keys are read a block at a time, and the writer wants each chunk within one of them.
    assert BLOCK_ROWS % CHUNK_ROWS == 0
    ends = list(accumulate(map(len, chunks)))
    starts = [0, *ends[:-1]]
    assert [a // CHUNK_ROWS for a in starts] == [(b - 1) // CHUNK_ROWS for b in ends]


def test_every_message_is_rendered() -> None:
    """System and user templates see the same row."""
    wanted = Prompt((Message("system", "for {{ a }}"), Message("user", "{{ a }}{{ b }}")))

    assert render_all(wanted, one_row(a=1, b=2)) == [("for 1", "12")]


class Loud(str):
    """A text that is printed as another."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper() + "!"


class Posing:
    """Says that it is a `str`, and is none."""

    def __str__(self) -> str:
        return "posing"

    @property  # type: ignore[misc]  # which is the trick
    def __class__(self) -> Any:
        return str


PARTS = st.sampled_from(
    [
        "{{ x }}", "{{ y }}", "{{ x ~ y }}", "{{ x ~ ' ' ~ y ~ 1 }}", "{{ x|string }}", "text",
        "{{ x|upper }}", "{{ y|lower }}", "{{ x|trim }}", "{{ y|capitalize }}", "{{ y|e }}",
        "{{ [x, y]|join('-') }}", "{{ x|default('d', true) }}", "{{ (x, y) }}",
        "{% if x %}{{ x }}{% else %}{{ y }}{% endif %}", "{{ x if y else y }}", "{{ x == y }}",
        "{% set x = y %}", "{% set y %}{{ x }}{{ y }}{% endset %}", "{% set z = x ~ y %}{{ z }}",
        "{% for x in [y, x] %}{{ x }}{% endfor %}", "{% filter upper %}{{ x }}{% endfilter %}",
        "{% macro m(x) %}{{ x ~ y }}{% endmacro %}{{ m(y) }}{{ m(x) ~ x }}",
        "{% macro c() %}{{ caller() }}{% endmacro %}{% call c() %}{{ y ~ x }}{% endcall %}",
        "{% with x = y %}{{ x }}{% endwith %}", "{% import 'part' as p %}{{ p.z ~ p.m(x) }}",
    ]
)  # fmt: skip
PRINTED_VALUES = st.sampled_from(
    ["", "a b", "É<b>", " x ", 0, -7, True, 1.5, -0.0, 1e300, 2**70, [1, "a"], {"k": 1.0}, (),
     Loud("loud"), Posing(), Markup("<i>"), np.str_("s"), np.float64(2.5), np.int8(3)]
)  # fmt: skip


def text_or_none(template: jinja2.Template, row: dict[str, Any]) -> Rendered | None:
    """Return what a row renders to, None where that fails."""
    try:
        return (template.render(row),)
    except Exception:  # noqa: BLE001 - whatever a template may do
        return None


@examples(50)
@given(st.lists(PARTS, min_size=1, max_size=6).map("".join), st.lists(PRINTED_VALUES, min_size=6))
def test_the_loop_over_rows_renders_as_plain_jinja_does(template: str, cells: list[Any]) -> None:
    """Whatever is put together, and whatever is printed: the fast way is no other way.

    Where Jinja fails, as on a `set` block that prints the column it is named after, it may do more.
    """
    frame = pd.DataFrame(
        {"x": pd.Series(cells, dtype=object), "y": pd.Series(cells[::-1], dtype=object)}
    )
    sources = {"part": "{% set z = 2 ~ 'a' %}{% macro m(y) %}{{ y }}{{ z ~ y }}{% endmacro %}"}
    plain = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, loader=jinja2.DictLoader(sources)
    )
    printed = [*map(plain_cell, cells)]  # promise 15: a column's 3.0 is 3
    rows = [dict(zip("xy", row, strict=True)) for row in zip(printed, printed[::-1], strict=True)]
    wanted = prompt(template, "raise", sources)

    assert wanted.why_slow(["x", "y"]) is None
    expected = [text_or_none(plain.from_string(template), row) for row in rows]
    found = [row for chunk in wanted.render(frame, lenient=True) for row in chunk]
    assert expected == [e and row for e, row in zip(expected, found, strict=True)]


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([1.5, np.nan]), [1.5, None]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([True, None], dtype="boolean"), [True, None]),
        (pd.Series(["a", None], dtype="string"), ["a", None]),
        (pd.Series(["a", None, np.nan, pd.NA, pd.NaT], dtype=object), ["a", *[None] * 4]),
        (pd.Series(pd.Categorical(["a", None])), ["a", None]),
        (pd.Series(pd.DatetimeIndex(["2024-01-01", "NaT"])), [pd.Timestamp("2024-01-01"), None]),
        (pd.Series([[None, "a"], {"b": None}], dtype=object), [[None, "a"], {"b": None}]),
        (pd.Series([], dtype=object), []),
    ],
)
def test_cells_are_plain_values_and_nulls_are_none(
    column: pd.Series[Any], expected: list[Any]
) -> None:
    """A template never meets NaN, NA or NaT, only None."""
    assert expected == cell_values(column)


@pytest.mark.parametrize("null", [None, np.nan, pd.NA, pd.NaT])
def test_a_null_is_falsy_and_never_the_text_nan(null: Any) -> None:
    """``or``, ``if`` and ``is none`` work with every kind of null."""
    template = "{{ x or 'unknown' }} {% if x %}y{% else %}n{% endif %} {{ x is none }}"

    assert texts(template, one_row(x=null)) == ["unknown n True"]


# Templates that print the null column `brand`, and what on_null="empty" makes of them.
PRINTED = {
    "{{ brand }}": "",
    "<{{ brand }}>": "<>",
    "{{ row['brand'] }}": "",
    "{{ row.brand }}": "",
    "{{ brand ~ title }}": "mug",
    "{{ 'by ' ~ brand }}": "by ",
    "{{ brand|default('x') }}": "",
    "{{ brand|upper }}": "",
    "{{ brand|trim or 'unknown' }}": "unknown",
    "{{ brand|string|length }}": "0",
    "{{ brand|e }}": "",
    "{{ brand|truncate(5) }}": "",
    "{{ brand|replace('a', 'b') }}": "",
    "{{ title|replace('mug', brand) }}": "",
    "{{ '%s!'|format(brand) }}": "!",
    "{{ '%s!' % brand }}": "!",
    "{{ '%s %s' % (title, brand) }}": "mug ",
    "{{ '{}!'.format(brand) }}": "!",
    "{{ '{b}!'.format(b=brand) }}": "!",
    "{{ [title, brand]|join('-') }}": "mug-",
    "{{ brand|join('-') }}": "",
    "{{ [title, title]|join(brand) }}": "mugmug",
    "{{ [title, brand]|map('upper')|join }}": "MUG",
    "{% for b in [brand] %}{{ b }}{% endfor %}": "",
    "{% set b = brand %}{{ b }}": "",
    "{% macro m(b) %}[{{ b }}]{% endmacro %}{{ m(brand) }}": "[]",
    "{% filter upper %}{{ brand }}!{% endfilter %}": "!",
    "{{ brand if true else title }}": "",
    "{% include 'part' %}": "by mug",
}


@pytest.mark.parametrize("template", PRINTED)
def test_a_null_that_would_be_printed_follows_the_policy(template: str) -> None:
    """Through every way of printing: refused, left empty, or the row is skipped."""
    frame = one_row(title="mug", brand=None)
    sources = {"part": "{{ 'by ' ~ brand ~ title }}"}

    with pytest.raises(NullValueError):
        render_all(prompt(template, "raise", sources), frame)
    assert [(PRINTED[template],)] == render_all(prompt(template, "empty", sources), frame)
    assert render_all(prompt(template, "skip", sources), frame) == [None]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ brand or 'unknown' }}", "unknown"),
        ("{{ brand|default('unknown', true) }}", "unknown"),
        ("{% if brand %}{{ brand }}{% endif %}mug", "mug"),
        ("{{ brand is none }} {{ brand == 'x' }}", "True False"),
        ("{{ [brand, 'x']|select|join }}", "x"),
        ("{{ {'b': brand}|tojson }}", '{"b": null}'),
        ("{{ [brand, 'x']|length }}", "2"),
    ],
)
@pytest.mark.parametrize("on_null", ["raise", "empty", "skip"])
def test_a_null_that_is_not_printed_is_the_templates_business(
    template: str, expected: str, on_null: OnNull
) -> None:
    """A template that takes care of nulls renders under every policy."""
    assert [expected] == texts(template, one_row(brand=None), on_null)


def test_only_the_rows_with_a_null_are_skipped() -> None:
    """The others keep their places."""
    frame = pd.DataFrame({"brand": ["a", None, "c"], "unused": [None, None, None]})

    assert texts("{{ brand }}", frame, "skip") == ["a", None, "c"]


def test_a_printed_null_is_named() -> None:
    """The error names the row and the column, and how to go on."""
    frame = pd.DataFrame({"title": ["a", "b"], "brand": ["x", np.nan], "other": [None, None]})

    with pytest.raises(NullValueError) as caught:
        texts("{{ title }} by {{ brand }}", frame)

    assert str(caught.value) == (
        "The row at position 1 would print a null: column 'brand' is empty there. "
        "Write {{ column or 'unknown' }} in the template, or pass on_null='empty' or 'skip'."
    )
    assert {"position": 1, "columns": ["brand"]}.items() <= vars(caught.value).items()


@pytest.mark.parametrize(
    ("template", "frame", "where"),
    [
        ("{{ a }}{{ b }}", one_row(a=None, b=None), "one of the columns ['a', 'b'] is empty"),
        ("{{ row[0] }}", pd.DataFrame([[None]]), "column 0 is empty"),
        ("{{ d.x }}", one_row(d={"x": None}), "something that the template makes of it is empty"),
    ],
)
def test_a_printed_null_is_named_as_well_as_can_be(
    template: str, frame: pd.DataFrame, where: str
) -> None:
    """Several empty columns, a numbered one, or a null inside a cell."""
    with pytest.raises(NullValueError, match=re.escape(where)):
        texts(template, frame)


# --- whole numbers (promise 15) -----------------------------------------------------------------

AS_WRITTEN = (
    "{{ n }} {{ n ~ '' }} {{ '%s' % n }} {{ n|round(1) }} {{ n * 2 }} {{ n / 2 }} {{ [n] }}"
)


@given(
    numbers=st.lists(st.one_of(st.none(), st.integers(-(2**52), 2**52)), min_size=1, max_size=8),
    template=st.sampled_from(
        ["{{ n or '-' }}", "{% if n is not none %}" + AS_WRITTEN + "{% endif %}"]
    ),
)
@FEW
def test_a_plain_cell_prints_as_one_in_every_dtype(numbers: list[Any], template: str) -> None:
    """A null elsewhere makes a column float; CSV and Parquet change dtypes: no prompt changes."""
    series = pd.Series(numbers, dtype="Int64")
    frame = pd.DataFrame({"n": series})
    expected = texts(template, frame)
    whole = series.dropna()

    dtypes: list[Any] = [
        "float64", "Float64", "Int64", "int64[pyarrow]", "double[pyarrow]", "object",
    ]  # fmt: skip
    for dtype in dtypes:
        assert texts(template, pd.DataFrame({"n": series.astype(dtype)})) == expected, dtype
    back = pd.read_csv(io.StringIO(frame.to_csv()), index_col=0)
    assert texts(template, back.astype("float64")) == expected
    file = io.BytesIO()
    frame.astype("float64").to_parquet(file)
    assert texts(template, pd.read_parquet(file)) == expected
    assert texts(template, pd.DataFrame({"n": whole.astype("int64")})) == [
        text for text, n in zip(expected, numbers, strict=True) if n is not None
    ]


@pytest.mark.parametrize("dtype", ["float32", "Float32", "float[pyarrow]", "float64"])
def test_a_fraction_prints_as_people_wrote_it(dtype: Any) -> None:
    """A float32 3.3 is 3.3, and NaN is a null in a pyarrow column, too."""
    cells = pd.Series([3.3, 0.1, -2.0, float("nan")], dtype="float64").astype(dtype)

    assert texts("{{ n or '-' }}", pd.DataFrame({"n": cells})) == ["3.3", "0.1", "-2", "-"]


def test_a_nan_in_a_pyarrow_column_is_a_null() -> None:
    """Pandas makes no null of it; a prompt that says nan is never meant."""
    cells = pd.Series(pd.arrays.ArrowExtensionArray(pa.array([1.5, float("nan")])))

    with pytest.raises(NullValueError, match="position 1"):
        texts("{{ n }}", pd.DataFrame({"n": cells}))


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "fix"),
    [
        ("Colour of {title}?", "'{title}' is sent as it stands. Did you mean {{ title }}?"),
        ("Colour of %(title)s?", "'%(title)s' is sent as it stands. Did you mean {{ title }}?"),
        ("Colour of ${ title }?", "Did you mean {{ title }}?"),
        (
            "Colour of {title!r:>10}?",
            "'{title!r:>10}' is sent as it stands. Did you mean {{ title }}?",
        ),
        ("Colour of {title:,.2f}?", "Did you mean {{ title }}?"),
        ("Colour of {title=}?", "Did you mean {{ title }}?"),
        ("Colour of {row['title']}?", "Did you mean {{ title }}?"),
        ("Colour of {row.title}?", "Did you mean {{ title }}?"),
        ("Colour of [[title]]?", "'[[title]]' is sent as it stands. Did you mean {{ title }}?"),
        ("Colour of [title]?", "Did you mean {{ title }}?"),
        ("Colour of $title?", "Did you mean {{ title }}?"),
        ("Colour of <title>?", "Did you mean {{ title }}?"),
        ("What is {a name}?", "Did you mean {{ row['a name'] }}?"),
        ("Colour of {x}?", "Write a column as {{ title }}. The columns are 'title', 'a name'."),
        ("Which colour?", "The template uses no column of the frame, so every row"),
    ],
)
def test_a_template_without_a_column_is_refused_and_mended(template: str, fix: str) -> None:
    """Promise 10: fifty thousand rows do not ask the same; another language's form is named."""
    frame = pd.DataFrame({"title": ["a", "b"], "a name": ["c", "d"]})
    for verb in (frame.llmbatch.submit, frame.llmbatch.preview, frame.llmbatch.estimate):
        with pytest.raises(TemplateError, match=re.escape(fix)):
            verb(template, "gpt-4o-mini", provider="file")

    assert frame.iloc[:1].llmbatch.preview(template, "gpt-4o-mini").requests


@pytest.mark.parametrize("name", ["ask.j2", "prompts/ask.txt", "ask.jinja2"])
def test_the_name_of_a_file_that_is_not_there_is_no_prompt(name: str) -> None:
    """Else a typing error in a path is what every row asks."""
    with pytest.raises(TemplateError, match="looks like the name of a file, which is not there"):
        read_template(name, None)


def test_a_frame_without_columns_is_said_to_have_none() -> None:
    """Not "The columns are ;"."""
    with pytest.raises(TemplateError) as caught:
        pd.DataFrame(index=[1]).llmbatch.preview("{{ title }}", "m")

    assert caught.value.fix == "The frame has no columns."


BROKEN = {
    "unclosed variable": ("one\n{{ n", r"user template does not compile, line 2: '\{\{ n'"),
    "unclosed block": ("{% if n %}\nx\n", "does not compile, line 1: .*Unexpected end"),
    "unknown tag": ("\n\n{% fi %}", "line 3.*unknown tag 'fi'"),
    "unknown filter": ("\n{{ n|loud }}", "line 2.*No filter named 'loud'"),
    "unknown test": ("{{ n is loud }}", "line 1.*No test named 'loud'"),
    "not there: random": ("{{ [1, 2]|random }}", "No filter named 'random'"),
    "not there: lipsum": ("{{ lipsum() }}", "uses 'lipsum', which is not a column"),
    "missing column": ("{{ titel }}", "'titel', which is not a column.*Did you mean 'title'"),
    "missing item": ("{{ row['Titel'] }}", "'Titel', which is not a column.*mean 'title'"),
    "missing in a branch": ("{% if false %}{{ x1 }}{% endif %}", "'x1', which is not a column"),
    "nothing like it": ("{{ zzz }}", r"not a column of the frame\. The columns are 'title', 'n'"),
    "missing include": ("{% include 'no.j2' %}", "takes in another one, 'no.j2'"),
    "division by zero": ("{{ 1 / (n - 3) }}", "fails on the row at position 0: ZeroDivisionError"),
    "wrong types": ("{{ n + title }}", "position 0: TypeError"),
    "no such attribute": ("{{ title.nothing }}", "position 0: UndefinedError.*'nothing'"),
    "no such column": ("{{ row.titel }}", r"'titel'. Did you mean 'title'\? Correct"),
    "no such key": ("{{ specs.depth }}", "position 0: UndefinedError.*'depth'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_template_that_cannot_render_is_explained(case: str) -> None:
    """The error names the line, column or row, and says what to do."""
    template, message = BROKEN[case]
    frame = one_row(title="a", n=3, specs={"width": 1})

    with pytest.raises(TemplateError, match=message) as caught:
        texts(template, frame)

    assert caught.value.fix.endswith(".")


def test_a_lenient_rendering_leaves_out_what_fails() -> None:
    """Comparing a frame with a job never raises for a row that has changed."""
    rows = [
        r
        for c in prompt("{{ 6 // n }}").render(pd.DataFrame({"n": [2, 0]}), lenient=True)
        for r in c
    ]

    assert rows == [("3",), None]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x['__class__'] }}",
        "{{ x|attr('__class__') }}",
        "{{ ''['__cl' ~ 'ass__'] }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ '{a.__class__}'.format(a=x) }}",
        "{{ '{a.__class__}'.format_map({'a': x}) }}",
        "{{ range(10000000)|list }}",
    ],
)
def test_the_sandbox_refuses_what_is_no_formatting(template: str) -> None:
    """A template from elsewhere cannot reach Python's insides."""
    with pytest.raises(TemplateError, match=r"SecurityError|OverflowError"):
        texts(template, one_row(x="a"))


def test_a_repeated_column_is_refused_where_it_is_used() -> None:
    """Only the template's own columns have to be distinct."""
    frame = pd.DataFrame([["a", "b", "c"]], columns=["x", "x", "y"])

    assert texts("{{ y }}", frame) == ["c"]
    with pytest.raises(InputError, match="more than one column called 'x'"):
        texts("{{ x }}", frame)


def test_only_the_columns_in_use_are_read() -> None:
    """A wide frame costs what its template prints; a computed ``row[...]`` needs them all."""
    columns = ["a", "b", "c d", "e"]

    assert prompt("{{ e }}{{ b }}").columns_used(columns) == ["b", "e"]
    assert prompt("{{ row['c d'] }}{{ a }}").columns_used(columns) == ["a", "c d"]
    assert prompt("{{ row[a] }}").columns_used(columns) == columns
    assert prompt("{{ row }}").columns_used(columns) == columns
    assert prompt("text").columns_used(columns) == []


# --- included files -------------------------------------------------------------------------------


def from_file(path: Path) -> Prompt:
    """Return the prompt of a template file."""
    messages, sources = read_template(path, None)
    return Prompt(messages, "raise", sources)


def write_files(folder: Path, files: dict[str, str]) -> Path:
    """Write templates and return the path of ``main.j2``."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "main.j2"


SAY = "{% macro say(w) %}{{ w }}!{% endmacro %}"


def test_an_include_without_context_stays_in_its_row() -> None:
    """Jinja has it yield on its own, which must not become the next row's text."""
    wanted = prompt("<{% include 'part' without context %}{{ x }}>", "raise", {"part": "a{{ 1 }}"})

    assert render_all(wanted, pd.DataFrame({"x": [7, 8]})) == [("<a17>",), ("<a18>",)]


@pytest.mark.parametrize(
    ("main", "others"),
    [
        ("{% include 'a.j2' %}!", {"a.j2": "{{ x }}"}),
        ("{% include 'sub/a.j2' %}", {"sub/a.j2": "{% include 'b.j2' %}", "b.j2": "{{ x }}!"}),
        ("{% import 'm.j2' as m %}{{ m.say(x) }}", {"m.j2": SAY}),
        ("{% from 'm.j2' import say %}{{ say(x) }}", {"m.j2": SAY}),
        (
            "{% extends 'base.j2' %}{% block b %}{{ x }}{% endblock %}",
            {"base.j2": "{% block b %}{% endblock %}!"},
        ),
        ("{% for i in [x] %}{% include 'a.j2' %}{% endfor %}!", {"a.j2": "{{ i }}"}),
        ("{% set y = x ~ '!' %}{% include 'a.j2' %}", {"a.j2": "{{ y }}"}),
    ],
)
def test_a_file_may_use_the_files_beside_it(
    main: str, others: dict[str, str], tmp_path: Path
) -> None:
    """Included, imported and extended templates travel with the job: the files may vanish."""
    files = {"main.j2": main, **others}
    wanted = from_file(write_files(tmp_path, files))
    for name in files:
        (tmp_path / name).unlink()

    assert render_all(wanted, one_row(x="é")) == [("é!",)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"main.j2": "{% include '../secret' %}"}, "'../secret', which lies outside"),
        ({"main.j2": "{% include '/etc/passwd' %}"}, "'/etc/passwd', which lies outside"),
        ({"main.j2": "{% include 'no.j2' %}"}, "no.j2 cannot be read: No such file"),
        ({"main.j2": "{% include x %}"}, "whose name is computed"),
        ({"main.j2": "{% include 'a.j2' %}", "a.j2": "{% import '../b' as b %}"}, "lies outside"),
        ({"main.j2": "{% include 'a.j2' %}", "a.j2": "\n{{ zz"}, r"a\.j2 does not compile, line 2"),
        ({"main.j2": "{% include 'a.j2' %}", "a.j2": "{{ zz }}"}, "'zz', which is not a column"),
    ],
)
def test_files_elsewhere_are_refused(files: dict[str, str], message: str, tmp_path: Path) -> None:
    """A template file reads nothing outside its folder; what is wrong in a part is said."""
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "folder"
    folder.mkdir()

    with pytest.raises(TemplateError, match=message):
        render_all(from_file(write_files(folder, files)), one_row(x="a"))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A symbolic link does not lead around the check."""
    (tmp_path / "secret").write_text("s")
    main = write_files(tmp_path / "folder", {"main.j2": "{% include 'link' %}"})
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(TemplateError, match=re.escape("lies outside")):
        from_file(main)

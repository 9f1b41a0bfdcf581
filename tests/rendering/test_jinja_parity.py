"""Templates render as Jinja renders them, whichever of its forms they use."""

from __future__ import annotations

from typing import Any

import jinja2
import pandas as pd
import pytest
from draws import examples
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from frameenrich.errors import TemplateError
from frameenrich.model import Message
from frameenrich.rendering.column_cells import number_texts
from frameenrich.rendering.prompt import Prompt

ROWS = [
    {"title": "a red mug", "n": 3, "tags": ["x", "y"], "gone": None},
    {"title": "<b>&", "n": 0, "tags": [], "gone": "here"},
    {"title": " two\nlines ", "n": -1, "tags": ["z"], "gone": None},
]
FRAME = pd.DataFrame(ROWS)
SOURCES = {
    "lib": "{% macro tag(x, sep='-') %}{{ sep }}{{ x }}{{ varargs|length }}{% endmacro %}"
    "{% macro twice() %}{{ caller(1) }}{{ caller(2) }}{% endmacro %}{% set answer = 42 %}",
    "shown": "({{ title }}{{ loop.index if loop is defined }})",
    "counted": "({{ loop.index }}{{ w }})",
    "base": "[{% block head %}{{ n }}{% endblock %}|{% for w in tags %}"
    "{% block item scoped %}{{ loop.index }}{{ w }}{% endblock %}{% endfor %}]",
}


def plain(source: str, row: dict[str, Any], **options: Any) -> str | None:
    """What Jinja itself makes of a template; None where it raises."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, loader=jinja2.DictLoader(SOURCES), **options
    )
    try:
        return environment.from_string(source).render({**row, "row": row})
    except (jinja2.TemplateError, TypeError):
        return None


def named_in(source: str) -> dict[str, str]:
    """The other templates that it names, as for a template file only those are read."""
    return {name: text for name, text in SOURCES.items() if f"'{name}'" in source}


def ours(source: str) -> list[str] | None:
    """What this package makes of it in every row; None where it refuses."""
    prompt = Prompt((Message("user", source),), sources=named_in(source))
    try:
        return [row[0] for chunk in prompt.render(FRAME) for row in chunk if row is not None]
    except TemplateError:
        return None


def check(source: str) -> None:
    """Compare every row, in the one loop over all of them, with Jinja's own rendering of it."""
    wanted = [plain(source, row) for row in ROWS]
    assert ours(source) == (None if None in wanted else wanted), source


FORMS = {
    "loop in a scoped block": "{% for w in tags %}{% block b scoped %}{{ loop.index }}{{ w }}"
    "{% endblock %}{% endfor %}{{ n }}",
    "loop in a block": "{% block b %}{% for w in tags %}{{ loop.last }}{% endfor %}{% endblock %}",
    "loop in a block that is not scoped": "{% for w in [1] %}{% block b %}{{ loop.index }}"
    "{% endblock %}{% endfor %}",
    "loop in an include": "{% for w in tags %}{% include 'counted' %}{{ loop.index0 }}"
    "{% endfor %}{{ n }}",
    "loop in a child's block": "{% extends 'base' %}{% block item %}{{ loop.revindex }}{{ w }}"
    "{{ super() }}{% endblock %}",
    "a child's head": "{% extends 'base' %}{% block head %}{{ title }}{{ super() }}{% endblock %}",
    "loop outside": "{% for w in tags %}{% endfor %}{{ loop.index }}{{ n }}",
    "two loops": "{% for w in tags %}{% set outer = loop %}{% for v in title %}{{ outer.index }}."
    "{{ loop.index0 }}{{ loop.cycle('a', 'b') }}{{ loop.changed(v) }}{% endfor %}{% endfor %}",
    "neighbours": "{% for w in title %}{{ loop.previtem is defined }}{{ loop.nextitem if not "
    "loop.last }}{{ loop.length }}{{ loop.depth }}{% endfor %}",
    "recursive": "{% for x in [['a', ['b', ['c']]], [title]] recursive %}{{ loop.depth0 }}{% if x "
    "is string %}{{ x }}{% else %}{{ loop(x) }}{% endif %}{% endfor %}",
    "for ... if ... else": "{% for w in tags if w != 'x' %}{{ w }}{% else %}-{% endfor %}{{ n }}",
    "unpacking": "{% for a, b in [(1, n), (2, title)] %}{{ a }}{{ b }}{% endfor %}",
    "a name set in a branch": "{% if n > 0 %}{% set x = n %}{% endif %}{{ x is defined }}",
    "a name set after its use": "{{ x is defined }}{% set x = n %}{{ x }}",
    "a column that a set hides": "{% if n > 0 %}{% set title = 'T' %}{% endif %}{{ title }}",
    "a column that a loop hides": "{% for title in tags %}{{ title }}{% endfor %}{{ title }}",
    "a set in a loop": "{% set x = 0 %}{% for w in tags %}{% set x = x + 1 %}{{ x }}{% endfor %}"
    "{{ x }}{{ n }}",
    "namespace": "{% set s = namespace(n=n, seen=[]) %}{% for w in title %}{% set s.n = s.n + 1 %}"
    "{% endfor %}{{ s.n }}",
    "a set block": "{% set x | upper %}{{ title }}{% endset %}{{ x }}{{ x | length }}",
    "a set of several": "{% set a, b = title, n %}{{ b }}{{ a }}",
    "a filter block": "{% filter upper | replace('A', 'e') %}{{ title }}{% endfilter %}",
    "with": "{% with x = n, y = x is defined %}{{ x }}{{ y }}{% endwith %}{{ x is defined }}",
    "a macro": "{% macro m(a, b=n) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}"
    "{{ m(title) }}{{ m(1, 2, 3, c=4) }}{{ m.name }}{{ m.arguments }}",
    "a macro with a column's name": "{% macro m(title) %}{{ title }}{% endmacro %}{{ m(n) }}"
    "{{ title }}",
    "a recursive macro": "{% macro m(k) %}{{ k }}{% if k > 0 %}{{ m(k - 1) }}{% endif %}"
    "{% endmacro %}{{ m(n) }}",
    "a call block": "{% macro m() %}{{ caller(n) }}{{ caller is defined }}{% endmacro %}"
    "{% call(x) m() %}{{ x }}{{ title }}{% endcall %}{{ m.caller }}",
    "import": "{% import 'lib' as lib %}{{ lib.tag(title) }}{{ lib.answer }}",
    "import with context": "{% import 'lib' as lib with context %}{{ lib.tag(title, n, 1, 2) }}",
    "from import": "{% from 'lib' import tag as t, answer %}{{ t(title, sep='+') }}{{ answer }}",
    "call of an import": "{% from 'lib' import twice %}{% call(x) twice() %}{{ x }}{{ n }}"
    "{% endcall %}",
    "import in a loop": "{% for w in tags %}{% from 'lib' import tag %}{{ tag(w, loop.index) }}"
    "{% endfor %}{{ n }}",
    "include without context": "{% include 'lib' without context %}{{ n }}",
    "include of none": "{% include 'nowhere' ignore missing %}{% include ['no', 'shown'] %}",
    "self": "{{ self.b() }}{% block b %}{{ title }}{% endblock %}{{ self.b() | upper }}",
    "raw": "{% raw %}{{ title }} {% if %}{% endraw %}{{ title }}{# {{ nothing }} #}",
    "whitespace": "  {%- if n > 0 -%}  {{- title -}}  {%+ else %}\n  no \n{% endif -%}\n\n x\n",
    "a last line's end": "{{ title }}\n",
    "two last lines": "{{ title }}\n\n",
    "carriage returns": "{{ title }}\r\nand\r{{ n }}\r\n",
    "a macro in a block": "{% macro m(a) %}{{ a }}{% endmacro %}{% from 'lib' import tag as t %}"
    "{% import 'lib' as lib %}{% block b %}{{ m(n) }}{{ t(1) }}{{ lib.answer }}{% endblock %}",
    "tests": "{{ n is even }}{{ title is string }}{{ tags is sequence }}{{ n is in [3] }}"
    "{{ title is sameas title }}{{ n is divisibleby 3 }}{{ gone is none }}",
    "filters": "{{ tags | join('; ') }}{{ title | title | wordcount }}{{ tags | map('upper') | list"
    " }}{{ tags | batch(2) | list }}{{ n | string ~ title | length }}{{ tags | first | default('-')"
    " }}{{ title | tojson }}{{ title | e }}{{ title | truncate(5) }}{{ '%05d' | format(n) }}",
    "methods": "{{ title.upper() }}{{ title.split() }}{{ 'a{}'.format(n) }}{{ title[2:4] }}"
    "{{ '%s-%s' % (n, title) }}",
    "chains of comparisons": "{{ -2 < n < 3 }}{{ n in [0, 3] and not n == 0 }}{{ n ** 2 // 2 }}",
    "inline if": "{{ title if n > 0 else tags }}{{ 'x' if n }}|{{ (gone or 'unknown') }}",
    "a null in a branch": "{% if gone %}{{ gone }}{% elif n %}{{ n }}{% else %}-{% endif %}",
    "row": "{{ row['title'] }}{{ row.n }}{{ row.get('no', 'none') }}{{ row | length }}",
    "row as an item": "{{ row['title'] }}{% set title = 1 %}{{ row['title'] }}{{ title }}",
    "dictionaries": "{% set d = {'a': n, title: 1} %}{% for k, v in d.items() %}{{ k }}={{ v }};"
    "{% endfor %}{{ d | dictsort }}{{ dict(a=n).a }}",
    "globals": "{{ range(3) | list }}{% set c = cycler(n, 'x') %}{{ c.next() }}{{ c.next() }}"
    "{% set j = joiner('|') %}{{ j() }}{{ j() }}",
    "attributes that are missing": "{{ title.nothing is defined }}{{ (n).real }}",
    "a name with a default": "{{ nothing | default(title) }}{{ nothing is defined }}",
    "a number that is only printed": "{{ n }}{% filter upper %}{{ n }}{% endfilter %}{% set x %}"
    "{{ n }}{% endset %}{{ x + '!' }}{% macro m() %}{{ n }}{% endmacro %}{{ m() | length }}",
    "filters of a text": "{{ title | upper | trim }}{{ title | lower ~ n | string }}"
    "{{ title | capitalize }}{{ n | upper }}{{ n | string | length }}",
    "autoescape": "{% autoescape true %}{{ title }}{{ title | safe }}{% endautoescape %}"
    "{{ title }}",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_renders_as_jinja_renders_it(form: str) -> None:
    """Macros, imports, loops inside blocks and the rest: the same text, or refused as there."""
    check(FORMS[form])


@examples(100)
@given(st.lists(st.one_of(st.integers(), st.floats(), st.floats(-1, 1), st.booleans(), st.none())))
@example([1e-4, 1e-5, 0.00012, 9e15, 1e16, 2**64, -0.0, 5e-324])
@example([0.1, 2.0, -3, 12345678.9])
@example([float("inf")])
def test_numbers_are_texts_as_python_writes_them(cells: list[Any]) -> None:
    """A block of numbers made text at once is what `str` makes of each; others are left alone."""
    texts = number_texts(cells)
    assert texts is cells or texts == list(map(str, cells))


def test_the_forms_are_no_mistakes() -> None:
    """Nearly all forms render in Jinja itself, or their test would compare two refusals."""
    refused = {name for name, source in FORMS.items() if plain(source, ROWS[0]) is None}
    assert refused == {"loop in a block that is not scoped", "loop outside"}


NAMES = ["title", "n", "tags", "row['title']", "x", "'k'", "7"]
FILTERS = ["upper", "string", "length", "join('-')", "default('d')", "list", "trim", "e"]


@st.composite
def expressions(draw: st.DrawFn, inside: frozenset[str]) -> str:
    """An expression of the names that may be known where it stands."""
    names = NAMES + ["w", "loop.index", "loop.first"] * ("loop" in inside)
    own = draw(st.sampled_from(names))
    for name in draw(st.lists(st.sampled_from(FILTERS), max_size=2)):
        own += f" | {name}"
    wrap = draw(st.sampled_from(["{}", "{}", "({} ~ n)", "m({})", "({}) if n > 0 else 'no'"]))
    return str(wrap.format(own))


def tag(draw: st.DrawFn, text: str) -> str:
    """Write a tag with or without control of the blanks around it."""
    left, right = draw(st.sampled_from(["", "", "-", "+"])), draw(st.sampled_from(["", "", "-"]))
    return f"{{%{left} {text} {right}%}}"


@st.composite
def bodies(draw: st.DrawFn, inside: frozenset[str], depth: int) -> str:
    """A piece of a template: texts, placeholders and statements, nested."""
    pieces = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["text", "print", *KINDS[: len(KINDS) if depth else 0]]))
        pieces.append(piece(draw, kind, inside, depth))
    return "".join(pieces)


WRAPPED = {
    "for": ["for w in tags", "for w in title", "for w in range(2)", "for w in tags if w != 'x'"],
    "set": ["set x"],
    "filter": ["filter upper"],
    "with": ["with x = n"],
    "block": ["block b{}", "block b{} scoped"],
    "call": ["call(x) twice()"],
}
ALONE = [
    "set x = n",
    "include 'shown'",
    "include 'counted'",
    "from 'lib' import tag as m, answer as x",
]
KINDS = [*WRAPPED, "if", "alone"]


def piece(draw: st.DrawFn, kind: str, inside: frozenset[str], depth: int) -> str:
    """One statement of a kind."""
    if kind == "text":
        return draw(st.sampled_from([" a ", "\n", " \n b", "{# c #}", "<i>", "}} "]))
    if kind == "print":
        return f"{{{{ {draw(expressions(inside))} }}}}"
    if kind == "alone":
        return tag(draw, draw(st.sampled_from(ALONE)))
    body = bodies(inside | {"loop"} if kind == "for" else inside, depth - 1)
    if kind == "if":
        otherwise = tag(draw, draw(st.sampled_from(["else", "elif tags"])))
        return tag(draw, "if n > 0") + draw(body) + otherwise + draw(body) + tag(draw, "endif")
    head = draw(st.sampled_from(WRAPPED[kind])).format(draw(st.integers(0, 10**9)))
    return tag(draw, head) + draw(body) + tag(draw, f"end{kind}")


HEAD = (
    "{% macro m(a) %}<{{ a }}>{% endmacro %}"
    "{% macro twice() %}{{ caller(1) }}{{ caller(n) }}{% endmacro %}{% set x = 'X' %}"
)


@examples(30, suppress_health_check=list(HealthCheck))
@given(bodies(frozenset(), 3), st.booleans())
@example("{% for w in tags %}{% block b scoped %}{{ loop.index }}{% endblock %}{% endfor %}", True)
def test_any_nesting_of_forms_renders_as_in_jinja(source: str, head: bool) -> None:
    """Whatever stands in whatever, row by row: nothing leaks from a row into the next."""
    check(HEAD * head + source)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", ["empty", "skip"])
def test_the_null_policy_changes_no_form(form: str, policy: Any) -> None:
    """Where no null is printed, each policy renders as Jinja does."""
    wanted = [plain(FORMS[form], row) for row in ROWS]
    prompt = Prompt((Message("user", FORMS[form]),), on_null=policy, sources=named_in(FORMS[form]))
    try:
        found = [row and row[0] for chunk in prompt.render(FRAME) for row in chunk]
    except TemplateError:
        found = [None]
    assert found == ([None] if None in wanted else wanted)

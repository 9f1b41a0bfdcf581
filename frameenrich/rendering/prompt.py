"""Compile templates once, and render them over a frame a chunk at a time.

Templates come from the user; row data never becomes code (`rendering.sandbox`). A template
without inheritance and includes is one compiled loop over rows (`frameenrich.rendering.row_loop`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat
from typing import Any, Protocol, cast

import jinja2
import pandas as pd
from jinja2 import meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from frameenrich.errors import InputError, NullValueError, TemplateError
from frameenrich.model import RENDERING, JobSpec, Message, OnNull
from frameenrich.rendering.column_cells import cell_reader, number_texts
from frameenrich.rendering.placeholders import no_column
from frameenrich.rendering.row_loop import ROW, RowLoop, why_slow
from frameenrich.rendering.sandbox import PrintedNullError, PrintedObjectError, sandbox
from frameenrich.text import columns_text

# What is done once a chunk takes as long as ten rows or twenty, as it finds the processor's caches
# full of texts: chunks of 256 rows took a tenth more time than those of 1,024.
CHUNK_ROWS = 1024
"""At most so many rows are rendered at a time; a power of two, as all sizes of chunks."""


CHUNK_CHARACTERS = 1 << 21
"""About so many at most, in the cells and texts of a chunk: long ones come a few at a time."""


_FIRST_ROWS = 64
"""The first chunk's rows, which show how long the texts are."""


Rendered = tuple[str, ...]
"""One row's messages, in the order of the templates."""


Texts = list[list[str | None]]
"""A chunk's messages: for each template the text of every row, None where it has none."""


@dataclass(frozen=True)
class Prompt:
    """The templates of a job, compiled.

    Parameters
    ----------
    messages : tuple of Message
        Role and Jinja2 source of each message.
    on_null : {"raise", "empty", "skip"}
        What happens to a row where a null would be printed.
    sources : Mapping[str, str]
        Other templates by name, for ``{% include %}``, ``{% import %}`` and ``{% extends %}``.
    rendering : int
        How cells are printed (`frameenrich.model.RENDERING`).

    Raises
    ------
    TemplateError
        On the first use, where a source does not compile; names the line.
    """

    messages: tuple[Message, ...]
    on_null: OnNull = "raise"
    sources: Mapping[str, str] | None = None
    rendering: int = RENDERING

    @cached_property
    def _env(self) -> SandboxedEnvironment:
        return sandbox(self.on_null, self.sources or {}, numbers_too=self.rendering > 1)

    @cached_property
    def _trees(self) -> list[nodes.Template]:
        own = [self._parse(m.content, f"{m.role} template") for m in self.messages]
        return own + [self._parse(text, name) for name, text in (self.sources or {}).items()]

    def _parse(self, source: str, name: str) -> nodes.Template:
        try:
            self._env.compile(source)  # finds errors that parsing does not
            tree = self._env.parse(source)
        except jinja2.TemplateSyntaxError as error:
            raise _syntax_error(error, source, name) from None
        if not self.sources:  # a file's own includes were read with it
            _refuse_taking_in(tree)
        return tree

    def _compile(self, used: Sequence[Any]) -> list[_Template]:
        """Compile the messages' templates once for the columns in use."""
        if (*used,) not in self._compiled:
            self._compiled[*used,] = [self._template(message, used) for message in self.messages]
        return self._compiled[*used,]

    @cached_property
    def _compiled(self) -> dict[tuple[Any, ...], list[_Template]]:
        return {}

    def _template(self, message: Message, used: Sequence[Any]) -> _Template:
        environment, name = self._env, f"{message.role} template"
        tree = environment.parse(message.content)  # a fresh one: `RowLoop` changes the tree
        if why_slow(tree, used) is None:
            return RowLoop(environment, tree, used, name)
        code = environment.compile(tree, name=name)
        template = jinja2.Template.from_code(environment, code, environment.make_globals(None))
        return _RowByRow(template, list(used), ROW in self.names and ROW not in used)

    def why_slow(self, columns: Sequence[Any]) -> str | None:
        """Return why rows render one by one, some five times slower; None where they do not."""
        used = self.columns_used(columns)
        reasons = (why_slow(self._env.parse(m.content), used) for m in self.messages)
        return next((reason for reason in reasons if reason is not None), None)

    @cached_property
    def names(self) -> frozenset[str]:
        """All variable names of the templates."""
        return frozenset(n.name for tree in self._trees for n in tree.find_all(nodes.Name))

    @property
    def makes_numbers(self) -> bool:
        """Tell whether rendering 1 would have printed a null as 0."""
        # Only `int` and `float` have a default of 0; `abs` and `round` raise an error.
        filters = (f.name for tree in self._trees for f in tree.find_all(nodes.Filter))
        return self.on_null == "empty" and not {"int", "float"}.isdisjoint(filters)

    @cached_property
    def _names_set(self) -> frozenset[str]:
        """All names that some template makes: in loops, ``set``, imports, macros and arguments."""
        found = (n for tree in self._trees for n in tree.find_all(nodes.Name))
        names = {n.name for n in found if n.ctx != "load"}
        for tree in self._trees:
            names.update(macro.name for macro in tree.find_all(nodes.Macro))
            names.update(each.target for each in tree.find_all(nodes.Import))
            for each in tree.find_all(nodes.FromImport):
                names.update(name if isinstance(name, str) else name[1] for name in each.names)
        return frozenset(names)

    @cached_property
    def _passes_loops_on(self) -> bool:
        """Tell whether a block or an included template may see the `loop` around it."""
        # Jinja compiles these by themselves, so that there `loop` looks like a name from outside.
        loops = [node for tree in self._trees for node in tree.find_all(nodes.For)]
        return any(any(loop.find_all((nodes.Block, nodes.Include))) for loop in loops)

    @cached_property
    def _wanted(self) -> list[frozenset[str]]:
        """The names that a frame has to have, for each template."""
        # A name that some branch or includer sets may be defined: only rendering a row can tell.
        names_set = self._names_set | {"loop"} if self._passes_loops_on else self._names_set
        known = [names_set | _names_tested(tree) for tree in self._trees]
        return [
            frozenset(meta.find_undeclared_variables(tree) - names)
            for tree, names in zip(self._trees, known, strict=True)
        ]

    @cached_property
    def _row_items(self) -> frozenset[Any] | None:
        """Columns taken as ``row["..."]``; None where `row` is used in another way."""
        items: set[Any] = set()
        # Every use of `row` has to be a `row["..."]`: one other use may reach any column.
        uses = 0
        for tree in self._trees:
            uses += sum(n.name == ROW for n in tree.find_all(nodes.Name))
            for node in tree.find_all(nodes.Getitem):
                if isinstance(node.node, nodes.Name) and node.node.name == ROW:
                    if not isinstance(node.arg, nodes.Const):
                        return None
                    items.add(node.arg.value)
                    uses -= 1
        return frozenset(items) if uses == 0 else None

    def columns_used(self, columns: Sequence[Any]) -> list[Any]:
        """Return the columns of a frame that the templates use, in the frame's order.

        Raises
        ------
        TemplateError
            The templates name something that is neither a column nor known to Jinja.
        """
        self._check_names(columns)
        # A frame may have a column called "row"; then `row` is that column.
        if ROW in self.names and ROW not in columns:
            if self._row_items is None:
                return list(columns)
            wanted = self.names | self._row_items
        else:
            wanted = self.names
        return [column for column in columns if column in wanted]

    def check_uses_rows(self, columns: Sequence[Any], rows: int) -> None:
        """Refuse templates that are the same for all of several rows.

        Raises
        ------
        TemplateError
            No template uses a column; names the placeholder that was meant, where one shows.
        """
        if rows > 1 and not self.columns_used(columns):
            raise no_column([message.content for message in self.messages], columns)

    def _check_names(self, columns: Sequence[Any]) -> None:
        for wanted in self._wanted:
            unknown = wanted.difference(columns, [ROW])
            if unknown:
                raise _missing_column(sorted(unknown), columns)
        absent = (self._row_items or frozenset()) - set(columns)
        if ROW not in columns and absent:
            raise _missing_column(sorted(absent, key=str), columns)

    def render(
        self, frame: pd.DataFrame, *, lenient: bool = False
    ) -> Iterator[list[Rendered | None]]:
        """Render each row of `frame`; chunks of at most `CHUNK_ROWS`, in order.

        With `lenient`, a row that does not render is None instead of an error.

        Yields
        ------
        list of (tuple of str) or None
            A row's messages; None for a row that the null policy skips.

        Raises
        ------
        TemplateError, NullValueError
            Some row does not render; the message names its position and the reason.
        """
        for texts in self.render_texts(frame, lenient=lenient):
            rows = zip(*texts, strict=True)
            yield [None if None in row else cast("Rendered", row) for row in rows]

    def render_texts(self, frame: pd.DataFrame, *, lenient: bool = False) -> Iterator[Texts]:
        """Render as `render` does, but by message: each message's texts in the rows of a chunk.

        A message that uses no column is rendered once. A row is skipped where any of its
        messages is None.
        """
        used = self.columns_used(list(frame.columns))
        _check_distinct(frame, used)
        templates = self._compile(used)
        # Columns are converted once or sliced, never copied whole for each chunk.
        readers = {column: cell_reader(frame[column], self.rendering) for column in used}
        constant: dict[int, str | None] = {}
        start, rows = 0, _FIRST_ROWS
        while start < len(frame):
            # Up to a multiple: no chunk reaches over a block in which keys are read.
            stop = min(start - start % rows + rows, len(frame))
            cells = {column: read(start, stop) for column, read in readers.items()}
            chunk = _Chunk(cells, start, stop - start, self.on_null, lenient, self.rendering > 1)
            texts: Texts = []
            for i, template in enumerate(templates):
                if i not in constant:
                    texts.append(chunk.render(template))
                else:
                    texts.append([constant[i]] * chunk.count)
                if not template.columns:
                    constant[i] = texts[i][0]
            changing = [each for i, each in enumerate(texts) if i not in constant]
            same = sum(map(len, filter(None, constant.values())))
            start, rows = stop, _rows_at_once([*cells.values(), *changing], chunk.count, same)
            yield texts

    def constants(self, columns: Sequence[Any]) -> list[bool]:
        """Tell for each message whether it is the same in every row, as it uses no column."""
        return [not template.columns for template in self._compile(self.columns_used(columns))]


def _rows_at_once(columns: Sequence[Sequence[Any]], last: int, same: int) -> int:
    """Return how many rows to render next, by the texts of the `last` so many rows.

    ``columns`` hold those that change, ``same`` is the length of what is in every row.
    """
    # All of them: of a sample, texts that come at every fourth row may be none.
    rows = CHUNK_CHARACTERS * last // max(1, same * last + sum(map(_characters, columns)))
    # Few rows show little of those to come: short ones among long ones must not bring 1,024.
    rows = min(max(1, rows), CHUNK_ROWS, _MOST_GROWTH * last)
    return 1 << (rows.bit_length() - 1)


_MOST_GROWTH = 4


_LONG = frozenset({str, bytes})


def _characters(cells: Sequence[Any]) -> int:
    if type(cells[0]) in _LONG:
        try:
            return sum(map(len, cells))  # nearly always, and three times as fast
        except Exception:  # noqa: BLE001, S110 - a null, or an object that poses as a text
            pass
    if _LONG.isdisjoint(map(type, cells)):
        return 0
    return sum(len(cell) for cell in cells if type(cell) in _LONG)


class _Template(Protocol):
    """A message's template, compiled in one of two ways."""

    @property
    def columns(self) -> list[Any]:
        """Return the columns of a row's tuple, in order."""

    @property
    def printed(self) -> Sequence[bool]:
        """Tell for each of them whether it is printed and nothing else."""

    def render(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[str]:
        """Yield one string a row; an exception is about the row after the last string."""


@dataclass(frozen=True)
class _RowByRow:
    """A template that needs a Jinja context of its own for every row."""

    template: jinja2.Template
    columns: list[Any]
    whole_row: bool

    @property
    def printed(self) -> Sequence[bool]:
        return [False] * len(self.columns)  # an included template may do anything with a cell

    def render(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[str]:
        for values in rows:
            row = dict(zip(self.columns, values, strict=True))
            if self.whole_row:
                # Jinja's names are texts: a column called 2020 is reached by `row[2020]` only.
                row = {**{k: v for k, v in row.items() if isinstance(k, str)}, ROW: row}
            yield self.template.render(row)


@dataclass(frozen=True)
class _Chunk:
    """The cells of some rows, and what to do with a row that does not render."""

    cells: Mapping[Any, list[Any]]
    start: int
    count: int
    on_null: OnNull
    lenient: bool
    numbers_too: bool

    def render(self, template: _Template) -> list[str | None]:
        """Render each row's text; None for a row that is skipped."""
        used = [
            number_texts(self.cells[column]) if printed else self.cells[column]
            for column, printed in zip(template.columns, template.printed, strict=True)
        ]
        rows = zip(*used, strict=True) if used else repeat((), self.count)
        texts: list[str | None] = []
        # An exception ends the template's generator, not `rows`: start another for what is left.
        while len(texts) < self.count:
            try:
                texts.extend(template.render(rows))
            except PrintedNullError:
                if not self.lenient and self.on_null != "skip":
                    raise self._printed_null(len(texts)) from None
                texts.append(None)  # `rows` has moved past the failed row
            except Exception as error:
                of_null = self.numbers_too and self._is_of_null(error, template, len(texts))
                if not (self.lenient or (of_null and self.on_null == "skip")):
                    if of_null and self.on_null == "raise":
                        raise self._printed_null(len(texts)) from None
                    raise _row_error(error, self.start + len(texts), self.cells) from error
                texts.append(None)
        return texts

    def _is_of_null(self, error: Exception, template: _Template, offset: int) -> bool:
        """Tell whether the error comes from a null in a comparison, a sum or the like."""
        # Such messages name None or NoneType; the check of the cells keeps other errors out.
        if not isinstance(error, TypeError | jinja2.UndefinedError) or "None" not in str(error):
            return False
        return any(self.cells[column][offset] is None for column in template.columns)

    def _printed_null(self, offset: int) -> NullValueError:
        empty = [name for name, values in self.cells.items() if values[offset] is None]
        return _printed_null(empty, self.start + offset)


def _names_tested(tree: nodes.Template) -> set[str]:
    """Return the names that a template tests (``is defined``, ``default``): they may be absent."""
    expressions: list[nodes.Expr | None] = [
        *(t.node for t in tree.find_all(nodes.Test) if t.name in {"defined", "undefined"}),
        *(f.node for f in tree.find_all(nodes.Filter) if f.name in {"default", "d"}),
    ]
    return {node.name for node in expressions if isinstance(node, nodes.Name)}


def _check_distinct(frame: pd.DataFrame, used: Iterable[Any]) -> None:
    # Only columns in use: other repeated names do no harm.
    repeated = set(frame.columns[frame.columns.duplicated()]) & set(used)
    if repeated:
        name = min(repeated, key=str)
        raise InputError(
            f"The frame has more than one column called {name!r}.",
            "Rename one of them: the template cannot tell which is meant.",
            columns=sorted(repeated, key=str),
        )


def _syntax_error(error: jinja2.TemplateSyntaxError, source: str, name: str) -> TemplateError:
    lines = source.splitlines()
    quoted = f": {lines[error.lineno - 1].strip()!r}" if 0 < error.lineno <= len(lines) else ""
    message = (error.message or "syntax error").rstrip(".")
    return TemplateError(
        f"The {error.name or name} does not compile, line {error.lineno}{quoted} ({message}).",
        "Correct that line; nothing was sent.",
        line=error.lineno,
    )


def _refuse_taking_in(tree: nodes.Template) -> None:
    """Refuse to take in another template: ``ignore missing`` would leave it out of every row."""
    for name in meta.find_referenced_templates(tree):
        which = "whose name is computed" if name is None else repr(name)
        raise TemplateError(
            f"The template takes in another one, {which}, and each has to stand alone.",
            "Write the text of that one into it; nothing was sent.",
        )


def _missing_column(names: Sequence[Any], columns: Sequence[Any]) -> TemplateError:
    spaces = " A name with spaces is written row['...']." if len(columns) else ""
    return TemplateError(
        f"The template uses {', '.join(map(repr, names))}, which is not a column of the frame.",
        f"{_meant(names[0], columns)}{columns_text(columns)}{spaces}",
        columns=list(names),
    )


def _meant(name: Any, columns: Iterable[Any]) -> str:
    # Column names may be numbers or tuples, and `difflib` compares texts.
    close = difflib.get_close_matches(str(name), [str(column) for column in columns], n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def _printed_null(empty: Sequence[Any], position: int) -> NullValueError:
    where = f"column {empty[0]!r}" if len(empty) == 1 else f"one of the columns {empty}"
    if not empty:
        where = "something that the template makes of it"
    return NullValueError(
        f"The row at position {position} would print a null: {where} is empty there.",
        "Write {{ column or 'unknown' }} in the template, or pass on_null='empty' or 'skip'.",
        position=position,
        columns=empty,
    )


def _row_error(error: Exception, position: int, columns: Iterable[Any]) -> TemplateError:
    problem = f"fails on the row at position {position}: {type(error).__name__}: {error}".rstrip(
        "."
    )
    fix = "Correct the template or that row; nothing was sent."
    if isinstance(error, PrintedObjectError):
        problem = f"{error.problem} on the row at position {position}"
        fix = f"{error.fix} Nothing was sent."
    # `row.titel` and `row[name]`, whose name is known when a row is rendered only.
    elif found := re.fullmatch(r"'dict object' has no attribute '(.+)'", str(error)):
        fix = f"{_meant(found[1], columns)}{fix}"
    return TemplateError(f"The template {problem}.", fix, position=position)


def prompt_of(spec: JobSpec) -> Prompt:
    """Return a job's templates, compiled once a process."""
    # A spec holds dicts and cannot be a cache key, so pass on only what decides the templates.
    return _prompt(spec.messages, spec.on_null, tuple(spec.sources.items()), spec.rendering)


@lru_cache(maxsize=16)
def _prompt(
    messages: tuple[Message, ...],
    on_null: OnNull,
    sources: tuple[tuple[str, str], ...],
    rendering: int,
) -> Prompt:
    return Prompt(messages, on_null, dict(sources), rendering)

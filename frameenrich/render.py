"""Rows to text: compile templates once, render them over a frame a chunk at a time.

Templates come from the user, row data does not become code: a sandbox, strict about undefined
names. A null reaches the template as ``None``; what happens when it would be *printed* is the
null policy (``on_null``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2
import pandas as pd
from jinja2 import meta, nodes
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from frameenrich.errors import InputError, NullValueError, TemplateError
from frameenrich.model import Message, OnNull

CHUNK_ROWS = 256
"""Rows rendered at a time: they stay in the processor's second-level cache (SPEED.md)."""

_ROW = "row"
_SHOWN = "__shown"

# Filters that turn their input into text, and so would print a null as the word "None".
_TEXT_FILTERS = (
    "capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace",
    "safe", "string", "striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize",
    "wordcount", "wordwrap",
)  # fmt: skip

# Those of them that print their arguments, too.
_ALL_PRINTED = frozenset({"format", "replace"})

Rendered = tuple[str, ...]
"""One row's messages, in the order of the templates."""


class _PrintedNullError(Exception):
    """A null was about to be printed."""


def is_null(value: object) -> bool:
    """Whether a cell holds no value: ``None``, ``NaN``, ``NA`` or ``NaT``.

    Examples
    --------
    >>> [is_null(value) for value in (None, float("nan"), pd.NA, pd.NaT, "", 0, [None])]
    [True, True, True, True, False, False, False]
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float) and value != value  # noqa: PLR0124 - the test for NaN


def _environment(on_null: OnNull, sources: Mapping[str, str]) -> SandboxedEnvironment:
    shown = _show_null_as_empty if on_null == "empty" else _refuse_null
    environment = _Sandbox(
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        autoescape=False,
        loader=jinja2.DictLoader(dict(sources)),
        keep_trailing_newline=False,
    )
    for name in _TEXT_FILTERS:
        environment.filters[name] = _guard(
            environment.filters[name], shown, whole=name in _ALL_PRINTED
        )
    environment.filters["join"] = _guard_items(environment.filters["join"], shown)
    environment.filters[_SHOWN] = shown
    # What differs from run to run would make every re-read frame look changed.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


def _refuse_null(value: Any) -> Any:
    if is_null(value):
        raise _PrintedNullError
    return value


def _show_null_as_empty(value: Any) -> Any:
    return "" if is_null(value) else value


def _pass_mark(function: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    mark = getattr(function, "jinja_pass_arg", None)
    if mark is not None:
        wrapper.jinja_pass_arg = mark  # type: ignore[attr-defined]  # Jinja's own protocol
    return wrapper


def _guard(
    function: Callable[..., Any], shown: Callable[[Any], Any], *, whole: bool
) -> Callable[..., Any]:
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if whole:
            printed = map(shown, args[first:])
            return function(*args[:first], *printed, **{k: shown(v) for k, v in kwargs.items()})
        return function(*args[:first], shown(args[first]), *args[first + 1 :], **kwargs)

    return _pass_mark(function, guarded)


def _guard_items(function: Callable[..., Any], shown: Callable[[Any], Any]) -> Callable[..., Any]:
    def guarded(context: Any, items: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attribute") is None and len(args) < 2:  # noqa: PLR2004 - join(d, attribute)
            items = [shown(item) for item in shown(items)]
        return function(context, items, *map(shown, args[:1]), *args[1:], **kwargs)

    return _pass_mark(function, guarded)


class _Sandbox(SandboxedEnvironment):
    """Jinja's sandbox, with the null policy where operators and methods print."""

    intercepted_binops = frozenset({"%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _ShowInConcat().visit(super()._parse(source, name, filename))
        return tree

    def _shown(self, value: Any) -> Any:
        return self.filters[_SHOWN](value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str):  # "%s" % value
            right = (
                tuple(map(self._shown, right)) if isinstance(right, tuple) else self._shown(right)
            )
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ != "format":
            return wrapped

        def formatted(*args: Any, **kwargs: Any) -> str:
            return wrapped(
                *map(self._shown, args), **{k: self._shown(v) for k, v in kwargs.items()}
            )

        return formatted


class _ShowInConcat(NodeTransformer):
    """``a ~ b`` prints its operands, so the null policy has to see them."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        node.nodes = [
            nodes.Filter(n, _SHOWN, [], [], None, None, lineno=n.lineno) for n in node.nodes
        ]
        return node


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

    Raises
    ------
    TemplateError
        On the first use, where a source does not compile; names the line.
    """

    messages: tuple[Message, ...]
    on_null: OnNull = "raise"
    sources: Mapping[str, str] | None = None

    @cached_property
    def _env(self) -> SandboxedEnvironment:
        return _environment(self.on_null, self.sources or {})

    @cached_property
    def _trees(self) -> list[nodes.Template]:
        own = [self._parse(m.content, f"{m.role} template") for m in self.messages]
        return own + [self._parse(text, name) for name, text in (self.sources or {}).items()]

    def _parse(self, source: str, name: str) -> nodes.Template:
        try:
            self._env.compile(source)  # for the errors that only the compiler finds
            return self._env.parse(source)
        except jinja2.TemplateSyntaxError as error:
            raise _syntax_error(error, source, name) from None

    @cached_property
    def _compiled(self) -> list[jinja2.Template]:
        return [
            self._compile(tree, message)
            for tree, message in zip(self._trees, self.messages, strict=False)
        ]

    def _compile(self, tree: nodes.Template, message: Message) -> jinja2.Template:
        environment = self._env
        code = environment.compile(tree, name=f"{message.role} template")
        return jinja2.Template.from_code(environment, code, environment.make_globals(None))

    @cached_property
    def names(self) -> frozenset[str]:
        """Every variable name that the templates mention."""
        return frozenset(n.name for tree in self._trees for n in tree.find_all(nodes.Name))

    @cached_property
    def _names_set(self) -> frozenset[str]:
        """Every name that some template gives a value: loops, ``set``, macros' arguments."""
        found = (n for tree in self._trees for n in tree.find_all(nodes.Name))
        return frozenset(n.name for n in found if n.ctx != "load")

    @cached_property
    def _row_items(self) -> frozenset[Any] | None:
        """Columns taken as ``row["..."]``; None where `row` is used in another way."""
        items: set[Any] = set()
        uses = 0
        for tree in self._trees:
            uses += sum(n.name == _ROW for n in tree.find_all(nodes.Name))
            for node in tree.find_all(nodes.Getitem):
                if isinstance(node.node, nodes.Name) and node.node.name == _ROW:
                    if not isinstance(node.arg, nodes.Const):
                        return None
                    items.add(node.arg.value)
                    uses -= 1
        return frozenset(items) if uses == 0 else None

    def columns_used(self, columns: Sequence[Any]) -> list[Any]:
        """The columns of a frame that the templates can see, in the frame's order.

        Raises
        ------
        TemplateError
            The templates name something that is neither a column nor known to Jinja.
        """
        self._check_names(columns)
        if _ROW in self.names and _ROW not in columns:
            if self._row_items is None:
                return list(columns)
            wanted = self.names | self._row_items
        else:
            wanted = self.names
        return [column for column in columns if column in wanted]

    def _check_names(self, columns: Sequence[Any]) -> None:
        known = {*columns, _ROW}
        for i, tree in enumerate(self._trees):
            unknown = meta.find_undeclared_variables(tree) - known - _names_tested(tree)
            if i >= len(self.messages):  # an included template sees what its includer has set
                unknown -= self._names_set
            if unknown:
                raise _missing_column(sorted(unknown), columns)
        absent = (self._row_items or frozenset()) - set(columns)
        if _ROW not in columns and absent:
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
        used = self.columns_used(list(frame.columns))
        _check_distinct(frame, used)
        compiled = self._compiled
        for start in range(0, len(frame), CHUNK_ROWS):
            chunk = frame.iloc[start : start + CHUNK_ROWS]
            yield [
                self._render_row(compiled, values, start + offset, lenient)
                for offset, values in enumerate(self._rows(chunk, used))
            ]

    def _rows(self, chunk: pd.DataFrame, used: Sequence[Any]) -> Iterator[dict[str, Any]]:
        cells = [cell_values(chunk[column]) for column in used]
        whole_row = _ROW in self.names and _ROW not in used
        named = [column for column in used if isinstance(column, str)]
        for values in zip(*cells, strict=True) if used else ((),) * len(chunk):
            row = dict(zip(used, values, strict=True))
            yield {**{name: row[name] for name in named}, _ROW: row} if whole_row else row

    def _render_row(
        self,
        compiled: Sequence[jinja2.Template],
        values: dict[str, Any],
        position: int,
        lenient: bool,
    ) -> Rendered | None:
        try:
            return tuple(template.render(values) for template in compiled)
        except _PrintedNullError:
            if lenient or self.on_null == "skip":
                return None
            raise _printed_null(values, position) from None
        except Exception as error:
            if lenient:
                return None
            raise _row_error(error, position) from error


def cell_values(column: pd.Series) -> list[Any]:
    """A column's cells as plain Python values, every null as ``None``.

    Examples
    --------
    >>> cell_values(pd.Series([1.5, float("nan")])), cell_values(pd.Series([1, 2]))
    ([1.5, None], [1, 2])
    """
    values: list[Any] = column.tolist()
    if not column.hasnans:
        return values
    return [None if null else v for v, null in zip(values, column.isna(), strict=True)]


def _names_tested(tree: nodes.Template) -> set[str]:
    """Names that a template asks about (``is defined``, ``default``) may be absent."""
    asked: list[nodes.Expr | None] = [
        *(t.node for t in tree.find_all(nodes.Test) if t.name in {"defined", "undefined"}),
        *(f.node for f in tree.find_all(nodes.Filter) if f.name in {"default", "d"}),
    ]
    return {node.name for node in asked if isinstance(node, nodes.Name)}


def _check_distinct(frame: pd.DataFrame, used: Iterable[Any]) -> None:
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
        "Mend that line; nothing was sent.",
        line=error.lineno,
    )


def _missing_column(names: Sequence[Any], columns: Sequence[Any]) -> TemplateError:
    close = difflib.get_close_matches(str(names[0]), [str(c) for c in columns], n=1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    some = ", ".join(repr(column) for column in list(columns)[:12])
    more = ", ..." if len(columns) > 12 else ""  # noqa: PLR2004 - as many as a message can hold
    return TemplateError(
        f"The template uses {', '.join(map(repr, names))}, which is not a column of the frame.",
        f"{meant}The columns are {some}{more}; a name with spaces is written row['...'].",
        columns=list(names),
    )


def _printed_null(values: Mapping[str, Any], position: int) -> NullValueError:
    row = values.get(_ROW)
    cells = row if isinstance(row, Mapping) else values
    empty = [name for name, value in cells.items() if value is None]
    where = f"column {empty[0]!r}" if len(empty) == 1 else f"one of the columns {empty}"
    if not empty:
        where = "something that the template makes of it"
    return NullValueError(
        f"The row at position {position} would print a null: {where} is empty there.",
        "Write {{ column or 'unknown' }} in the template, or pass on_null='empty' or 'skip'.",
        position=position,
        columns=empty,
    )


def _row_error(error: Exception, position: int) -> TemplateError:
    reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
    return TemplateError(
        f"The template fails on the row at position {position}: {reason}.",
        "Mend the template or that row; nothing was sent.",
        position=position,
    )

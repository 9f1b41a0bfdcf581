"""The environment of templates: a sandbox, strict about names, with the null policy in it.

A null is ``None`` in a template. It counts as printed where Jinja's ``finalize`` sees it, and where
a filter, ``~``, ``%`` or ``format`` would turn it into the word "None" before that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from frameenrich.cells import is_null
from frameenrich.model import OnNull
from frameenrich.rendering.row_loop import SHOWN, Compiler

# Filters that turn their input into text, and so would print a null as the word "None".
_TEXT_FILTERS = (
    "capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace",
    "safe", "string", "striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize",
    "wordcount", "wordwrap",
)  # fmt: skip


# Those of them that print their arguments, too.
_ALL_PRINTED = frozenset({"format", "replace"})


# What some of them come to where a text has to be made of nothing: a call less.
_OF_TEXT: Mapping[str, Callable[[str], str]] = {
    "capitalize": str.capitalize,
    "lower": str.lower,
    "string": str,
    "trim": str.strip,
    "upper": str.upper,
}


class PrintedNullError(Exception):
    """A null was about to be printed."""


def sandbox(on_null: OnNull, sources: Mapping[str, str]) -> SandboxedEnvironment:
    """The environment that templates are compiled in.

    Parameters
    ----------
    on_null : {"raise", "empty", "skip"}
        What a printed null does: `PrintedNullError`, or an empty text.
    sources : Mapping[str, str]
        Other templates by name.
    """
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
            environment.filters[name],
            shown,
            whole=name in _ALL_PRINTED,
            of_text=_OF_TEXT.get(name),
        )
    environment.filters["join"] = _guard_items(environment.filters["join"], shown)
    environment.filters[SHOWN] = shown
    # What differs from run to run would make every re-read frame look changed.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


def _refuse_null(value: Any) -> Any:
    if value.__class__ is str:  # nearly always, and this runs for everything that is printed
        return value
    if is_null(value):
        raise PrintedNullError
    return value


def _show_null_as_empty(value: Any) -> Any:
    if value.__class__ is str:
        return value
    return "" if is_null(value) else value


def _pass_mark(function: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    mark = getattr(function, "jinja_pass_arg", None)
    if mark is not None:
        wrapper.jinja_pass_arg = mark  # type: ignore[attr-defined]  # Jinja's own protocol
    return wrapper


def _guard(
    function: Callable[..., Any],
    shown: Callable[[Any], Any],
    *,
    whole: bool,
    of_text: Callable[[str], str] | None,
) -> Callable[..., Any]:
    first = 1 if hasattr(function, "jinja_pass_arg") else 0
    if not first and not whole:
        return _guard_value(function, shown, of_text)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if whole:
            printed = map(shown, args[first:])
            return function(*args[:first], *printed, **{k: shown(v) for k, v in kwargs.items()})
        return function(*args[:first], shown(args[first]), *args[first + 1 :], **kwargs)

    return _pass_mark(function, guarded)


def _guard_value(
    function: Callable[..., Any],
    shown: Callable[[Any], Any],
    of_text: Callable[[str], str] | None,
) -> Callable[..., Any]:
    def guarded(value: Any, *args: Any, **kwargs: Any) -> Any:
        if type(value) is not str:
            return function(shown(value), *args, **kwargs)
        if of_text is None or args or kwargs:
            return function(value, *args, **kwargs)
        return of_text(value)

    return guarded


def _guard_items(function: Callable[..., Any], shown: Callable[[Any], Any]) -> Callable[..., Any]:
    def guarded(context: Any, items: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attribute") is None and len(args) < 2:  # noqa: PLR2004 - join(d, attribute)
            items = [shown(item) for item in shown(items)]
        return function(context, items, *map(shown, args[:1]), *args[1:], **kwargs)

    return _pass_mark(function, guarded)


class _Sandbox(SandboxedEnvironment):
    """Jinja's sandbox, with the null policy where operators and methods print."""

    intercepted_binops = frozenset({"%"})
    code_generator_class = Compiler

    def printed(self, value: Any) -> str:
        """Return what a value is printed as, by the null policy; `Compiler` leaves out texts."""
        kind = value.__class__
        if kind is int or (kind is float and value == value):  # noqa: PLR0124 - the test for NaN
            return str(value)
        return str(self.finalize(value))  # type: ignore[misc]  # always set, see `sandbox`

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _ShowInConcat().visit(super()._parse(source, name, filename))
        return tree

    def _shown(self, value: Any) -> Any:
        return self.filters[SHOWN](value)

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
            nodes.Filter(n, SHOWN, [], [], None, None, lineno=n.lineno) for n in node.nodes
        ]
        return node

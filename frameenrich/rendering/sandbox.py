"""Make the environment of templates: a sandbox, strict about names, that applies the null policy.

A null is ``None`` in a template. It counts as printed where Jinja's ``finalize`` sees it, and where
a filter, ``~``, ``%`` or ``format`` would turn it into the word "None" before that; Jinja alone
would send that word to the model.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Macro, TemplateReference
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Namespace
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


# What some of them do to a `str` without arguments: the method saves Jinja's own call.
_OF_TEXT: Mapping[str, Callable[[str], str]] = {
    "capitalize": str.capitalize,
    "lower": str.lower,
    "string": str,
    "trim": str.strip,
    "upper": str.upper,
}


class PrintedNullError(Exception):
    """A null was about to be printed."""


class PrintedObjectError(Exception):
    """Something whose text means nothing to a model was about to be printed; says what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix


def sandbox(
    on_null: OnNull, sources: Mapping[str, str], *, numbers_too: bool = True
) -> SandboxedEnvironment:
    """Make the environment that templates are compiled in.

    Parameters
    ----------
    on_null : {"raise", "empty", "skip"}
        Whether a printed null raises `PrintedNullError` or is an empty text.
    sources : Mapping[str, str]
        Other templates by name.
    numbers_too : bool
        Whether the policy also covers a null that a filter or an operator would make a number of;
        with ``"empty"`` the result is null. Earlier versions made 0 of it.
    """
    shown = _show_null_as_empty if on_null == "empty" else _refuse_null
    environment = _Sandbox(
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        autoescape=False,  # prompts are no HTML: "&" has to reach the model as it is
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
    if numbers_too:
        for name in _NUMBER_FILTERS:
            environment.filters[name] = _guard_number(environment.filters[name], on_null)
        if on_null == "empty":
            environment.intercepted_binops = _ARITHMETIC
            environment.intercepted_unops = _SIGNS
            environment.filters[COMPARED] = _compare
    environment.filters[SHOWN] = shown
    # A frame has to render to the same text tomorrow, or every re-read row would look changed.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


_NUMBER_FILTERS = ("abs", "float", "int", "round")


_ARITHMETIC = frozenset({"+", "-", "*", "/", "//", "**", "%"})


_SIGNS = frozenset({"+", "-"})


COMPARED = "__compared"
"""The filter that replaces comparisons: with a null, ``<`` and ``>`` are false."""


_ORDER: Mapping[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


_OF_NULLS = frozenset({"eq", "ne"})


def _compare(value: Any, *pairs: Any) -> bool:
    """Compare as Python does, but nulls are neither before nor after anything."""
    # The operators come in pairs with their operands: `a < b < c` is one comparison in Jinja.
    for name, other in zip(pairs[::2], pairs[1::2], strict=True):
        # `None in items` is a fair question of a list; of a text Python would raise.
        among = name in {"in", "notin"} and not is_null(other) and not isinstance(other, str)
        if name not in _OF_NULLS and not among and (is_null(value) or is_null(other)):
            return False
        if not _ORDER[name](value, other):
            return False
        value = other
    return True


def _guard_number(function: Callable[..., Any], on_null: OnNull) -> Callable[..., Any]:
    """Apply the null policy to a number filter's input, unless the template gives a default."""

    def guarded(value: Any, *args: Any, **kwargs: Any) -> Any:
        by_default = function.__name__ in {"do_int", "do_float"} and (args or "default" in kwargs)
        if value.__class__ in _NUMBERS or not is_null(value) or by_default:
            return function(value, *args, **kwargs)
        if on_null == "empty":
            return None
        raise PrintedNullError

    return guarded


_NUMBERS = (int, str)


def _refuse_null(value: Any) -> Any:
    if value.__class__ is str:  # nearly always, and this runs for everything that is printed
        return value
    if is_null(value):
        raise PrintedNullError
    return _with_text(value)


def _show_null_as_empty(value: Any) -> Any:
    if value.__class__ is str:
        return value
    return "" if is_null(value) else _with_text(value)


_NO_ITEMS: dict[str, str] = {}
_VIEWS: Mapping[type, str] = {
    range: "a range",
    type(_NO_ITEMS.keys()): "the names of a dict",
    type(_NO_ITEMS.values()): "the values of a dict",
    type(_NO_ITEMS.items()): "the names and values of a dict",
}
_BYTES: Mapping[type, str] = dict.fromkeys((bytes, bytearray), "raw bytes")
_OWN_WORDS: Mapping[type, str] = {
    **_VIEWS,
    **_BYTES,
    memoryview: "a view of raw bytes",
    Namespace: "a namespace",
}
"""What has only Python's words for a text: ``b'...'``, ``dict_keys([...])``, ``range(0, 3)``."""


# Lists of these, such as embeddings, are checked at the speed of C.
_PLAIN = frozenset({str, int, float, bool, type(None)})


def _check_items(items: Iterable[Any]) -> None:
    """Refuse what a list or a dict would print in Python's own words."""
    items = list(items)
    if not _PLAIN.issuperset(map(type, items)):
        for item in items:
            _with_text(item)


def _with_text(value: Any) -> Any:
    """Refuse what prints as an address or as Python's own words, such as ``{{ title.upper }}``.

    Such a text says nothing to a model, and is another one in every session.
    """
    kind = type(value)
    if isinstance(value, jinja2.Undefined):  # strict or empty, as Jinja has it; callable, too
        return value
    if isinstance(value, TemplateReference):
        raise PrintedObjectError(
            "prints 'self', which is a word of Jinja's own", "Write row['self'] for the column."
        )
    if callable(value):
        name = getattr(value, "name" if isinstance(value, Macro) else "__name__", kind.__name__)
        raise PrintedObjectError(
            f"prints the function {name!r} instead of what it returns",
            "Write () behind its name.",
        )
    if hasattr(kind, "__next__"):
        raise PrintedObjectError(
            f"prints a {kind.__name__}, as 'map' and 'select' give it, instead of its items",
            "Write | join(', ') behind it.",
        )
    if kind in _OWN_WORDS:
        raise PrintedObjectError(
            f"prints {_OWN_WORDS[kind]} in Python's own words",
            "Write .decode() behind it."
            if kind in _BYTES
            else "Write | join(', ') behind it, or print what it holds.",
        )
    if kind in (list, tuple):
        _check_items(value)
    elif kind is dict:
        _check_items(value.values())
    # Neither __str__ nor __repr__ is its own: its text is an address.
    if not any({"__str__", "__repr__"} & vars(base).keys() for base in kind.__mro__[:-1]):
        raise PrintedObjectError(
            f"prints a value of the type {kind.__name__!r}, which has no text,",
            "Print what it holds, such as .name.",
        )
    return value


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
    # Jinja passes such filters its context first; the filtered value comes after it.
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
            # With an attribute the items are objects, of which only a part is printed.
            # An iterator is fine here, as `map` gives one: it is its items that are printed.
            of_items = hasattr(type(items), "__next__") or type(items) in _VIEWS
            whole = items if of_items else shown(items)
            items = [shown(item) for item in whole]
        return function(context, items, *map(shown, args[:1]), *args[1:], **kwargs)

    return _pass_mark(function, guarded)


class _Sandbox(SandboxedEnvironment):
    """Jinja's sandbox, with the null policy where operators and methods print."""

    # Only what is listed here goes through `call_binop`; every operator listed costs a call.
    intercepted_binops: frozenset[str] = frozenset({"%"})
    code_generator_class = Compiler

    def printed(self, value: Any) -> str:
        """Print a value by the null policy; `Compiler` calls this for all but texts."""
        kind = value.__class__
        if kind is int or (kind is float and value == value):  # noqa: PLR0124 - the test for NaN
            return str(value)
        return str(self.finalize(value))  # type: ignore[misc]  # always set, see `sandbox`

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _ShowInConcat().visit(super()._parse(source, name, filename))
        return _CompareNulls().visit(tree) if COMPARED in self.filters else tree

    def _shown(self, value: Any) -> Any:
        return self.filters[SHOWN](value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str):  # "%s" % value
            right = (
                tuple(map(self._shown, right)) if isinstance(right, tuple) else self._shown(right)
            )
        elif COMPARED in self.filters and (is_null(left) or is_null(right)):
            return None  # as in SQL: arithmetic with a null is null
        return super().call_binop(context, operator, left, right)

    def call_unop(self, context: Any, operator: str, arg: Any) -> Any:
        return None if is_null(arg) else super().call_unop(context, operator, arg)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        # `format_map` takes one mapping, so its values cannot be replaced as arguments.
        if wrapped is None or value.__name__ != "format":
            return wrapped

        def formatted(*args: Any, **kwargs: Any) -> str:
            return wrapped(
                *map(self._shown, args), **{k: self._shown(v) for k, v in kwargs.items()}
            )

        return formatted


class _ShowInConcat(NodeTransformer):
    """Pass the operands of ``a ~ b`` through the null policy: ``~`` prints them."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        node.nodes = [
            nodes.Filter(n, SHOWN, [], [], None, None, lineno=n.lineno) for n in node.nodes
        ]
        return node


class _CompareNulls(NodeTransformer):
    """Replace comparisons such as ``price > 3`` by the `COMPARED` filter, which allows nulls."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        pairs = [each for op in node.ops for each in (nodes.Const(op.op), op.expr)]
        return nodes.Filter(node.expr, COMPARED, pairs, [], None, None, lineno=node.lineno)

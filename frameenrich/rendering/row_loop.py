"""Compile a template into one loop over rows, which makes rendering fast.

`Template.render` spends its time on building a context per row. Here the parsed template becomes
the body of a ``for`` over rows, as an AST, and Jinja's own compiler turns that into one generator
that yields a string a row, with filters, tests, macros and the sandbox as they were.
Templates that use the whole context (inheritance, includes) render row by row instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.visitor import NodeTransformer

ROW = "row"


# Names with two underscores, which templates of people hardly use.
_ROWS = "__rows"


_ITEM = "__item_"


_NONE = "__nothing"


# Jinja gives these names a meaning in loops, blocks and macros; a loop's targets would hide it.
_CONTEXT_NAMES = frozenset({"self", "super", "loop", "varargs", "kwargs", "caller"})


def why_slow(tree: nodes.Template, columns: Iterable[Any]) -> str | None:
    """Return what in a template needs a context for every row; None where nothing does.

    Examples
    --------
    >>> env = jinja2.Environment()
    >>> why_slow(env.parse("{{ title }}"), ["title"]) is None
    True
    >>> why_slow(env.parse("{% include 'head' %}{{ title }}"), ["title"])
    'an include'
    """
    whole_row = _whole_row(tree, columns)  # first: Jinja folds constants in the tree it looks at
    for kind, reason in (
        (nodes.Extends, "inheritance"),
        (nodes.Block, "inheritance"),
        # Even without context: Jinja compiles that to a yield, past the text being collected.
        (nodes.Include, "an include"),
        (nodes.Import, "import with context"),
        (nodes.FromImport, "import with context"),
    ):
        for node in tree.find_all(kind):
            if kind is nodes.Include or getattr(node, "with_context", True):
                return reason
    special = _CONTEXT_NAMES & (meta.find_undeclared_variables(tree) | set(map(str, columns)))
    if special & {node.name for node in tree.find_all(nodes.Name)}:
        return f"the name {min(special)!r}"
    return whole_row


def _whole_row(tree: nodes.Template, columns: Iterable[Any]) -> str | None:
    if ROW in columns:
        return None
    # By identity: nodes compare by value, so every `row` would be equal to one inside `row["x"]`.
    items = {id(node.node) for node in tree.find_all(nodes.Getitem) if _constant_item(node)}
    names = [node for node in tree.find_all(nodes.Name) if node.name == ROW]
    return None if all(id(node) in items for node in names) else "the whole row"


def _constant_item(node: nodes.Getitem) -> bool:
    is_row = isinstance(node.node, nodes.Name) and node.node.name == ROW
    return is_row and isinstance(node.arg, nodes.Const)


class _RowItems(NodeTransformer):
    """Replace ``row["Product name"]`` by a name, which the loop assigns."""

    def __init__(self, names: Mapping[Any, str]) -> None:
        self._names = names

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        if not self._names or not _constant_item(node) or not isinstance(node.arg, nodes.Const):
            return node
        return nodes.Name(self._names[node.arg.value], "load", lineno=node.lineno)


class RowLoop:
    """Render one message's template by a compiled loop.

    Parameters
    ----------
    environment : jinja2.Environment
        Decides filters, tests, globals and undefined; its compiler has to be `Compiler`.
    tree : nodes.Template
        The parsed template; it is changed.
    columns : sequence
        The frame's columns that the template may see.
    name : str
        What errors call the template.
    """

    def __init__(
        self,
        environment: jinja2.Environment,
        tree: nodes.Template,
        columns: Sequence[Any],
        name: str,
    ) -> None:
        items = {} if ROW in columns else {c: f"{_ITEM}{i}" for i, c in enumerate(columns)}
        seen = {node.name for node in tree.find_all(nodes.Name)}
        taken = {n.arg.as_const() for n in tree.find_all(nodes.Getitem) if _constant_item(n)}
        tree = _RowItems(items).visit(tree)
        targets = {c: c for c in columns if c in seen}
        # A column may come twice, by its name and as an item: a `set` or a loop in the template can
        # shadow the name, and `row["..."]` still has to read the cell.
        pairs = [*targets.items(), *((c, name) for c, name in items.items() if c in taken)]
        self.columns = [column for column, _ in pairs]
        """The columns of a row's tuple, in order; one may come twice."""
        used = _names_used(tree)
        self.printed = [name not in used for _, name in pairs]
        """For each of them whether it is printed and nothing else, so that its text would do."""
        whole = _wrapped(environment, tree, [name for _, name in pairs])
        code = environment.compile(whole, name=name)
        self._template = jinja2.Template.from_code(
            environment, code, environment.make_globals(None)
        )

    def render(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[str]:
        """Yield one string a row; an exception is about the row after the last string."""
        context = self._template.new_context({_ROWS: rows})
        return self._template.root_render_func(context)


def _names_used(tree: nodes.Template) -> set[str]:
    """Return the names that a template does anything with but to print them as they are."""
    printed = {id(node) for output in tree.find_all(nodes.Output) for node in output.nodes}
    return {node.name for node in tree.find_all(nodes.Name) if id(node) not in printed}


def _wrapped(
    environment: jinja2.Environment, tree: nodes.Template, names: Sequence[str]
) -> nodes.Template:
    """Wrap a tree: ``{% for targets in __rows %}{% set __out %} ... {% endset %}{% endfor %}``."""
    text = nodes.AssignBlock(nodes.Name(OUT, "store", lineno=1), None, tree.body, lineno=1)
    targets: list[nodes.Expr] = [nodes.Name(name, "store", lineno=1) for name in names]
    target = nodes.Tuple(targets, "store", lineno=1) if names else nodes.Name(_NONE, "store")
    rows = nodes.Name(_ROWS, "load", lineno=1)
    loop = nodes.For(target, rows, [text], [], None, False, lineno=1)
    whole = nodes.Template([loop], lineno=1)
    whole.set_environment(environment)
    return whole


SHOWN = "__shown"
"""The filter that applies the null policy to the operands of ``a ~ b``."""


# What the null policy's own filters do without arguments to a `str`, written into the loop: a call
# of a guard for every cell would cost as much as printing it.
SHOWN_AS: Mapping[str, str] = {
    SHOWN: "value",
    "capitalize": "value.capitalize()",
    "lower": "value.lower()",
    "string": "value",
    "trim": "value.strip()",
    "upper": "value.upper()",
}
"""The Python code for a filter of a text."""


OUT = "__out"
"""The ``set`` block of this name is a row's whole text, which the loop yields."""


class Compiler(CodeGenerator):
    """Write the Python code of a template.

    A `str` is printed as it is; the environment's ``printed`` makes text of other values. Where
    Jinja escapes, its own code is left alone.
    """

    def write_commons(self) -> None:
        """Begin a function of the template."""
        super().write_commons()
        # A local name: an attribute lookup for every value printed would cost more than the test.
        self.writeline("printed = environment.printed")

    def visit_AssignBlock(self, node: nodes.AssignBlock, frame: Frame) -> None:  # noqa: N802 - Jinja's naming
        """Write ``{% set x %} ... {% endset %}``; that of `OUT` yields instead of assigning."""
        if getattr(node.target, "name", None) != OUT:
            super().visit_AssignBlock(node, frame)
            return
        row = frame.inner()
        row.symbols.analyze_node(node)
        self.enter_frame(row)
        self.buffer(row)
        self.blockvisit(node.body, row)
        self.writeline(f"yield concat({row.buffer})")
        self.leave_frame(row)

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:  # noqa: N802 - Jinja's naming
        """Write ``value | filter``; of a text without a call of ours, where Python has the same."""
        method = SHOWN_AS.get(node.name)
        plain = not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
        if method is None or node.node is None or not plain:
            super().visit_Filter(node, frame)
            return
        self.write(f"({method} if type(value := ")
        self.visit(node.node, frame)
        self.write(f") is str else {self.filters[node.name]}(value))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if _escapes(frame):
            super()._output_child_pre(node, frame, finalize)
        else:
            # Nearly all cells are texts: the inline test saves a call for each.
            self.write("(value if type(value := ")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if _escapes(frame):
            super()._output_child_post(node, frame, finalize)
        else:
            self.write(") is str else printed(value))")


def _escapes(frame: Frame) -> bool:
    return bool(frame.eval_ctx.volatile or frame.eval_ctx.autoescape)

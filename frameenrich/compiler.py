"""Jinja's compiler, but for what is done with each printed value: most are text already.

Jinja has every value go through ``finalize`` and ``str``: two calls in Python for what is nearly
always a `str`, on which neither does anything. Here the compiled template looks at the class first.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

SHOWN = "__shown"
"""The filter by which ``a ~ b`` has the null policy see its operands."""

OUT = "__out"
"""A ``set`` block of this name is a row's whole text: the loop over rows yields it."""


class Compiler(CodeGenerator):
    """Writes the Python code of a template.

    The environment's ``printed`` makes text of a value that is no `str`, its `SHOWN` filter shows
    one. Where Jinja would escape, everything is Jinja's own.
    """

    def write_commons(self) -> None:
        """Begin a function of the template."""
        super().write_commons()
        self.writeline("printed = environment.printed")

    def visit_AssignBlock(self, node: nodes.AssignBlock, frame: Frame) -> None:  # noqa: N802 - Jinja's naming
        """``{% set x %} ... {% endset %}``."""
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
        """``value | filter``."""
        if node.name != SHOWN or node.node is None:
            super().visit_Filter(node, frame)
            return
        self.write("(value if type(value := ")
        self.visit(node.node, frame)
        self.write(f") is str else {self.filters[SHOWN]}(value))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if _escapes(frame):
            super()._output_child_pre(node, frame, finalize)
        else:
            self.write("(value if type(value := ")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if _escapes(frame):
            super()._output_child_post(node, frame, finalize)
        else:
            self.write(") is str else printed(value))")


def _escapes(frame: Frame) -> bool:
    return bool(frame.eval_ctx.volatile or frame.eval_ctx.autoescape)

"""Read a label however a model writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator

# The longer mark first: of `**x**`, a single star would leave half of each mark.
_PAIRS = (
    ("**", "**"),
    ("__", "__"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
    ("*", "*"),
    ("\u201c", "\u201d"),
    ("\u201e", "\u201c"),
    ("\u00ab", "\u00bb"),
    ("(", ")"),
    ("[", "]"),
)
_PREFIX = re.compile(
    r"^[*_]{0,2}(?:the )?(?:final )?(?:label|answer|category|class)[*_]{0,2}\s*:[*_]{0,2}\s*",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^(?:[-\u2022\u2013]|#{1,6}) +(?!\d)")  # - 5 may be a number
_FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?```$", re.DOTALL)


def plain_forms(text: str) -> Iterator[str]:
    """Yield a label's text as it is, then without one layer after the other of what is around it.

    Only whole pairs of marks are taken off: one that is not closed was cut.
    """
    form = text.strip()
    while form:
        yield form
        fence = _FENCE.match(form)
        inner = fence[1].strip() if fence else form
        for opening, closing in _PAIRS:
            longer = len(form) > len(opening) + len(closing)
            if inner == form and longer and form.startswith(opening) and form.endswith(closing):
                inner = form[len(opening) : -len(closing)].strip()
        if inner == form:
            # Not a comma: after one, more may have been meant.
            inner = form.removesuffix(".").removesuffix("!").strip()
        if inner == form:
            inner = _BULLET.sub("", form, count=1)
        if inner == form:
            inner = _PREFIX.sub("", form, count=1).strip()
        if inner == form:
            return
        form = inner

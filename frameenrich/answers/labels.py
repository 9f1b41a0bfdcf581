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
    ("_", "_"),
    ("<label>", "</label>"),
    ("<answer>", "</answer>"),
    ("\\boxed{", "}"),
    ("\\text{", "}"),
    ("$", "$"),
    ("\u2018", "\u2019"),
    ("\u201c", "\u201d"),
    ("\u201e", "\u201c"),
    ("\u00ab", "\u00bb"),
    ("(", ")"),
    ("[", "]"),
)
_PREFIX = re.compile(
    r"^(?P<mark>\*\*|__|\*|_)?(?:the )?(?:final |correct |best )?"
    r"(?:label|answer|category|class|classification|output|response|result)"
    r"(?(mark)(?:(?P=mark)\s*:|\s*:(?P=mark))|(?:\s*:|\s+is\b\s*:?))\s*",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^(?:[-*\u2022\u2013\u2192]|->|#{1,6}) +(?!\d)")  # - 5 may be a number
MODEL_ENDS = re.compile(
    r"(?:\s*(?:</s>|<\|(?:im_end|eot_id|end|endoftext|end_of_text)\|>|<end_of_turn>"
    r"|<\uff5cend\u2581of\u2581sentence\uff5c>))+$"
)
"""What a server leaves of its model's own end."""
# Marks that nobody sees.
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060"
_FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?```$", re.DOTALL)


def plain_forms(text: str) -> Iterator[str]:
    """Yield a label's text as it is, then without one layer after the other of what is around it.

    Only whole pairs of marks are taken off: one that is not closed was cut.
    """
    form = MODEL_ENDS.sub("", text).strip().strip(_UNSEEN).strip()
    while form:
        yield form
        # Before marks are taken off in pairs, as it may have a pair of its own.
        inner = _PREFIX.sub("", form, count=1).strip()
        fence = _FENCE.match(form)
        if fence:
            inner = fence[1].strip()
        for opening, closing in _PAIRS:
            longer = len(form) > len(opening) + len(closing)
            if inner == form and longer and form.startswith(opening) and form.endswith(closing):
                inner = form[len(opening) : -len(closing)].strip()
        if inner == form:
            # Not a comma, and not three dots: after these, more may have been meant.
            inner = form if form.endswith("..") else form.removesuffix(".").removesuffix("!")
            inner = inner.strip()
        if inner == form:
            inner = _BULLET.sub("", form, count=1)
        if inner == form:
            return
        form = inner

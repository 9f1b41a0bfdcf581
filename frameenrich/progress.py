"""A progress bar in notebooks and terminals, silence elsewhere."""

from __future__ import annotations

import sys
import warnings
from typing import Any

# Without a rate: a batch's counts come in jumps. The blank at the end parts the bar from a "^C".
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} requests [{elapsed}<{remaining}] "


def progress_bar(total: int, done: int, description: str) -> Any:
    """A tqdm bar over requests; shows nothing where nobody is looking (no TTY, no notebook)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where ipywidgets is absent, then falls back
        from tqdm.auto import tqdm  # noqa: PLC0415 - not needed at import

    shown = total > 0 and (sys.stderr.isatty() or _in_notebook())
    return tqdm(total=total, initial=done, desc=description, bar_format=_FORMAT, disable=not shown)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})

"""Register ``df.llmbatch`` as soon as somebody imports pandas.

pandas takes longer to import than all that the command line needs for ``--version`` and ``--help``,
so importing this package does not import it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def register_later() -> None:
    """Register the accessor right after pandas is imported."""
    # First in the list, or the ordinary finder would load pandas before it is asked.
    sys.meta_path.insert(0, _WhenImported())


class _WhenImported(MetaPathFinder):
    """Finds pandas with a loader that registers the accessor after it, once.

    Others only ask where pandas is, as Polars does, and import it later or never.
    """

    def __init__(self) -> None:
        self._passing = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as a finder is called
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return pandas' spec with our loader around its own; None for other modules."""
        if fullname != "pandas" or self._passing:
            return None
        # find_spec goes through all finders again, this one too: it has to step aside.
        self._passing = True
        try:
            spec = find_spec(fullname)
        finally:
            self._passing = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader, self)
        return spec


class _Registering(Loader):
    """Loads a module as its own loader does, then imports the accessor."""

    def __init__(self, own: Loader, finder: MetaPathFinder) -> None:
        self._own = own
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave the making of the module to its own loader."""
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run pandas, under its own loader again, and register the accessor."""
        if module.__spec__ is not None:
            # Code that reads pandas' loader, as importlib.resources does, has to find the real one.
            module.__spec__.loader = self._own
        module.__loader__ = self._own
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._own.exec_module(module)
        import_module("frameenrich.accessor")

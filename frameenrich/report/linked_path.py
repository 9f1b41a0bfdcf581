"""A path that notebooks show as a link."""

from __future__ import annotations

import html
import os
from pathlib import Path
from urllib.parse import quote


class LinkedPath(type(Path())):  # type: ignore[misc]  # the system's own kind of path
    """A plain path, which a notebook shows as a link that opens the page."""

    def _repr_html_(self) -> str:
        try:
            relative = os.path.relpath(self)
        except ValueError:  # another drive
            relative = os.pardir
        inside = not relative.startswith(os.pardir)
        target = quote(relative.replace(os.sep, "/")) if inside else self.absolute().as_uri()
        return f'<a href="{html.escape(target)}" target="_blank">{html.escape(str(self))}</a>'

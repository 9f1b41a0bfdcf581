"""How many examples a property is tried on: few in the suite, many and new ones in `.ci/long`."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

_TIMES = 50 if os.environ.get("FRAMEENRICH_HYPOTHESIS") == "explore" else 1


def examples(few: int, **others: Any) -> settings:
    """Return the settings of a property that the suite tries on so many examples.

    They are the same ones every time there (the profile in conftest.py), so a red run is a fault
    of the change and not of the draw. What an exploration finds becomes an `@example`.
    """
    return settings(max_examples=few * _TIMES, deadline=None, **others)

"""Importing the package costs nothing beyond pandas, and changes nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import frameenrich

SCRIPT = """
import logging, os, sys, warnings
import pandas
before, environment = set(sys.modules), dict(os.environ)
handlers, filters = list(logging.getLogger().handlers), list(warnings.filters)
import frameenrich
print(*sorted(name for name in set(sys.modules) - before))
assert dict(os.environ) == environment
assert list(logging.getLogger().handlers) == handlers
assert list(warnings.filters) == filters
"""


def test_importing_loads_pandas_and_small_modules() -> None:
    """Nothing heavy is imported, no logging is set up, no environment variable is set."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == [
        "frameenrich",
        "frameenrich.accessor",
        "frameenrich.verbs",
        "frameenrich.verbs.job_of_frame",
        "frameenrich.verbs.signatures",
    ]


@pytest.mark.parametrize("name", frameenrich.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What `__all__` promises can be used."""
    assert getattr(frameenrich, name)


def test_another_name_is_an_attribute_error() -> None:
    """A name that is none says so as Python does."""
    with pytest.raises(AttributeError, match="no attribute 'resubmit'"):
        _ = frameenrich.resubmit

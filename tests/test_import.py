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
        "frameenrich.verbs.argument_kinds",
        "frameenrich.verbs.job_of_frame",
        "frameenrich.verbs.signatures",
    ]


@pytest.mark.parametrize("name", frameenrich.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What `__all__` promises can be used."""
    assert getattr(frameenrich, name)


def test_another_name_is_an_attribute_error() -> None:
    """A name that is none says so as Python does."""
    with pytest.raises(AttributeError, match="has no 'resubmit'"):
        _ = frameenrich.resubmit  # type: ignore[attr-defined]  # the point


def test_the_suites_processes_keep_what_they_compile() -> None:
    """No process of the tests compiles pandas anew, also where the environment says to."""
    code = "import sys; print(sys.dont_write_bytecode)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not sys.dont_write_bytecode
    assert done.stdout == "False\n"


ORDERS = [
    "import frameenrich; assert 'pandas' not in sys.modules; import pandas",
    "import pandas; import frameenrich",
    "from frameenrich import Job; import pandas",
    "import frameenrich.accessor; import pandas",
    "import frameenrich.cli.main; import pandas.core.frame; import pandas",
    "import frameenrich, importlib; pandas = importlib.import_module('pandas')",
]


@pytest.mark.parametrize("order", ORDERS)
def test_the_accessor_is_there_whatever_is_imported_first(order: str) -> None:
    """`import frameenrich` registers df.llmbatch where pandas comes later, too."""
    script = f"""
import sys
{order}
assert pandas.DataFrame.llmbatch.__name__ == "LLMBatch"
assert type(pandas.__loader__).__name__ == type(pandas.__spec__.loader).__name__
assert type(pandas.__loader__).__name__ == "SourceFileLoader", pandas.__loader__
assert not [finder for finder in sys.meta_path if "frameenrich" in type(finder).__module__]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["submit", "--help"]])
def test_the_command_line_answers_without_pandas(words: list[str]) -> None:
    """What needs no frame waits for none: pandas takes five times as long as `--version`."""
    script = f"""
import sys
sys.argv = ["frameenrich", *{words!r}]
from frameenrich.cli.main import app
try:
    app()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"pandas", "numpy", "pyarrow", "openai", "aiohttp"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_a_preview_does_not_import_the_sdk() -> None:
    """The first look of a session waits for pandas and for little else."""
    script = """
import sys
import frameenrich
frame = frameenrich.sample_data().head(3)
frame.llmbatch.preview("Sort {{ title }}", "gpt-4o-mini", labels=["a", "b"], params={"seed": 1})
heavy = {"openai", "pydantic", "aiohttp", "httpx2"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "before",
    [
        "import polars, duckdb",
        "import importlib.util; importlib.util.find_spec('pandas')",
        "import frameenrich.errors",
    ],
)
def test_pandas_imported_later_has_the_accessor(before: str) -> None:
    """Whoever asked where pandas is before, as Polars does, ``df.llmbatch`` is there in the end."""
    script = f"import frameenrich; {before}; import pandas; print(pandas.DataFrame().llmbatch)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert "LLMBatch" in done.stdout, done.stderr

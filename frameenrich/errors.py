"""The exception tree: one sentence that says what is wrong, one that says what to do.

::

    FrameEnrichError
    ├── InputError                  nothing was sent; the caller's input has to change
    │   ├── TemplateError           syntax, a missing column, a row that does not render
    │   ├── NullValueError          a null would be printed (``on_null="raise"``)
    │   ├── ImageError              an image that is none, cannot be read, or lies elsewhere
    │   ├── RowKeyError             duplicate or null keys, no such key column
    │   ├── ColumnCollisionError    an output column exists already
    │   ├── ParameterError          an option or request parameter that is unknown or unusable
    │   │   ├── UnknownOptionError  no such keyword argument, or a wrong call; a ``TypeError``, too
    │   │   └── UnknownNameError    no such method or name; an ``AttributeError``, too
    │   ├── OutputError             labels, response_model or parser that cannot be used
    │   ├── BudgetError             it could cost more than ``max_cost``
    │   ├── RequestTooLargeError    one row's request is larger than a whole batch file may be
    │   └── CredentialsError        no API key
    ├── FrameMismatchError          this frame is not the one the answers were made for
    ├── JobNotFoundError            no such job in this store
    ├── StoreError                  the store cannot be read or written
    │   ├── JobBusyError            another process is at work on this job
    │   └── DamagedFileError        a file of the store is not as it was written
    ├── ResponsesError              an imported responses file does not belong to this job
    ├── ProviderError               the provider refused, broke or cannot be reached
    └── WaitTimeoutError            still running when ``timeout`` ran out; carries the job's id

A malformed answer is a row status, never an exception. `JobInterruptedError` is a
`KeyboardInterrupt`: Ctrl-C, or a notebook's stop button, while a job was driven.
"""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Sequence
from types import TracebackType


class _ShownShort:
    """An error that a notebook shows as the user's own line and the sentence.

    Forty lines of this package's and pandas' own between the two would hide both.
    """

    def _render_traceback_(self) -> list[str]:
        """Build the lines that IPython shows instead of a traceback."""
        own = _lines_of_user(self.__traceback__)  # type: ignore[attr-defined] # an exception's
        return [*own, f"{type(self).__name__}: {self}"]


def _lines_of_user(trace: TracebackType | None) -> list[str]:
    """Return the traceback's lines that are in a cell or in a file of no installed package."""
    ours = tuple(
        path + os.sep for path in (os.path.dirname(__file__), sysconfig.get_path("stdlib"))
    )
    # By their folders' names: an environment may lie over another one, as `uv run --with` makes it.
    installed = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
    found = []
    for frame, number in traceback.walk_tb(trace):
        file = frame.f_code.co_filename
        # Code that a library made while running is nobody's line, as a dataclass's __init__ is.
        if file == "<string>" or file.startswith(ours) or any(name in file for name in installed):
            continue
        # A notebook's cells are in no file; IPython puts their source into linecache.
        line = linecache.getline(file, number).strip()
        found.append(f"{_cell_name(file)}, line {number}\n----> {number} {line}\n")
    return found


def _cell_name(file: str) -> str:
    """Return a notebook's name for the cell that a file stands for, else the file's name."""
    # Not imported: where it is not loaded, there is no notebook.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    named = None if shell is None else shell.compile.format_code_name(file)
    return file if named is None else " ".join(named)


class FrameEnrichError(Exception, _ShownShort):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    problem : str
        One sentence that names the row, column or file.
    fix : str
        One sentence that says what to do next.
    **details : object
        What the sentences talk about, kept as attributes (``error.columns``).
    """

    problem: str
    fix: str
    position: int | None = None
    """The position of the row in the frame, where the error is of one row."""
    row: object = None
    """The key of that row, as messages show it."""
    job_id: str | None = None
    """The job that was driven, for who has no `Job` to ask."""

    def __init__(self, problem: str, fix: str, **details: object) -> None:
        # Both sentences are the arguments, as pickle makes an exception anew from these.
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix
        self.__dict__.update(details)

    def __str__(self) -> str:
        return f"{self.problem} {self.fix}"


class FrameEnrichWarning(UserWarning):
    """A warning that something works, but not as well as it could; Python shows each once."""


def warn_user(message: str) -> None:
    """Warn at the line of the user's own code, however deep in this package the caller is."""
    # With the separator, or a package whose name begins like ours would count as ours.
    package = os.path.dirname(__file__) + os.sep
    level, frame = 2, sys._getframe(1)  # noqa: SLF001 - as pandas
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, FrameEnrichWarning, stacklevel=level)


class InputError(FrameEnrichError):
    """Input that cannot be used; nothing was sent."""


class TemplateError(InputError):
    """A template that does not compile, names a missing column, or fails on a row."""


class NullValueError(InputError):
    """A null value would have been printed into a request."""


class ImageError(InputError):
    """An image that is none, cannot be read, or lies outside of ``image_root``."""

    reason: str = ""
    """Why the image cannot be used, without the row."""
    also: Sequence[int] = ()
    """The positions of later rows whose images cannot be used either."""


class RowKeyError(InputError):
    """The keys do not name each row exactly once."""


class ColumnCollisionError(InputError):
    """An output column would overwrite a column of the frame."""


class ParameterError(InputError):
    """An option or request parameter that is unknown or has an unusable value."""


# A TypeError as well, which is what Python raises for a keyword that a function does not have.
class UnknownOptionError(ParameterError, TypeError):
    """A keyword argument that a verb does not have, one too few or one too many."""


# An AttributeError as well: `hasattr` and `from frameenrich import ...` go by that.
class UnknownNameError(ParameterError, AttributeError):
    """A method, attribute or public name that does not exist."""


class OutputError(InputError):
    """A ``labels``, ``response_model`` or ``parser`` that cannot be used."""


class BudgetError(InputError):
    """The requests could cost more than ``max_cost`` leaves.

    Attributes ``estimate_usd``, ``spent_usd`` (with what is on its way) and ``max_usd``.
    """


class RequestTooLargeError(InputError):
    """One request is larger than a batch file may be."""


class CredentialsError(InputError):
    """No API key was given or found in the environment."""


class FrameMismatchError(FrameEnrichError):
    """The frame's rows are not the ones the stored answers were made for."""


class JobNotFoundError(FrameEnrichError):
    """The store holds no such job."""


class StoreError(FrameEnrichError):
    """The store cannot be read or written."""


class JobBusyError(StoreError):
    """Another process holds the job's lock."""


class DamagedFileError(StoreError):
    """A file of the store is not as it was written."""

    path: str = ""
    """The file, as the store names it."""


class ResponsesError(FrameEnrichError):
    """An imported responses file holds nothing for this job."""


class ProviderError(FrameEnrichError):
    """The provider refused a call, broke, or cannot be reached.

    What follows from the failure is decided by who called, by these facts.
    """

    status_code: int | None = None
    """The HTTP status, where there was an answer."""
    passing: bool = False
    """The same call may well succeed a little later."""
    impatient: bool = False
    """It was not tried as often as it could have been, as the caller's time was up."""
    try_later: bool = False
    """The next step of the job tries again by itself."""
    one_shard: bool = False
    """It is about one shard only: the next one may be sent."""
    unmade: bool = False
    """Nothing was made by the call, surely."""
    lost: bool = False
    """The provider no longer has the batch."""
    unlisted: bool = False
    """It was looked for, and no list of the provider shows the batch."""
    lost_file: bool = False
    """The provider cannot find a file that was uploaded."""
    cut: bool = False
    """A download ended before its end."""


class WaitTimeoutError(FrameEnrichError):
    """The job was still running when the time was up; nothing is lost."""


# No FrameEnrichError: an `except Exception` around a loop must not swallow Ctrl-C.
class JobInterruptedError(KeyboardInterrupt, _ShownShort):
    """Ctrl-C while a job was driven; says what goes on running, and how to continue."""

    job_id: str | None = None
    """The job that was driven."""

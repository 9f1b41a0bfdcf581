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
    │   │   └── UnknownOptionError  a verb has no such keyword argument; a ``TypeError``, too
    │   ├── OutputError             labels, response_model or parser that cannot be used
    │   ├── BudgetError             it could cost more than ``max_cost``
    │   ├── RequestTooLargeError    one row's request is larger than a whole batch file may be
    │   └── CredentialsError        no API key
    ├── FrameMismatchError          this frame is not the one the answers were made for
    ├── JobNotFoundError            no such job in this store
    ├── StoreError                  the store cannot be read or written
    │   └── JobBusyError            another process is at work on this job
    ├── ResponsesError              an imported responses file does not belong to this job
    ├── ProviderError               the provider refused, broke or cannot be reached
    └── WaitTimeoutError            still running when ``timeout`` ran out; carries the job's id

A malformed answer is a row status, never an exception.
"""

from __future__ import annotations

import os
import sys
import warnings


class FrameEnrichError(Exception):
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

    def __init__(self, problem: str, fix: str, **details: object) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix
        self.__dict__.update(details)

    def __str__(self) -> str:
        return f"{self.problem} {self.fix}"


class FrameEnrichWarning(UserWarning):
    """Something that works, though not as well as it might; Python shows each once."""


def warn_user(message: str) -> None:
    """Warn at the line of the user's own code, however deep in this package the caller is."""
    package, level, frame = os.path.dirname(__file__), 2, sys._getframe(1)  # noqa: SLF001 - as pandas
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


class RowKeyError(InputError):
    """The keys do not name each row exactly once."""


class ColumnCollisionError(InputError):
    """An output column would overwrite a column of the frame."""


class ParameterError(InputError):
    """An option or request parameter that is unknown or has an unusable value."""


class UnknownOptionError(ParameterError, TypeError):
    """A keyword argument that a verb does not have."""


class OutputError(InputError):
    """A ``labels``, ``response_model`` or ``parser`` that cannot be used."""


class BudgetError(InputError):
    """What was to be sent could cost more than ``max_cost`` leaves.

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


class ResponsesError(FrameEnrichError):
    """An imported responses file holds nothing for this job."""


class ProviderError(FrameEnrichError):
    """The provider refused a call, broke, or cannot be reached.

    ``impatient`` says that it was not tried as often as it could have been: the call would not
    have succeeded at another try, or the caller's time was up.
    """

    impatient: bool = False


class WaitTimeoutError(FrameEnrichError):
    """The job was still running when the time was up; nothing is lost."""

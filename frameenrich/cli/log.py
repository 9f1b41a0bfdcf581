"""Options ``--log-file`` and ``-v`` of every command: a line for each payment, change and file."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import logging
import os
import sys
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from typing import Annotated, Any

import typer

from frameenrich.cli.option_groups import flatten_options
from frameenrich.errors import ParameterError, warn_user
from frameenrich.text import one_line

_PACKAGE = "frameenrich"


class _OneLine(logging.Formatter):
    """Formats a record on one line, without terminal codes."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as text."""
        return one_line(super().format(record))


class _LogFile(WatchedFileHandler):
    """Appends to a file; where that fails, warns once, as the job is worth more than its log.

    A file that was moved away, as logrotate does, is followed by a new one of its name.
    """

    def _open(self) -> io.TextIOWrapper:
        # Unbuffered and at the file's end: one write a line, so that two processes mix no lines,
        # and a file that is copied and cut goes on from its start. Private, as the store is: it
        # names jobs, files and the keys of rows.
        raw = io.FileIO(
            self.baseFilename, "a", opener=lambda name, flags: os.open(name, flags, 0o600)
        )
        return io.TextIOWrapper(raw, "utf-8", "backslashreplace", newline="\n", write_through=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            super().emit(record)
        except OSError as error:  # no file can be made anew
            self._give_up(error)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Give the log up where its file cannot be written any more."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._give_up(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """Close the file, of which the last lines may be lost."""
        try:
            super().close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # A full disk fails at every line: one warning is enough, and the job goes on.
        if self.level > logging.CRITICAL:
            return
        self.setLevel(logging.CRITICAL + 1)
        warn_user(
            f"--log-file {self.baseFilename} cannot be written any more: {error.strerror}. "
            "The command goes on without it."
        )


def logged(command: Callable[..., None]) -> Callable[..., None]:
    """Add the logging options to a command, and set the log up before it runs."""
    inner = flatten_options(command)
    # Evaluated, since Typer needs the annotations as objects and this module has them as texts.
    own = inspect.signature(_handlers, eval_str=True).parameters
    options = [*inspect.signature(inner).parameters.values(), *own.values()]

    @functools.wraps(inner)
    def with_log(**found: Any) -> None:
        handlers = _handlers(**{name: found.pop(name) for name in own})
        logger = logging.getLogger(_PACKAGE)
        with contextlib.ExitStack() as stack:
            for handler in handlers:
                handler.setFormatter(_OneLine())
                logger.addHandler(handler)
                logger.setLevel(logging.INFO)
                # Removed again: a process, such as the tests', may run several commands.
                stack.callback(logger.removeHandler, handler)
                stack.callback(handler.close)
            inner(**found)

    vars(with_log)["__signature__"] = inspect.Signature(options)
    with_log.__annotations__ = {option.name: option.annotation for option in options}
    return with_log


def _handlers(
    *,
    log_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Append one line for each paid call, change of state and file."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show those lines on standard error.")
    ] = False,
) -> list[logging.Handler]:
    """Open the handlers that the options ask for."""
    handlers: list[logging.Handler] = []
    if log_file is not None:
        try:
            handlers.append(_LogFile(log_file))
        except OSError as error:
            raise ParameterError(
                f"--log-file {log_file} cannot be written: {error.strerror}.",
                "Name a file in a folder that exists and that you may write to.",
            ) from None
    if verbose:
        handlers.append(logging.StreamHandler(sys.stderr))
    return handlers

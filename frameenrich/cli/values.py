"""Parse command-line texts into values: templates, parameters, prices, classes."""

from __future__ import annotations

import csv
import functools
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from frameenrich.errors import OutputError, ParameterError, TemplateError


def split_commas(text: str) -> list[str]:
    """Split comma-separated texts; one that holds a comma stands in double quotes.

    Examples
    --------
    >>> split_commas('Kitchen, Garden,"Toys, games"')
    ['Kitchen', 'Garden', 'Toys, games']
    """
    return [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])]


def read_params(pairs: list[str] | None) -> dict[str, Any]:
    """Parse request parameters from ``name=value``; the value is JSON, or else text.

    Examples
    --------
    >>> read_params(["temperature=0.2", "stop=[1, 2]", "service_tier=flex", "user=123"])
    {'temperature': 0.2, 'stop': [1, 2], 'service_tier': 'flex', 'user': '123'}
    """
    if not pairs:
        return {}
    from frameenrich.prepare.params import text_parameters  # noqa: PLC0415 - heavy

    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ParameterError(
                f"--param {pair} has no name, or no =.",
                "Write --param NAME=VALUE, such as temperature=0.",
            )
        try:
            params[name] = json.loads(value)
        except (ValueError, RecursionError):
            params[name] = value
        # A shell takes quotes away: a customer's number is a text where the API takes nothing else.
        if name in text_parameters() and not isinstance(params[name], str | None):
            params[name] = value
    return params


def read_pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """Parse ``key=value`` pairs into a dict of texts.

    Examples
    --------
    >>> read_pairs("--metadata", ["team=catalogue", "run=7"])
    {'team': 'catalogue', 'run': '7'}
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            problem = "gives a key again" if equals and key else "has no key, or no ="
            raise ParameterError(
                f"{option} {pair} {problem}.", f"Write {option} KEY=VALUE once for each key."
            )
        found[key] = value
    return found


def pixels_of(text: str) -> int | Literal["auto"] | None:
    """Parse the longest side of images: a number, ``auto``, or ``none`` for as they are.

    Examples
    --------
    >>> pixels_of("1024"), pixels_of("none")
    (1024, None)
    """
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word == "none":
        return None
    if word.isdecimal() and int(word) > 0:
        return int(word)
    raise ParameterError(
        f"--image-max-pixels {text} is not a number of pixels.",
        "Give a whole number of pixels from 1 on, 'auto' (what the model looks at), or 'none' (as "
        "they are).",
    )


_PRICES = {
    2: ("input", "output"),
    3: ("input", "output", "cached_input"),
    4: ("input", "output", "cached_input", "cache_write"),
}


def read_prices(text: str) -> dict[str, float]:
    """Parse comma-separated amounts into the argument ``prices=``.

    Examples
    --------
    >>> read_prices("0.15,0.60")
    {'input': 0.15, 'output': 0.6}
    """
    try:
        amounts = [float(part) for part in text.split(",")]
        return dict(zip(_PRICES[len(amounts)], amounts, strict=True))
    except (ValueError, KeyError):
        raise ParameterError(
            f"--prices {text} cannot be read.",
            "Write USD per million tokens, --prices INPUT,OUTPUT[,CACHED], such as 0.15,0.60.",
        ) from None


def read_template(text: str | None, path: Path | None) -> str | Path | list[dict[str, str]]:
    """Read the template that was given: a text, a file, or messages from a JSON file."""
    if (text is None) == (path is None):
        problem = "No template was given." if text is None else "Two templates were given."
        raise TemplateError(problem, "Give --template TEXT, --template @FILE or --template-file.")
    text = text or ""
    if text.startswith("@"):
        path = Path(text[1:])
    if path is not None:
        return _read_json(path, TemplateError) if path.suffix == ".json" else path
    # A forgotten @ would ask every row about the name of a file, and be paid for.
    if "{" not in text and os.path.isfile(text):
        raise TemplateError(
            f"The template {text!r} is the name of a file.", f"Write --template @{text} to read it."
        )
    return text


def text_of(text: str) -> str:
    """Return a given text, or the content of a file given as ``@FILE``."""
    if not text.startswith("@"):
        return text
    return _read_text(Path(text[1:]), TemplateError)


def _read_text(path: Path, error_type: type[TemplateError | OutputError]) -> str:
    try:
        # Not the system's encoding: the same command has to send the same prompt on every machine.
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise error_type(f"{path} cannot be read: {reason}.", "Check the path.") from None


def read_response_model(schema: Path | None, name: str | None) -> Any:
    """Return the argument ``response_model=``: a schema from a file, or a class by its name."""
    if schema is not None and name is not None:
        raise OutputError("Both --schema and --response-model were given.", "Give one of them.")
    if name is not None:
        return import_named("--response-model", name)
    return None if schema is None else _read_json(schema, OutputError)


def _read_json(path: Path, error_type: type[TemplateError | OutputError]) -> Any:
    try:
        return json.loads(_read_text(path, error_type))
    except ValueError as error:
        raise error_type(f"{path} is not JSON: {error}.", "Correct the file.") from None


def import_named(option: str, name: str) -> Any:
    """Import ``module:name``; modules of the working folder are found, too.

    Examples
    --------
    >>> import_named("--parser", "json:loads")("[1]")
    [1]
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise OutputError(
            f"{option} {name} does not name a module and an object in it.",
            "Write MODULE:NAME, as in answers:Product for answers.py in this folder.",
        )
    # An installed script has its own folder on the path, not the user's, as python -m has.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # a script without a guard ends itself
        raise OutputError(
            f"{option} {name} cannot be imported: {type(error).__name__}: {error}.",
            "Check the module, the name in it, and the folder you are in.",
        ) from error


def read_rows(path: str) -> Any:
    """Read a table file's rows as a frame.

    Raises
    ------
    InputError
        It cannot be read.
    """
    from frameenrich.cli.tables.files import table_files  # noqa: PLC0415 - heavy
    from frameenrich.cli.tables.read import read_table  # noqa: PLC0415

    with read_table(table_files(path)[0]) as table:
        return table.frame


def read_cache(word: str) -> bool | str:
    """Parse ``--cache`` into the argument of ``submit``.

    Raises
    ------
    ParameterError
        It is another word.

    Examples
    --------
    >>> read_cache("on"), read_cache("seed")
    (True, 'seed')
    """
    words: dict[str, bool | str] = {"on": True, "seed": "seed"}
    if word not in words:
        raise ParameterError(f"--cache {word} is not known.", "Use --cache on, or --cache seed.")
    return words[word]

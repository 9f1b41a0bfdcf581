"""Groups of options as one parameter of a command: each field becomes an option of its own.

`to_argv` goes back: it returns the command-line words that make a group.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints


def flatten_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of its groups, nested ones included."""
    parts = dict(_options_of(command))
    options = [option for _, own in parts.values() for option in own]

    @functools.wraps(command)
    def with_options(**found: Any) -> None:
        command(**{name: _taken(kind, name, found) for name, (kind, _) in parts.items()})

    # Typer reads a command's options from its signature and annotations.
    vars(with_options)["__signature__"] = inspect.Signature(options)
    with_options.__annotations__ = {option.name: option.annotation for option in options}
    return with_options


def _options_of(taker: Any) -> Iterator[tuple[str, tuple[Any, list[inspect.Parameter]]]]:
    """Yield each parameter of a command or a group: its type, and its options."""
    hints = get_type_hints(taker, include_extras=True)
    for parameter in inspect.signature(taker).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind):
            inner = [option for _, (_, own) in _options_of(kind) for option in own]
        else:
            # By keyword: a signature has no required positional parameter after one with a default.
            inner = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)]
        yield parameter.name, (kind, inner)


def _taken(kind: Any, name: str, found: dict[str, Any]) -> Any:
    """Return an option's value, or a group built from its options' values."""
    if not isinstance(kind, type) or not is_dataclass(kind):
        return found[name]
    return kind(**{n: _taken(k, n, found) for n, (k, _) in _options_of(kind)})


def to_argv(group: Any) -> list[str]:
    """Return the command-line words that give these options, without those at their defaults."""
    hints = get_type_hints(type(group), include_extras=True)
    words: list[str] = []
    for field in fields(group):
        value = getattr(group, field.name)
        if is_dataclass(value):
            words += to_argv(value)
        # Defaults are left out: people read the command, and type it.
        elif value != field.default:
            info = get_args(hints[field.name])[1]
            # The first name of its declaration, else its field's, as Typer makes it.
            own = (n for n in (info.default, *(info.param_decls or ())) if isinstance(n, str))
            words += _argv_of(next(own, f"--{field.name.replace('_', '-')}"), value)
    return words


def _argv_of(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        # A flag with two forms is declared as "--stream/--no-stream".
        return [option.split("/")[0 if value else 1]]
    values = value if isinstance(value, list) else [value]
    return [word for each in values for word in (option, str(each))]


def given(group: Any, **changed: Any) -> dict[str, Any]:
    """Return the given options of a group by name, some of them changed.

    None or False means that an option was not given; nested groups are left out.
    """
    own = {name: value for name, value in vars(group).items() if not is_dataclass(value)}
    return {
        name: value
        for name, value in {**own, **changed}.items()
        if value is not None and value is not False
    }

"""Groups of options as one parameter of a command: each field becomes an option of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of the groups that it takes, and of theirs."""
    parts = dict(_options_of(command))
    options = [option for _, own in parts.values() for option in own]

    @functools.wraps(command)
    def with_options(**found: Any) -> None:
        command(**{name: _taken(kind, name, found) for name, (kind, _) in parts.items()})

    vars(with_options)["__signature__"] = inspect.Signature(options)
    with_options.__annotations__ = {option.name: option.annotation for option in options}
    return with_options


def _options_of(taker: Any) -> Iterator[tuple[str, tuple[Any, list[inspect.Parameter]]]]:
    """Each parameter of a command or a group: what it is, and the options that make it up."""
    hints = get_type_hints(taker, include_extras=True)
    for parameter in inspect.signature(taker).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind):
            inner = [option for _, (_, own) in _options_of(kind) for option in own]
        else:
            inner = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)]
        yield parameter.name, (kind, inner)


def _taken(kind: Any, name: str, found: dict[str, Any]) -> Any:
    """An option's value, or the group that is made of its own options' values."""
    if not isinstance(kind, type) or not is_dataclass(kind):
        return found[name]
    return kind(**{n: _taken(k, n, found) for n, (k, _) in _options_of(kind)})

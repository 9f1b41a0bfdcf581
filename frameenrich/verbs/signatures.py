"""Show one method's options in the signature of another, for editors and error messages."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def takes_options_of(
    *verbs: Callable[..., Any], **defaults: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show the keyword-only parameters of other verbs in the signature of one with ``**options``.

    An unknown option is an error that names the nearest one.

    Parameters
    ----------
    *verbs : callable
        Whose options it takes, beside its own.
    **defaults
        Defaults that differ here from those of the other verbs.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(method)
        known = {
            name: parameter
            for name, parameter in signature.parameters.items()
            # ``**options`` goes: its members are listed one by one instead.
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        for verb in verbs:
            for name, parameter in inspect.signature(verb).parameters.items():
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    default = defaults.get(name, parameter.default)
                    # A method's own option wins over one of the same name that it takes over.
                    known.setdefault(name, parameter.replace(default=default))

        @functools.wraps(method)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            for name, value in options.items():
                if name not in known:
                    _refuse(method.__name__, name, value, list(known))
            return method(*args, **options)

        # inspect, and so editors and help(), prefer this attribute to the real signature.
        vars(checked)["__signature__"] = signature.replace(parameters=list(known.values()))
        return checked

    return decorate


def reading(*, labels: Any = None, response_model: Any = None, parser: Any = None) -> None:
    """Hold the options that read stored answers in another way; only its signature is used."""


def _refuse(verb: str, name: str, value: Any, known: list[str]) -> None:
    import difflib  # noqa: PLC0415 - only where an option is misspelt

    from frameenrich.errors import UnknownOptionError  # noqa: PLC0415
    from frameenrich.prepare.params import request_parameters  # noqa: PLC0415

    options = [each for each in known if each != "self"]
    # Most unknown options are request parameters, which belong into params=.
    params = request_parameters() if "params" in options else frozenset()
    close = difflib.get_close_matches(name, [*options, *params], n=1)
    if close and close[0] in params and close[0] not in options:
        fix = f"Did you mean params={{{close[0]!r}: {value!r}}}?"
    else:
        fix = f"Did you mean {close[0]!r}?" if close else f"It takes {', '.join(options)}."
    raise UnknownOptionError(f"{verb}() has no option {name!r}.", fix, name=name)

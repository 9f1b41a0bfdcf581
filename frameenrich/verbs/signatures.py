"""Show one method's options in another's signature, and refuse calls that cannot be meant.

A mistake in a call is one sentence that names the nearest name or shows how to write it; Python's
own words for it do neither.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from frameenrich.verbs.argument_kinds import check_kind, plain

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def takes_options_of(
    *verbs: Callable[..., Any], **defaults: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show the keyword-only parameters of other verbs in the signature of one with ``**options``.

    An unknown option is an error that names the nearest one; so are a missing argument, one too
    many, and a value of another kind.

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
        shown = signature.replace(parameters=list(known.values()))

        @functools.wraps(method)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            own = {name: plain(value) for name, value in options.items()}
            _check_call(method.__name__, shown, args, own)
            return method(*args, **cast("Any", own))

        if inspect.iscoroutinefunction(method):  # a plain wrapper of one would be none any more

            @functools.wraps(method)
            async def awaited(*args: Any, **options: Any) -> Any:
                return await cast("Any", checked)(*args, **options)

            vars(awaited)["__signature__"] = shown
            return cast("Callable[P, R]", awaited)
        # inspect, and so editors and help(), prefer this attribute to the real signature.
        vars(checked)["__signature__"] = shown
        return checked

    return decorate


def checks_calls(cls: type[T]) -> type[T]:
    """Check the calls of a class's own public methods, as `takes_options_of` checks one's."""
    for name, method in list(vars(cls).items()):
        # Properties take nothing.
        if not inspect.isfunction(method) or name.startswith("_"):
            continue
        kinds = {p.kind for p in inspect.signature(inspect.unwrap(method)).parameters.values()}
        # With options of another verb it has a decorator of its own.
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            setattr(cls, name, takes_options_of()(method))
    return cls


class NamesNearest:
    """A class whose unknown attributes are errors that name the nearest one."""

    _called = ""
    """What users write for an object of this class."""

    _else_meant = ""
    """What they may have meant by a name that is like none of it."""

    if not TYPE_CHECKING:  # or type checkers would take every attribute for one of this class

        def __getattr__(self, name: str) -> Any:
            """Refuse a name that the class does not have."""
            known = [each for each in dir(type(self)) if not each.startswith("_")]
            # IPython, copy and pickle try many private names and want a quick and plain no. A
            # property that failed inside comes here, too; its own error is the one to show.
            if name.startswith("_") or name in known:
                return object.__getattribute__(self, name)
            raise unknown_name(self._called, name, known, self._else_meant)


def unknown_name(
    owner: str, name: str, known: Sequence[str], else_meant: str = ""
) -> AttributeError:
    """Make the error for a name that a module or an object does not have.

    Examples
    --------
    >>> print(unknown_name("A job", "colect", ["collect", "cancel"]))
    A job has no 'colect'. Did you mean 'collect'?
    """
    import difflib  # noqa: PLC0415 - only where a name is misspelt

    from frameenrich.errors import UnknownNameError  # noqa: PLC0415

    close = difflib.get_close_matches(name.lower(), known, n=1)
    fix = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(known)}.{else_meant}"
    return UnknownNameError(f"{owner} has no {name!r}.", fix)


def reading(*, labels: Any = None, response_model: Any = None, parser: Any = None) -> None:
    """Hold the options that read stored answers in another way; only its signature is used."""


def _check_call(
    verb: str, signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]
) -> None:
    for name, value in options.items():
        if name not in signature.parameters:
            _refuse(verb, name, value, list(signature.parameters))
    try:
        given = signature.bind(*args, **options).arguments
    except TypeError as error:
        raise _bad_call(verb, signature, args, options) from error.__cause__
    for name, value in given.items():
        check_kind(name, value, signature.parameters[name].default)


def _bad_call(
    verb: str, signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]
) -> TypeError:
    from frameenrich.errors import UnknownOptionError  # noqa: PLC0415 - only for a mistake

    parameters = list(signature.parameters.values())
    by_position = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    by_name = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    given = {*by_position[: len(args)], *options}
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    shown = [name for name in by_position if name != "self"]
    if len(args) > len(by_position):
        takes = f"only {' and '.join(shown)}" if shown else "nothing"
        return UnknownOptionError(
            f"{verb}() takes {takes} without a name.",
            f"Write the name, too: {', '.join(f'{each}=...' for each in by_name[:3])}"
            if by_name
            else "Leave the rest out.",
        )
    if missing:
        required = [p for p in parameters if p.default is p.empty and p.name != "self"]
        call = ", ".join(f"{p.name}=..." if p.name in by_name else p.name for p in required)
        return UnknownOptionError(
            f"{verb}() was not given {' and '.join(map(repr, missing))}.", f"Write {verb}({call})."
        )
    twice = [name for name in by_position[: len(args)] if name in options]
    return UnknownOptionError(
        f"{verb}() was given {twice[0]!r} twice, by its position and by its name.", "Give it once."
    )


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
    elif close:
        fix = f"Did you mean {close[0]!r}?"
    else:
        fix = f"It takes {', '.join(options)}." if options else "It takes none."
    raise UnknownOptionError(f"{verb}() has no option {name!r}.", fix, name=name)

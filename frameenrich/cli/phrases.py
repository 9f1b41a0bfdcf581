"""Translate messages about Python calls into messages about flags and commands.

Messages are written once, for callers from Python. On the command line the same message has to name
what can be typed there.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
from functools import cache
from typing import get_type_hints

from frameenrich.cli.values import read_params

_PARAM = re.compile(r"""params=\{["'](\w+)["']: ?(\{[^{}]*\}|\.\.\.|[^{}]*?)\}""")


_COMMANDS: tuple[tuple[str, str], ...] = (
    (r"frameenrich\.jobs\([^)]*\) lists", "frameenrich jobs lists"),
    (
        r"(?:the )?output file of the requests in job\.requests",
        "the output file of the job's requests",
    ),
    (r"(?:job|df\.llmbatch)\.import_responses\(path\)", "frameenrich import JOB FILE"),
    (r"(?:job|df\.llmbatch)\.wait\(\)", "frameenrich collect --wait"),
    (r"job\.flagged\(\) says why", "the error column of frameenrich collect says why"),
    (r"(?:job\.|(?<![.\w]))regenerate\(\)", "frameenrich regenerate"),
    (r"job\.give_up\(\)", "frameenrich give-up"),
    (r"job\.give_up\(force=True\)", "frameenrich give-up --force"),
    (r"df\.llmbatch\.review\(job, n=(\d+)\)", r"frameenrich review JOB review.html --n \1"),
    (r"job\.second_opinion\(model\)", "frameenrich compare with another model's job"),
    (r"job\.add_review\('([^']*)'\)", r"frameenrich add-review JOB \1"),
    (r"job\.evaluate\(frame, truth='(\w+)'\)", r"--truth \1 --in FILE"),
    (r"Review\.to_csv", "frameenrich review"),
    (r"collect\(job=\.\.\.\)", "frameenrich collect JOB IN OUT"),
    (r"collect\(parser=\.\.\.\)", "--parser MODULE:FUNC"),
    (r"collect\(response_model=(\w+)\)", r"--response-model MODULE:\1"),
    (r"job\.collect\((\w+)=\.\.\.\)", r"frameenrich collect --\1"),
    (r"submit\((\w+)=(\d+)\)", r"frameenrich submit --\1 \2"),
    (r"collect\(usage=True\)", "frameenrich collect --usage"),
    (r"collect\(\) later", "frameenrich collect later"),
    (r",? or use job\.collect\(\) without a frame", ""),
    (r"Use job\.collect\(\) without a frame, and join what it gives by its key\.", "Submit again."),
    (r"pilot\(\)", "frameenrich pilot"),
    (r"submit\(\) sets itself", "is set already"),
    (
        r"(?:Read the file with \w+=|Set frame\[|Keep the frame as).*, or submit the frame",
        "Give the file that was submitted, or submit this one",
    ),
    (r"the answers: examples\.rename\(columns=\{\.\.\.: ('[^']*')\}\)", r"the answers to \1"),
    (r"statuses=\['(\w+)'\]", r"--status \1"),
    (r"statuses=", "--status"),
    (r"older_than=", "--older-than "),
    (r"Pass pathlib\.Path\('?([^')]*)'?\) to read it", r"Write --template @\1 to read it"),
    (r"Pass pathlib\.Path\(\.\.\.\) with the whole path", "Write --template @ and the whole path"),
    (r"Use model=, template= and system= instead", "Use --model, --template and --system instead"),
    (r",? or call reset_index\(drop=True\) first", ", or leave --key out"),
    (r"(Set [^.;]+?) or pass client=", r"\1"),
    (r"""Pass prices=\{"input": \.\.\., "output": \.\.\.\}""", "Pass --prices INPUT,OUTPUT"),
    (r"Pass match=, such as lambda .*?, or have people judge it", "Have people judge it"),
    (r"Pass truth=\{'([^']*)': '([^']*)'\}", r"Pass --truth \1=\2"),
    (r"Pass job= to choose", "Name the job to choose"),
    (r"response_model=", "--schema or --response-model "),
    (r"(?:job|df\.llmbatch)\.([a-z]+)\([^()]*\)", r"frameenrich \1"),
    (r"max_rounds=(\d+) without wait=True\.", r"--max-rounds \1 without --wait."),
)
"""Patterns in messages for Python, and their replacements on the command line.

The order counts: special patterns come before the general ones that would match the same text.
"""


_FLAGS = {
    "requests_per_minute": "rpm",
    "tokens_per_minute": "tpm",
    "request_timeout_seconds": "request-timeout",
    "params": "param",
}
"""Options with another name on the command line."""


_OF_OTHER_VERBS = {"by", "level", "model", "n", "reviewer", "tolerance", "truth"}


@cache
def _argument() -> re.Pattern[str]:
    """Match an argument of ours and its value, but not texts of templates and answers."""
    from frameenrich.prepare.reading_options import CollectOptions  # noqa: PLC0415 - heavy
    from frameenrich.prepare.submit_options import SubmitOptions  # noqa: PLC0415

    known = {*get_type_hints(SubmitOptions), *get_type_hints(CollectOptions), *_OF_OTHER_VERBS}
    return re.compile(
        # Longest names first: an alternation takes the first that fits.
        rf"""(?<![\w."'{{-])(?<!--param )({"|".join(sorted(known, key=len, reverse=True))})="""
        r"""(True\b|None\b|"""
        r"""'[^'\n]*'(?: or '[^'\s]*')*|"[^"\s]*"|-?[\d.]*\d|\[[^\]]*\]|\{[^}]*\}|\.\.\.)?"""
    )


_FRAME = re.compile(r"\b([Tt]he|[Aa]|[Tt]his|whole) frame\b(?!['\"] |\.\w)")


def in_flags(message: str) -> str:
    """Translate a message for the command line.

    Examples
    --------
    >>> in_flags("Pass overwrite=True to replace them.")
    'Pass --overwrite to replace them.'
    >>> in_flags("Leave it out, or pass on_null='empty' or 'skip'.")
    'Leave it out, or pass --on-null empty or skip.'
    >>> in_flags("did you mean params={'temperature': 0.1}?")
    'did you mean --param temperature=0.1?'
    >>> in_flags("Write params={'logprobs': True}; {...} means others.")
    'Write --param logprobs=true; {...} means others.'
    >>> in_flags("Pass image_max_pixels=None to send images as they are.")
    'Pass --image-max-pixels none to send images as they are.'
    >>> in_flags("Read the file with dtype={'c': str}, or submit the frame as it is now.")
    'Give the file that was submitted, or submit this one as it is now.'
    """
    for pattern, words in _COMMANDS:
        message = re.sub(pattern, words, message)
    message = _PARAM.sub(_as_param, message)
    message = _argument().sub(_as_flag, message)
    # Last, as patterns above match the word; column names and Python's attributes are left alone.
    message = _FRAME.sub(r"\1 table", message)
    # Replacements that drop words leave blanks behind, also before a full stop.
    return re.sub(r"  +", " ", re.sub(r" ([.,;:?])(?=\s|$)", r"\1", message))


def _as_param(found: re.Match[str]) -> str:
    """Write a parameter as a shell passes it on, its value as JSON."""
    name, value = found.groups()
    # What stands for any value, such as {...}, is no JSON and stays as it is.
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        meant = ast.literal_eval(value)
        pair = f"{name}={json.dumps(meant, ensure_ascii=False)}"
        if isinstance(meant, str) and read_params([f"{name}={meant}"]) == {name: meant}:
            pair = f"{name}={meant}"
        return f"--param {shlex.quote(pair)}"
    return f"--param {name}={value}"


def _as_flag(found: re.Match[str]) -> str:
    name, value = found.group(1), found.group(2) or ""
    flag = f"--{_FLAGS.get(name, name).replace('_', '-')}"
    words = {"True": "", "...": "", "None": "none"}.get(value, value)
    if " " not in value.replace("' or '", ""):  # a shell needs no quotes
        bare = words.replace("'", "").replace('"', "")
        words = bare if bare.strip(".,;:?") else words  # a dot alone would end the sentence
    return f"{flag} {words}" if words else flag

"""Run the command line in a process of its own that has its imports behind it.

Starting an interpreter and importing pandas, pyarrow and the SDK costs some four seconds a command,
and the tests give hundreds. Here one process imports them and forks a child for each command: the
child has its own arguments, folder, environment, files and exit code, as from a shell.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

_HEAVY = [
    "aiohttp",
    "json_repair",
    "jsonschema_rs",
    "openai.resources.batches",
    "pyarrow.csv",
    "pyarrow.json",
    "pyarrow.parquet",
    "rich.console",
    "rich.table",
]
_OWN_START = ("anthropic", "gemini", "mistral", "local")  # SDKs and weights that few commands need


def run(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Give one command, in this folder and environment, and wait for its end."""
    worker = _worker()
    assert worker.stdin is not None
    assert worker.stdout is not None
    words = [*map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("in", "out", "err")]
        files[0].write_bytes(stdin or b"")
        command = {
            "arguments": words,
            "cwd": os.getcwd(),
            "environment": dict(os.environ),
            "files": [*map(str, files)],
        }
        worker.stdin.write(json.dumps(command).encode() + b"\n")
        worker.stdin.flush()
        code = json.loads(worker.stdout.readline())
        return subprocess.CompletedProcess(
            words, code, files[1].read_bytes(), files[2].read_bytes()
        )


@cache
def _worker() -> subprocess.Popen[bytes]:
    """Start the process that forks; it ends with its standard input, that is with this process."""
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _import_all() -> None:
    import frameenrich

    found = pkgutil.walk_packages(frameenrich.__path__, "frameenrich.", onerror=lambda _: None)
    names = [each.name for each in found if not any(f".{own}" in each.name for own in _OWN_START)]
    for name in [*names, *_HEAVY]:
        importlib.import_module(name)


def _become(command: dict[str, Any]) -> None:
    """Be the command's process; it does not return."""
    from frameenrich.cli.main import main

    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["cwd"])
    write = os.O_WRONLY | os.O_CREAT
    for fd, flags in enumerate((os.O_RDONLY, write, write)):
        os.dup2(os.open(command["files"][fd], flags), fd)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the worker's has read on
    sys.path.insert(0, "")  # as `python -c`: a user's own modules lie in the folder
    sys.argv = ["frameenrich", *command["arguments"]]
    main()


def _serve() -> None:
    _import_all()
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            try:
                _become(json.loads(line))
            except BaseException:  # noqa: BLE001 - whatever it is, the child has to end here
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(70)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    _serve()

"""Start Python processes that have their imports behind them: `Popen` and `run`, as subprocess has.

Starting an interpreter and importing pandas, pyarrow and the SDK costs some four seconds of the
processor, and the tests start hundreds. Here one process for each process of the tests imports
them, and forks for every ``[sys.executable, "-c", code, ...]`` and ``[sys.executable, path, ...]``.
What comes of it is a process like any other: with a folder, an environment, files, signals, an exit
code and a death of its own. A test of starting or importing needs `subprocess` itself.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

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
_SET_CHILD_SUBREAPER = 36  # of prctl(2)


class Popen(subprocess.Popen[Any]):
    """A :class:`subprocess.Popen` whose process is forked where the imports are done."""

    def _execute_child(self, args: Any, *others: Any) -> None:
        """Do what subprocess does in its method of this name; the pipes are the last six."""
        (cwd, env), pipes = others[4:6], others[9:15]
        ends = [pipes[0], pipes[3], pipes[5]]  # what the child reads and writes
        words = [*map(os.fspath, args)]
        assert words[0] == sys.executable, words
        command = {
            "words": words[1:],
            "cwd": os.fspath(cwd or os.getcwd()),
            "environment": dict(os.environ if env is None else env),
            "cores": list(os.sched_getaffinity(0)),  # the server may have begun with others
        }
        files = [own if end == -1 else end for own, end in enumerate(ends)]
        with _LOCK:
            server = _server()
            socket.send_fds(server, [json.dumps(command).encode()], files)
            self.pid = int(server.recv(100))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined] # subprocess' own


def run(
    args: Any,
    *,
    input: Any = None,  # noqa: A002 - as subprocess names it
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a process to its end, as `subprocess.run` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


_LOCK = threading.Lock()


@cache
def _server() -> socket.socket:
    """Start the process that forks; it ends when this one does, which closes its socket."""
    # Its grandchildren become children of this process, which so can wait for them.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _serve(fileno: int) -> None:
    _import_all()
    gc.collect()
    gc.freeze()  # or each child's first collection copies all of the memory
    with socket.socket(fileno=fileno) as client:
        while True:
            message, files, _, _ = socket.recv_fds(client, 1 << 20, 3)
            if not message:
                return
            reading, writing = os.pipe()
            between = os.fork()
            if between == 0:  # ends at once, so that its child is handed to the tests' process
                child = os.fork()
                if child == 0:
                    _become(json.loads(message), files)
                os.write(writing, str(child).encode())
                os._exit(0)
            os.waitpid(between, 0)  # only now the child is theirs to wait for
            client.send(os.read(reading, 100))
            os.close(reading)
            os.close(writing)
            for file in files:
                os.close(file)


def _import_all() -> None:
    import tqdm

    import frameenrich

    # A lock of tqdm's own is shared by forks: a child that is killed with it would stop all others.
    tqdm.tqdm.set_lock(threading.RLock())
    found = pkgutil.walk_packages(frameenrich.__path__, "frameenrich.", onerror=lambda _: None)
    names = [each.name for each in found if not any(f".{own}" in each.name for own in _OWN_START)]
    for name in [*names, *_HEAVY]:
        importlib.import_module(name)


def _become(command: dict[str, Any], files: list[int]) -> NoReturn:
    """Be the process that was asked for, from its files to its end."""
    code = 1
    try:
        for fd, file in enumerate(files):
            os.dup2(file, fd)
        os.closerange(3, 1024)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.sched_setaffinity(0, command["cores"])
        os.chdir(command["cwd"])
        os.environ.clear()
        os.environ.update(command["environment"])
        tempfile.tempdir = None
        for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
            unbuffered = fd == 2 or os.isatty(fd)
            stream = open(fd, mode, 1 if unbuffered else -1, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        code = _exit_code_of(command["words"])
        threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as at any end
        atexit._run_exitfuncs()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
    finally:
        os._exit(code)


def _exit_code_of(words: list[str]) -> int:
    """Run ``-c CODE`` or a file or folder, and return what Python would end with."""
    search = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = "" if words[0] == "-c" else str(Path(words[0]).resolve().parent)
    sys.path[:] = [own, *filter(None, search), *sys.path[1:]]
    sys.argv = words[1:] if words[0] == "-c" else words
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(words[1], "<string>", "exec"), vars(main))
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201 - as Python does
        return 1
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    _serve(int(sys.argv[1]))

"""The peers from PyPI and an older checkout of ours, each in a virtual environment of its own.

The environments lie outside of the repository.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "frameenrich-benchmarks"


@dataclass(frozen=True)
class Peer:
    """What to install, as words of ``uv pip install``, and what to import to see that it works."""

    packages: tuple[str, ...]
    module: str

    @property
    def is_checkout(self) -> bool:
        """Tell whether it is code on this disk, which may be another tomorrow."""
        return self.packages[0] == "-e"

    @property
    def folder(self) -> Path:
        """Where its environment is."""
        if self.is_checkout:
            return CACHE / f"before-{hashlib.sha256(self.packages[1].encode()).hexdigest()[:12]}"
        return CACHE / "-".join(self.packages).translate(str.maketrans("=<", "__"))


LANGBATCH = Peer(("langbatch==0.1.2",), "langbatch.openai")
INSTRUCTOR_1_9 = Peer(("instructor==1.9.2",), "instructor.batch")
INSTRUCTOR = Peer(("instructor==1.17.0",), "instructor.batch")
# Beside openai 3, which its own bounds allow, it does not import: it wants httpx.
OPENAI_BATCH = Peer(("openai-batch==0.3.4", "openai<3"), "openai_batch")


def checkout(path: Path) -> Peer:
    """Return the peer that an older checkout of this repository is."""
    return Peer(("-e", str(path.resolve())), "frameenrich")


class PeerError(Exception):
    """A peer cannot be installed or imported."""


@cache
def python_of(peer: Peer | None) -> Path:
    """The interpreter that has a peer; this one for None.

    Raises
    ------
    PeerError
        Says what went wrong.
    """
    if peer is None:
        return Path(sys.executable)
    python = peer.folder / "bin" / "python"
    # An older checkout may be at another commit since, with other dependencies.
    if peer.is_checkout or not (peer.folder / "ready").exists():
        names = ["pandas", "pyarrow", "pydantic", "jinja2"]
        names += ["msgspec", "orjson"] if peer.is_checkout else []
        same = [f"{name}=={version(name)}" for name in names]
        short = f"{sys.version_info.major}.{sys.version_info.minor}"
        _run("uv", "venv", "-q", "--clear", "--python", short, str(peer.folder))
        _run("uv", "pip", "install", "-q", "--python", str(python), *peer.packages, *same)
        _run(str(python), "-c", f"import {peer.module}", OPENAI_API_KEY="sk-benchmark")
        (peer.folder / "ready").touch()
    return python


def _run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        cwd=CACHE.parent,
    )
    if done.returncode:
        raise PeerError((done.stderr.strip().splitlines() or ["no message"])[-1])

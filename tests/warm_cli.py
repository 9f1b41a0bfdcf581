"""Run the command line in a process of its own that has its imports behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import warm

COMMAND = [sys.executable, "-c", "from frameenrich.cli.main import main; main()"]


def run(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Give one command, in this folder and environment, and wait for its end."""
    return warm.run([*COMMAND, *arguments], input=stdin or b"", capture_output=True)

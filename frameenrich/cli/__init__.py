"""The command line."""

from __future__ import annotations

from frameenrich.cli.main import main

__all__ = ["main"]

"""Run the server as a process of its own: ``python tests/batch_server --port 0``.

It prints its base URL on a line and serves until it is killed. ``GET /_ledger`` shows its books;
``POST /_control`` takes ``{"action": "add", "name": "stuck", ...}``, and ``clear``, ``advance``,
``finish``, ``hold``, ``release``, ``set``, with the arguments of the methods of those names.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from batch_server import BatchServer, Faults, make_fault


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="batch_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument(
        "--options", type=json.loads, default={}, help='parameters as JSON: {"instant": true}'
    )
    parser.add_argument(
        "--fault",
        type=_read_fault,
        action="append",
        default=[],
        help='a fault\'s name, or JSON: {"name": "expired", "ran": 0.2}',
    )
    return parser.parse_args(arguments)


def _read_fault(text: str) -> dict[str, Any]:
    fault: dict[str, Any] = json.loads(text) if text.startswith("{") else {"name": text}
    return fault


def main() -> None:
    """Serve until killed."""
    arguments = parse_arguments()
    faults = Faults(*(make_fault(**fault) for fault in arguments.fault))
    server = BatchServer(faults=faults, **arguments.options)
    server.port = arguments.port
    with server:
        print(server.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

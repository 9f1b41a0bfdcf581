"""Run the server as a process of its own: ``python tests/anthropic_server``; prints its address."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anthropic_server import AnthropicServer

if __name__ == "__main__":
    with AnthropicServer() as server:
        print(server.origin, flush=True)
        threading.Event().wait()

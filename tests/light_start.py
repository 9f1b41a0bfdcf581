"""Make the processes and clients of the tests cheap to start. Import it before anything else.

Compiled files are kept also where `PYTHONDONTWRITEBYTECODE` is set, as container images do. Without
them each process that imports pandas, pyarrow and the SDKs compiles them anew, for some fifteen
seconds of the processor, and the tests start hundreds. What the variable is set for is respected:
nothing is written beside a source, but into a folder that git ignores.

Every client of an SDK loads the certificates of some 140 authorities, for 30 ms, as much as half
of an ordinary test; the tests' servers are on loopback, without TLS, so one certificate will do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_TESTS = Path(__file__).parent

# All of this is for the processes that the tests start, too, those of pytest-xdist first.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(_TESTS.parent / ".cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
os.environ.pop("SSL_CERT_DIR", None)
os.environ["SSL_CERT_FILE"] = str(_TESTS / "no_authority.pem")

"""Keep what Python compiles, also where `PYTHONDONTWRITEBYTECODE` is set, as container images do.

Without compiled files each process that imports pandas, pyarrow and the SDKs compiles them anew,
for some fifteen seconds of the processor, and the tests start hundreds. What the variable is set
for is respected: nothing is written beside a source, but into a folder that git ignores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parent.parent / ".cache" / "bytecode")
    # Processes that the tests start, those of pytest-xdist first, do the same.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

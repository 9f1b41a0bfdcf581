"""Break what answers and money hang on, one place at a time, and say which test noticed.

    uv run --group mutation python tests/mutants_by_hand.py [--only WORD]

`mutation.py` changes whatever there is; these are the mistakes that would cost most. Each meets
the tests that guard its promise, until one fails; a table of both is printed at the end. One that
nothing notices, or that no longer fits the code, is an error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mutation import FEW, ROOT, WARM, Mutant, Tests, doubt, run_all


@dataclass(frozen=True)
class Mistake:
    """Some text of a module, once in it, and what somebody might make of it."""

    what: str
    module: str
    text: str
    mistake: str
    tests: str
    """Those that must notice, with blanks between."""


_ONCE = "providers/once.py"
_LOCAL = "store/local.py"


MISTAKES = (
    Mistake(
        "a frame in another order counts as the submitted one",
        "lifecycle/match.py",
        "not np.array_equal(positions, np.arange(len(sidecar)))",
        "len(positions) != len(sidecar)",
        "tests/identity/test_fingerprint.py",
    ),
    Mistake(
        "the search for a lost batch or file reads the first page of a list only",
        _ONCE,
        "if not page.has_next_page():\n            return",
        "return",
        "tests/lifecycle/test_absence.py",
    ),
    Mistake(
        "a download without a last line end gets none",
        _ONCE,
        'if not last.endswith(b"\\n"):\n                sink.write(b"\\n")',
        "pass",
        "tests/providers/test_line_ends.py",
    ),
    Mistake(
        "no fsync of a file before it is renamed",
        "atomic.py",
        "        sync(file)\n        file.close()",
        "        file.close()",
        "tests/store/test_syncs.py",
    ),
    Mistake(
        "no fsync of the folder after a file in it is renamed",
        "atomic.py",
        "        os.replace(file.name, path)\n        sync_folder(folder)",
        "        os.replace(file.name, path)",
        "tests/store/test_syncs.py",
    ),
    Mistake(
        "no fsync of a draft's files",
        "store/draft.py",
        "            sync(self._files[relative])  # where that fails, `close` closes it\n",
        "",
        "tests/store/test_syncs.py",
    ),
    Mistake(
        "no fsync of a draft's own folders before it is renamed",
        _LOCAL,
        "            sync_folder(folder)\n",
        "            pass\n",
        "tests/store/test_syncs.py",
    ),
    Mistake(
        "no fsync of the folder in which a draft gets its name",
        _LOCAL,
        "        sync_folder(os.path.dirname(destination))\n",
        "",
        "tests/store/test_syncs.py",
    ),
    Mistake(
        "the error file is ignored",
        _ONCE,
        "(batch.output_file_id, batch.error_file_id)):\n        start",
        "(batch.output_file_id,)):\n        start",
        "tests/lifecycle/test_faults.py",
    ),
    Mistake(
        "answers are joined to the frame's rows in reverse",
        "lifecycle/collect.py",
        "        slots = found.at(positions)\n        columns",
        "        slots = found.at(positions)[::-1]\n        columns",
        "tests/verbs/test_job.py",
    ),
    Mistake(
        "what is wrong with one flagged row is said of another",
        "lifecycle/collect.py",
        "    own = slots[rows]\n",
        "    own = slots[rows][::-1]\n",
        "tests/verbs/test_job.py tests/lifecycle/test_regenerate.py",
    ),
    Mistake(
        "a requests file is sent whatever its hash says",
        "lifecycle/check_requests.py",
        "if quick_hash(file) == written:",
        "if quick_hash(file):",
        "tests/lifecycle/test_damage.py",
    ),
    Mistake(
        "a responses file of the right length is believed",
        "store/proof.py",
        "if self._quick.hexdigest() != self._proof.xxh3:",
        "if not self._quick:",
        "tests/lifecycle/test_damage.py",
    ),
    Mistake(
        "a record is written without proving that the lease still holds",
        "store/lease.py",
        "        self.check()\n        if path not in",
        "        if path not in",
        "tests/store/test_leases.py tests/store/test_bucket.py",
    ),
    Mistake(
        "a lease is taken over though its holder lives",
        "store/lease.py",
        "return unchanged_seconds > seconds or",
        "return True or",
        "tests/store/test_leases.py tests/store/test_bucket.py",
    ),
    Mistake(
        "a batch with another job's tag is taken for the lost one",
        "providers/openai/batch.py",
        "(made for made in found if _tag_of(made) == tag)",
        "(made for made in found)",
        "tests/lifecycle/test_absence.py tests/lifecycle/test_faults.py",
    ),
    Mistake(
        "lines with another job's tag count as this job's answers",
        "jsonl.py",
        "    return not tag or not named.startswith(b'\"') or",
        "    return True or",
        "tests/lifecycle/test_partial_files.py tests/lifecycle/test_service_replies.py",
    ),
    Mistake(
        "an answer that ended with network_error counts as whole",
        "answers/body.py",
        '{"stop", "eos",',
        '{"stop", "network_error", "eos",',
        "tests/answers/test_whole_answers.py",
    ),
    Mistake(
        "the cap of submit is not checked when a later round is sent",
        "lifecycle/approve.py",
        "cap = budget.max_cost if budget.max_cost is not None else spec.max_cost",
        "cap = budget.max_cost",
        "tests/verbs/test_cost.py",
    ),
    Mistake(
        "what still runs does not count against the cap",
        "lifecycle/approve.py",
        "_spent_usd(folder, prices), running)",
        "_spent_usd(folder, prices))",
        "tests/verbs/test_cost.py",
    ),
    Mistake(
        "a null answer is read as text, and is malformed instead of empty",
        "answers/judge.py",
        '    if not (answer.text or "").strip():\n        return flagged(RowStatus.EMPTY',
        "    if answer.text is not None and not answer.text.strip():\n"
        "        return flagged(RowStatus.EMPTY",
        "tests/lifecycle/test_faults.py tests/answers",
    ),
    Mistake(
        "an answer is reused that the new job's schema refuses",
        "lifecycle/reuse.py",
        "    good = np.flatnonzero(found.table.codes[found.slots] == OK_CODE)",
        "    good = np.flatnonzero(found.slots >= 0)",
        "tests/lifecycle/test_reused_answers.py tests/lifecycle/test_resume.py",
    ),
    Mistake(
        "an answer of another provider is reused",
        "lifecycle/reuse.py",
        "return alike and other.url == spec.url and",
        "return other.url == spec.url and",
        "tests/lifecycle/test_resume.py",
    ),
    Mistake(
        "a batch is created before the intent is on disk",
        _ONCE,
        "batch = writer.record(begin_create(batch))",
        "batch = begin_create(batch)",
        "tests/lifecycle/test_faults.py tests/lifecycle/test_absence.py",
    ),
)


def main() -> int:
    """Print which test noticed each; 1 where one was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="those whose description has this")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.update(FEW)
    for name in sorted(WARM):
        importlib.import_module(name)
    made = [mutant_of(mistake) for mistake in MISTAKES if asked.only in mistake.what]
    with tempfile.TemporaryDirectory(prefix="frameenrich-mutants-") as temporary:
        tests = Tests(Path(temporary), ["tests"])
        run_all(made, tests, asked.jobs, time.monotonic() + 10 * 3600)
        doubt(made, tests.reports)
    for mutant in made:
        print(f"| {mutant.what} | `{mutant.noticed_by.removeprefix('tests/')}` |")
    return sum(mutant.outcome not in {"noticed", "time"} for mutant in made)


def mutant_of(mistake: Mistake) -> Mutant:
    """Make a mistake, which must fit the code at one place."""
    path = Path(ROOT, "frameenrich", mistake.module)
    before, *rest = (source := path.read_text()).split(mistake.text)
    if len(rest) != 1:
        raise ValueError(f"{mistake.what}: {mistake.module} has that text {len(rest)} times")
    changed = source.replace(mistake.text, mistake.mistake)
    row = before.count("\n") + 1
    module = str(path.relative_to(ROOT))
    return Mutant(module, row, mistake.what, changed, tests=mistake.tests.split())


if __name__ == "__main__":
    sys.exit(main())

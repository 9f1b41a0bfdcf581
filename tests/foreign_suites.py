"""Read the test classes and schemas of other projects as answers, and count who agrees.

    uv run --with dirty-equals --with pytest-mock ... python tests/foreign_suites.py

The tests of pydantic, openai-python and instructor run from their source distributions, of the
versions that are installed, with `foreign_recorder` listening; JSON-Schema-Test-Suite comes with
jsonschema's. The end is a table for `tests/README.md`, and every disagreement that nobody is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from foreign_recorder import answer

from frameenrich.errors import FrameEnrichError

HERE = Path(__file__).parent
_PYDANTIC = [
    "aliases", "annotated", "computed_fields", "config", "create_model", "datetime", "edge_cases",
    "fields", "forward_ref", "generics", "json", "json_schema", "main", "model_validator",
    "networks", "parse", "private_attributes", "root_model", "serialize", "strict", "types",
    "validators",
]  # fmt: skip
SUITES = {
    "pydantic": ("pydantic.", [f"tests/test_{name}.py" for name in _PYDANTIC]),
    "openai": ("openai.", ["tests/lib/chat", "tests/lib/responses", "tests/lib/test_pydantic.py"]),
    "instructor": ("instructor.", ["tests", "--ignore=tests/llm"]),  # that asks real services
}
"""By package, the modules that are none of its tests, and where its tests are."""

_NOBODY = "http://127.0.0.1:9"
"""What is asked for by a test that we do not know of: nothing leaves this machine."""


def source(package: str, folder: Path) -> Path:
    """Return the unpacked source distribution of the version that is installed here."""
    wanted = f"{package}=={version(package)}"
    subprocess.run(
        ["pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
         "-d", str(folder), wanted],
        check=True,
    )  # fmt: skip
    (packed,) = folder.glob(f"{package}-*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return packed.with_name(packed.name.removesuffix(".tar.gz"))


def listened(package: str, folder: Path) -> tuple[Counter[str], list[str]]:
    """Run a package's tests with the recorder; whether they pass is no question here."""
    own, paths = SUITES[package]
    counts = folder / f"{package}.json"
    there = source(package, folder)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "FOREIGN_COUNTS": str(counts),
        "FOREIGN_OWN": own,
        **{f"{name}_BASE_URL": _NOBODY for name in ("OPENAI", "ANTHROPIC", "MISTRAL", "GROQ")},
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), _NOBODY),
    }
    (there / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")  # instead of their own
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "foreign_recorder", "-q", "-W", "ignore", "--tb=no",
         "--timeout=30",
         "--continue-on-collection-errors", "-p", "no:cacheprovider", *paths],
        cwd=there, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not counts.exists():
        sys.exit(f"{package}: {ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    found, told = json.loads(counts.read_text())
    return Counter(found), told


# --- JSON-Schema-Test-Suite -----------------------------------------------------------------------

_FOREIGN = (
    '"enum": [{"$ref"',
    '"$id"',
    '"$anchor"',
    '"$dynamic',
    '"$recursive',
    "http://",
    "https://",
)


def schema_cases(folder: Path) -> Iterator[tuple[str, Any, list[dict[str, Any]]]]:
    """Yield file, schema and tests of each group that can be a part of a schema of ours."""
    suite = source("jsonschema", folder) / "json/tests/draft2020-12"
    for path in sorted(suite.glob("*.json")):
        for group in json.loads(path.read_text()):
            if not isinstance(group["schema"], dict):
                continue
            text = json.dumps({k: v for k, v in group["schema"].items() if k != "$schema"})
            if any(word in text for word in _FOREIGN):
                continue  # what is found by its address elsewhere
            moved = text.replace('"$ref": "#', '"$ref": "#/properties/value')
            yield path.stem, json.loads(moved), group["tests"]


def schemas(folder: Path) -> tuple[Counter[str], list[str]]:
    """Submit each schema as a property, answer with each instance, and collect."""
    found, told = Counter[str](), list[str]()
    for number, (file, schema, tests) in enumerate(schema_cases(folder)):
        whole = {
            "type": "object",
            "properties": {"value": schema},
            "required": ["value"],
            "additionalProperties": False,
        }
        frame = pd.DataFrame({"text": [json.dumps({"value": test["data"]}) for test in tests]})
        frame = frame.drop_duplicates().reset_index(drop=True)
        valid = {json.dumps({"value": test["data"]}): test["valid"] for test in tests}
        store = folder / f"schema-{number}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                job = frame.llmbatch.submit(
                    "{{ text }}", "m", response_model=whole, provider="file", store=store,
                    prefix="out_",
                )  # fmt: skip
        except FrameEnrichError as error:
            found["schemas that submit refuses"] += 1
            told.append(f"{file}: refused: {error}"[:200])
            continue
        found["schemas"] += 1
        answer(job, folder / f"schema-{number}.jsonl")
        out = job.collect(frame)
        for text, status, value, why in zip(
            out["text"], out["llmbatch_status"], out["out_value"], out["llmbatch_error"],
            strict=True,
        ):  # fmt: skip
            found["answers"] += 1
            if (status == "ok") == valid[text]:
                found["agree"] += 1
                continue
            lenient = status == "ok"
            found["taken, as pydantic would" if lenient else "refused"] += 1
            told.append(f"{file}: {text} is {valid[text]}, here {status} {value!r} {why}"[:250])
    return found, told


def main() -> int:
    """Print the counts of each suite; 1 where a disagreement is silent."""
    chosen = sys.argv[1:] or [*SUITES, "schemas"]
    silent = 0
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for name in chosen:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            run = schemas if name == "schemas" else lambda f, name=name: listened(name, f)
            found, told = run(Path(folder))
        print(f"\n== {name}")
        for what, count in sorted(found.items()):
            print(f"{count:8,} {what}")
        print("\n".join(told), flush=True)
        silent += sum(count for what, count in found.items() if "SILENT" in what)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())

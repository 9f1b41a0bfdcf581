"""A provider of somebody else's: the one in docs/providers.md, installed and run."""

from __future__ import annotations

import re
import signal
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import warm
from conftest import ROOT

from frameenrich.errors import ParameterError
from frameenrich.providers.registry import provider_names

DOCS = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    """The code of the page that begins with a comment."""
    found = re.search(rf"```\w+\n# {re.escape(mark)}\n(.*?)```", DOCS, re.DOTALL)
    assert found, mark
    return found[1]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path in which the package lies as an installer leaves it."""
    folder = tmp_path / "site"
    info = folder / "acme_rules-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "acme_rules.py").write_text(block("acme_rules.py"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.0\n")
    point = re.search(r'rules = "(.*)"', block("pyproject.toml"))
    assert point is not None
    (info / "entry_points.txt").write_text(f"[frameenrich.providers]\nrules = {point[1]}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "acme_rules", raising=False)
    return folder


@pytest.mark.usefixtures("site")
def test_it_is_found_by_its_name_and_answers(store: Path, mugs: pd.DataFrame) -> None:
    """The whole round trip, typed, and reopened by the name that the job remembers."""
    job = mugs.llmbatch.submit(
        "Where is {{ title }} sold?",
        "v1",
        labels=["Kitchen", "Garden"],
        provider="rules",
        store=store,
    )

    out = mugs.llmbatch.collect(store=store)

    assert "rules" in provider_names()
    assert job.spec.provider == "rules"
    assert out["llmbatch"].tolist() == ["Kitchen", "Garden", "Garden", "Garden"]


@pytest.mark.usefixtures("site")
def test_its_own_check_refuses_before_anything_is_written(store: Path, mugs: pd.DataFrame) -> None:
    """The optional sixth verb."""
    with pytest.raises(ParameterError, match="Rules have no temperature"):
        mugs.llmbatch.submit(
            "{{ title }}", "v1", params={"temperature": 0}, provider="rules", store=store
        )

    assert not store.exists()


def test_killed_in_the_middle_it_asks_only_for_the_rest(
    site: Path, store: Path, mugs: pd.DataFrame
) -> None:
    """SIGKILL after two answers: the next run finds them on disk."""
    mugs.to_csv(site / "mugs.csv")
    script = textwrap.dedent("""
        import os, signal, sys
        import acme_rules, pandas as pd
        import frameenrich
        answer, count = acme_rules.answer, []
        def watched(request):
            count.append(1)
            if len(count) == 3 and sys.argv[3] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(request)
        acme_rules.answer = watched
        frame = pd.read_csv(sys.argv[1], index_col="sku")
        frame.llmbatch.submit("{{ title }}", "v1", provider="rules", store=sys.argv[2])
        out = frame.llmbatch.collect(store=sys.argv[2])
        print(len(count), *out["llmbatch"])
    """)
    command = [sys.executable, "-c", script, str(site / "mugs.csv"), str(store)]
    environment = {"PYTHONPATH": f"{site}:{ROOT}", "PATH": ""}

    killed = warm.run([*command, "kill"], env=environment, check=False)
    again = warm.run([*command, "go"], env=environment, check=True, capture_output=True)

    assert killed.returncode == -signal.SIGKILL
    assert again.stdout.split() == [b"2", b"Kitchen", b"Garden", b"Garden", b"Garden"]

"""Servers on this machine: a real llama.cpp over HTTP, without a key, and none that listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import CredentialsError, ParameterError, ProviderError
from frameenrich.providers.dialects import client_at
from frameenrich.providers.local.provider import EMBEDDED_MODEL, model_path

pytestmark = pytest.mark.any_pandas
COLORS = ["red", "blue", "green"]


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """The base URL of a llama.cpp server with the embedded weights."""
    xllamacpp = pytest.importorskip("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model_path(EMBEDDED_MODEL))
    settings.n_parallel, settings.n_ctx, settings.verbosity, settings.warmup = 1, 2048, 0, False
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three rows in a file."""
    path = tmp_path / "mugs.csv"
    path.write_text("sku,title\nA1,Red mug\nA2,Blue hose\nA3,Green sock\n", encoding="utf-8")
    return path


def closed_port() -> str:
    """Return the base URL of a port where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def test_a_llama_cpp_server_from_the_command_line(llama: str, table: Path, store: Path) -> None:
    """``--provider live --base-url`` asks a real llama.cpp, with no key anywhere."""
    words = ["run", str(table), "out.csv", "-t", "Color of {{ title }}?", "-m", "smollm2"]
    words += ["--key", "sku", "--labels", ",".join(COLORS), "--name", "color"]
    words += ["--provider", "live", "--base-url", llama, "--store", str(store)]
    done = CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    out = pd.read_csv("out.csv")
    assert out["color_status"].tolist() == ["ok"] * 3
    assert out["color"].isin(COLORS).all()
    again = CliRunner().invoke(app, ["status", "--base-url", llama, "--store", str(store)])
    assert again.exit_code == 0


def test_a_server_on_this_machine_needs_no_key(
    llama: str, table: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``OPENAI_BASE_URL`` on this machine, Python asks without a key, too."""
    monkeypatch.setenv("OPENAI_BASE_URL", llama)
    job = pd.read_csv(table).llmbatch.submit(
        "Color of {{ title }}?",
        "smollm2",
        params={"max_tokens": 4, "temperature": 0},
        provider="live",
        store=store,
    )
    out = job.collect()

    assert out["llmbatch_status"].isin(["ok", "truncated"]).all()


@pytest.mark.parametrize("provider", ["live", "openai"])
def test_nobody_listens(provider: str, table: Path, store: Path, pauses: list[float]) -> None:
    """A refused connection is told within two seconds of waiting, with the address."""
    url = closed_port()
    client: Any = openai.OpenAI(api_key="sk-test", base_url=url)
    with pytest.raises(ProviderError, match=url.removeprefix("http://").removesuffix("/v1")):
        pd.read_csv(table, nrows=1).llmbatch.submit(
            "{{ title }}?", "m", provider=provider, client=client, store=store
        )

    assert 0 < sum(pauses) < 2.0


@pytest.mark.slow
def test_a_server_without_a_batch_api(llama: str, table: Path, store: Path) -> None:
    """Who forgets ``--provider live`` is told to use it."""
    words = ["submit", str(table), "-t", "{{ title }}?", "-m", "m", "--base-url", llama]
    done = CliRunner().invoke(app, [*words, "--store", str(store)])

    assert done.exit_code == 3
    assert "--provider live" in done.output


def test_which_key_goes_where(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is read from the variable that is named, and a missing one is named."""
    monkeypatch.setenv("GATEWAY_KEY", "sk-gateway")
    assert client_at("https://gateway.example.org/v1", "GATEWAY_KEY").api_key == "sk-gateway"
    assert client_at("http://127.0.0.1:8000/v1").api_key == "none"
    with pytest.raises(CredentialsError, match="OPENAI_API_KEY"):
        client_at("https://gateway.example.org/v1")
    with pytest.raises(CredentialsError, match="NO_SUCH_KEY"):
        client_at("http://127.0.0.1:8000/v1", "NO_SUCH_KEY")
    with pytest.raises(ParameterError, match="http://"):
        client_at("localhost:11434/v1")
    words = ["submit", str(table), "-t", "{{ title }}?", "-m", "m", "--provider", "groq"]
    done = CliRunner().invoke(app, [*words, "--base-url", "http://127.0.0.1:8000/v1"])
    assert done.exit_code == 2
    assert "not groq" in done.output


def test_help_names_the_variables() -> None:
    """``frameenrich --help`` names every environment variable that is read."""
    told = CliRunner().invoke(app, ["--help"]).output
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "FRAMEENRICH_STORE", "AZURE_OPENAI_ENDPOINT"):
        assert name in told
    assert frameenrich.__version__

"""``df.llmbatch.embed``: float32 vectors from the Batch API and from the embedded model."""

from __future__ import annotations

import base64
import contextlib
import signal
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openai
import orjson
import pandas as pd
import pytest
import warm
from batch_server import BatchServer, Reply, unit_vector
from conftest import status_counts
from hypothesis import given
from hypothesis import strategies as st

from frameenrich.answers.judge import read_embedding
from frameenrich.answers.output import MalformedError
from frameenrich.errors import OutputError, ParameterError
from frameenrich.model import Limits, OutputSpec
from frameenrich.providers.local.embeddings import EMBEDDED_EMBEDDER
from frameenrich.providers.openai.batch import OpenAIBatch

MODEL = "text-embedding-3-small"


def matrix_of(column: pd.Series) -> npt.NDArray[np.float32]:
    """A column of vectors as a matrix."""
    matrix: npt.NDArray[np.float32] = np.stack(column.tolist())
    return matrix


def embedding(values: Any) -> Reply:
    """An embeddings answer with these values."""
    return Reply(body={"object": "list", "data": [{"index": 0, "embedding": values}]})


@pytest.mark.parametrize("params", [None, {"encoding_format": "base64"}])
def test_every_row_gets_its_own_vector(
    params: dict[str, Any] | None, client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """One float32 vector a row, as numbers or as base64, whatever the order of the answers."""
    mugs.llmbatch.embed(
        "{{ title }}", MODEL, dimensions=12, params=params, client=client, store=store
    )
    out = mugs.iloc[::-1].llmbatch.collect(
        wait=True, poll_seconds=0.01, usage=True, client=client, store=store
    )

    assert list(out.columns)[:4] == ["title", "embedding", "embedding_status", "embedding_error"]
    assert status_counts(out, "embedding") == {"ok": 4}
    matrix = matrix_of(out["embedding"])
    wanted = np.asarray([unit_vector(title, 12) for title in out["title"]], dtype=np.float32)
    assert (matrix.dtype, matrix.shape) == (np.dtype("float32"), (4, 12))
    np.testing.assert_array_equal(matrix, wanted)
    assert out["embedding_prompt_tokens"].tolist() == [len(t) // 4 + 1 for t in out["title"]]


def test_submit_to_the_endpoint_is_the_same(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """`embed` is a `submit`; its twin is the same job."""
    first = mugs.llmbatch.embed("{{ title }}", MODEL, dimensions=3, client=client, store=store)
    second = mugs.llmbatch.submit(
        "{{ title }}",
        MODEL,
        name="embedding",
        params={"dimensions": 3},
        endpoint="/v1/embeddings",
        client=client,
        store=store,
    )

    assert first.id == second.id
    body = orjson.loads(Path(first.requests[0]).read_bytes().splitlines()[0])["body"]
    assert body == {"model": MODEL, "input": "Red mug", "dimensions": 3}


def test_vectors_survive_parquet(client: openai.OpenAI, store: Path, mugs: pd.DataFrame) -> None:
    """The frame, a null among its vectors, is the same after Parquet, and so are its dtypes."""
    frame = mugs.astype("string").replace("Blue hose", pd.NA)
    frame.llmbatch.embed("{{ title }}", MODEL, on_null="skip", client=client, store=store)
    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    out.to_parquet(store.parent / "out.parquet")
    again = pd.read_parquet(store.parent / "out.parquet")

    pd.testing.assert_frame_equal(out, again)
    assert again["embedding"].iloc[0].dtype == np.float32
    assert out["embedding_status"].tolist() == ["ok", "skipped", "ok", "ok"]
    assert out["embedding"].iloc[1] is None


def test_all_flagged_keeps_the_type(
    client: openai.OpenAI, server: BatchServer, store: Path, mugs: pd.DataFrame
) -> None:
    """A column without a single vector has the dtype of one with vectors, also after Parquet."""
    server.faults.add("http_error", times="always", status=500)
    mugs.llmbatch.embed("{{ title }}", MODEL, dimensions=5, client=client, store=store)
    out = mugs.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)
    out.to_parquet(store.parent / "out.parquet")

    assert status_counts(out, "embedding") == {"failed": 4}
    assert out["embedding"].dtype == object
    assert out["embedding"].tolist() == [None] * 4
    pd.testing.assert_frame_equal(out, pd.read_parquet(store.parent / "out.parquet"))


BAD_VECTORS: dict[str, tuple[Any, str]] = {
    "short": ([0.1, 0.2], "2 numbers, not the 3 asked for"),
    "long": ([0.1] * 4, "4 numbers, not the 3 asked for"),
    "nan": ([0.1, float("nan"), 0.2], "not all numbers are finite"),
    "inf": ([0.1, float("inf"), 0.2], "not all numbers are finite"),
    "too large": ([0.1, 1e300, 0.2], "not all numbers are finite"),
    "huge": ([0.1, 10**400, 0.2], "not all numbers are finite"),
    "null": ([0.1, None, 0.2], "not a list of numbers"),
    "texts": (["0.1", "0.2", "0.3"], "not a list of numbers"),
    "booleans": ([True, False, True], "not a list of numbers"),
    "nested": ([[0.1, 0.2, 0.3]], "not a list of numbers"),
    "object": ({"values": [0.1]}, "not a list of numbers"),
    "nothing": (None, "not a list of numbers"),
    "no list": (7, "not a list of numbers"),
    "empty": ([], "0 numbers, not the 3 asked for"),
    "cut base64": ("AAAAAAA=", "not base64 of 32-bit numbers"),
    "no base64": ("@@@@", "not base64 of 32-bit numbers"),
    "short base64": (base64.b64encode(bytes(8)).decode(), "2 numbers, not the 3 asked for"),
    "nan in base64": (
        base64.b64encode(array("f", [0.1, float("nan"), 1]).tobytes()).decode(),
        "not all numbers are finite",
    ),
}


def test_what_is_no_vector_is_malformed(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Wrong length, NaN, texts: the row says what and where, and its neighbours are fine."""
    bad = {f"bad {name}": embedding(values) for name, (values, _) in BAD_VECTORS.items()}
    server.answer = lambda body, _: bad.get(body["input"], embedding([0.5, -1, 2]))
    frame = pd.DataFrame({"text": ["good", *bad, "fine"]})
    frame.llmbatch.embed("{{ text }}", MODEL, dimensions=3, client=client, store=store)

    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert out["embedding_status"].tolist() == ["ok", *["malformed"] * len(bad), "ok"]
    assert out["embedding_error"].tolist()[1:-1] == [
        f"$.data[0].embedding: {said}" for _, said in BAD_VECTORS.values()
    ]
    assert out["embedding"].iloc[0].tolist() == [0.5, -1, 2]
    assert all(value is None for value in out["embedding"].iloc[1:-1])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": []}, "empty"),
        ({"data": None}, "empty"),
        ({"object": "list"}, "empty"),
        ({"data": ["x"]}, "malformed"),
        ({"data": {"embedding": [1]}}, "empty"),
        ({"error": {"message": "no"}}, "failed"),
    ],
)
def test_other_bodies_are_flagged(
    body: Any, status: str, client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """A body without a vector is a status with a reason, never an exception."""
    server.answer = lambda _, __: Reply(body=body)
    frame = pd.DataFrame({"text": ["a"]})
    frame.llmbatch.embed("{{ text }}", MODEL, client=client, store=store)

    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert out["embedding_status"].tolist() == [status]
    assert out["embedding_error"].notna().all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_and_base64_give_the_same_vector(values: list[float]) -> None:
    """Both encodings of the API, bit for bit."""
    packed = base64.b64encode(array("f", values).tobytes()).decode()
    spec = OutputSpec("embedding", dimensions=len(values))

    ((listed,), _), ((unpacked,), _) = (
        read_embedding({"data": [{"embedding": form}]}, spec) or ((), None)
        for form in (values, packed)
    )

    assert listed.tobytes() == unpacked.tobytes()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["embedding", "x"]), inner),
    )
)
def test_any_json_is_a_vector_or_malformed(value: Any) -> None:
    """Nothing that a server sends can raise anything else."""
    for body in ({"data": value}, {"data": [{"embedding": value}]}):
        with contextlib.suppress(MalformedError):
            reading = read_embedding(body, OutputSpec("embedding"))
            assert reading is None or reading[0][0].dtype == np.float32


def test_a_later_session_knows_the_length(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """What was asked for is stored with the job, so another process flags the same rows."""
    server.answer = lambda body, _: embedding([1.0, 2.0] if body["input"] == "a" else [1.0])
    frame = pd.DataFrame({"text": ["a", "b"]})
    frame.llmbatch.embed("{{ text }}", MODEL, dimensions=2, client=client, store=store).wait(
        poll_seconds=0.01
    )
    script = (
        "import sys, pandas as pd, frameenrich\n"
        "out = pd.DataFrame({'text': ['a', 'b']}).llmbatch.collect(store=sys.argv[1])\n"
        "print(*out['embedding_status'])\n"
    )

    done = warm.run(
        [sys.executable, "-c", script, str(store)], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("ok malformed\n", "")


def test_shards_hold_no_more_inputs_than_the_limit(
    provider: OpenAIBatch, server: BatchServer, store: Path
) -> None:
    """One input a request: the limit on inputs is that on requests; the same text goes once."""
    server.max_embedding_inputs = 3
    provider.limits = Limits(max_requests=3)
    frame = pd.DataFrame({"text": [f"t{n % 7}" for n in range(20)]})

    job = frame.llmbatch.embed("{{ text }}", MODEL, provider=provider, store=store)
    out = job.wait(poll_seconds=0.01).collect(frame)

    assert Limits().max_requests == 50_000
    assert len(job.requests) == 3
    assert sum(server.executed_bodies.values()) == 7
    np.testing.assert_array_equal(out["embedding"][0], out["embedding"][7])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["a", "b"]}, OutputError, "answers with a vector"),
        ({"response_model": {"a": int}}, OutputError, "answers with a vector"),
        ({"parser": len}, OutputError, "answers with a vector"),
        ({"system": "Be kind."}, ParameterError, "takes one text"),
        ({"dimensions": 0}, ParameterError, "dimensions=0"),
        ({"dimensions": "8"}, ParameterError, "dimensions='8'"),
        ({"dimensions": True}, ParameterError, "dimensions=True"),
        ({"params": {"temperature": 0}}, ParameterError, "'temperature'"),
        ({"params": {"input": "x"}}, ParameterError, "sets itself"),
        ({"image": "text"}, ParameterError, "takes no images"),
    ],
)
def test_what_an_embedding_cannot_have_is_refused(
    options: dict[str, Any], error: type[Exception], message: str, store: Path
) -> None:
    """Wishes for text, and parameters of other endpoints: nothing is written or sent."""
    with pytest.raises(error, match=message):
        pd.DataFrame({"text": ["a"]}).llmbatch.embed(
            "{{ text }}", MODEL, provider="file", store=store, **options
        )
    assert not list(store.glob("*"))


def test_a_vector_is_not_read_in_another_way(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """labels= at collect on an embeddings job is a mistake, and said to be one."""
    job = mugs.llmbatch.embed("{{ title }}", MODEL, client=client, store=store)

    with pytest.raises(OutputError, match="/v1/embeddings"):
        job.collect(mugs, labels=["a", "b"])


def test_preview_shows_the_text(mugs: pd.DataFrame) -> None:
    """The one text of a request, and the column to come."""
    shown = mugs.llmbatch.preview(
        "{{ title }}", MODEL, n=1, endpoint="/v1/embeddings", name="vector"
    )

    assert str(shown) == (
        "row 'A1'\n[input] Red mug\n\n-> columns: vector, vector_status, vector_error"
    )


# --- the embedded model -------------------------------------------------------------------------


def embed_locally(frame: pd.DataFrame, store: Path, **options: Any) -> pd.DataFrame:
    """A frame with vectors of the embedded model."""
    settings: dict[str, Any] = {"model": EMBEDDED_EMBEDDER, "provider": "local", **options}
    frame.llmbatch.embed("{{ title }}", store=store, **settings)
    out: pd.DataFrame = frame.llmbatch.collect(store=store, usage=True)
    return out


def test_the_embedded_model_finds_what_is_alike(store: Path) -> None:
    """Unit vectors of 256 float32 numbers; mugs are nearer to cups than to lawn mowers."""
    frame = pd.DataFrame({"title": ["a red coffee mug", "a cup for tea", "a petrol lawn mower"]})

    out = embed_locally(frame, store)

    matrix = matrix_of(out["embedding"])
    assert (matrix.shape, matrix.dtype) == ((3, 256), np.dtype("float32"))
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, rtol=1e-5)
    alike = matrix @ matrix.T
    assert alike[0, 1] > alike[0, 2] + 0.1
    assert out["embedding_model"].tolist() == [EMBEDDED_EMBEDDER] * 3
    assert out["embedding_prompt_tokens"].between(3, 9).all()


def test_the_embedded_model_is_right_row_by_row(store: Path, products: pd.DataFrame) -> None:
    """Texts that go through the model together get the vectors they get alone."""
    import wordllama

    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    frame = pd.concat([products.assign(title=products["title"] + f" {n}") for n in range(3)])

    out = embed_locally(frame.reset_index(drop=True), store)

    alone = np.concatenate([model.embed([title], norm=True) for title in out["title"]])
    np.testing.assert_allclose(matrix_of(out["embedding"]), alone, atol=1e-6)


@pytest.mark.parametrize("params", [None, {"encoding_format": "base64"}])
def test_the_embedded_model_takes_dimensions(params: Any, store: Path) -> None:
    """A start of the vector, of length 1 again; more than it has is a failed row."""
    frame = pd.DataFrame({"title": ["a red mug", "a blue hose"]})

    small = embed_locally(frame, store, dimensions=64, params=params)
    large = embed_locally(frame, store, dimensions=512, name="large")

    matrix = matrix_of(small["embedding"])
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, rtol=1e-5)
    assert matrix.shape == (2, 64)
    assert large["large_status"].tolist() == ["failed", "failed"]
    assert large["large_error"].str.contains("256 dimensions, no 512").all()


def test_the_embedded_model_refuses_empty_texts_alone(store: Path) -> None:
    """As the API does: the row fails with a reason; odd texts beside it are answered."""
    titles = ["", "a mug", "日本語 🫖", "\ud83d lone", "x" * 20_000]
    frame = pd.DataFrame({"title": pd.Series(titles, dtype=object)})

    out = embed_locally(frame, store)

    assert out["embedding_status"].tolist() == ["failed", "ok", "ok", "ok", "ok"]
    assert out["embedding_error"][0] == "HTTP 400: invalid_request_error: the text is empty"


def test_the_embedded_models_answer_one_endpoint_each(store: Path) -> None:
    """A chat with the embedder, an embedding of the chat model: said before anything is written."""
    frame = pd.DataFrame({"title": ["a"]})
    options: dict[str, Any] = {"provider": "local", "store": store}

    with pytest.raises(ParameterError, match="model='wordllama-256'"):
        frame.llmbatch.embed("{{ title }}", "smollm2-135m", **options)
    with pytest.raises(ParameterError, match="Use endpoint='/v1/embeddings'"):
        frame.llmbatch.submit("{{ title }}", EMBEDDED_EMBEDDER, **options)
    with pytest.raises(ParameterError, match="'wordllama-256' for embeddings"):
        frame.llmbatch.embed("{{ title }}", "wordllama-512", **options)


def test_without_the_extra_the_error_says_how_to_get_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedding model is an extra of 19 MB."""
    monkeypatch.setitem(sys.modules, "wordllama", None)

    with pytest.raises(ParameterError, match=r"pip install 'frameenrich\[embed\]'"):
        embed_locally(pd.DataFrame({"title": ["a"]}), store)


@pytest.mark.slow
def test_a_killed_embedding_goes_on_where_it_stopped(store: Path) -> None:
    """SIGKILL in the middle: no line is lost or made twice."""
    script = (
        "import sys, pandas as pd, frameenrich\n"
        "f = pd.DataFrame({'title': [f'thing number {n}' for n in range(20_000)]})\n"
        "f.llmbatch.embed('{{ title }}', 'wordllama-256', provider='local', store=sys.argv[1])\n"
    )
    running = warm.Popen([sys.executable, "-c", script, str(store)])

    def lines() -> list[bytes]:
        files = store.glob("*/round-0/*.responses.jsonl")
        return [line for path in files for line in path.read_bytes().split(b"\n")[:-1]]

    deadline = time.monotonic() + 60
    while len(lines()) < 500 and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = len(lines())

    frame = pd.DataFrame({"title": [f"thing number {n}" for n in range(20_000)]})
    out = embed_locally(frame, store)

    assert 500 <= before < 20_000
    assert status_counts(out, "embedding") == {"ok": 20_000}
    assert len({orjson.loads(line)["custom_id"] for line in lines()}) == len(lines()) == 20_000

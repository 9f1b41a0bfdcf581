"""Images in requests: every form of cell, the null policy, and files that must not be read."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openai
import orjson
import pandas as pd
import pytest
from batch_server import BatchServer, Reply, user_text
from conftest import status_counts
from draws import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from frameenrich.errors import (
    FrameEnrichWarning,
    FrameMismatchError,
    ImageError,
    InputError,
    NullValueError,
    ParameterError,
    RequestTooLargeError,
)
from frameenrich.model import JobSpec, Limits, Message
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.rendering.images import ImageCells, data_url, media_type

ASK = "What is this {{ title }}?"
SECRET = "root:x:0:0:the secret"


def picture(color: str, form: str = "PNG", size: tuple[int, int] = (4, 3)) -> bytes:
    """A small image of one colour."""
    sink = io.BytesIO()
    Pillow.new("RGB", size, color).save(sink, form)
    return sink.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with images, beside a secret, and with traps in it."""
    return lay_traps(tmp_path)


def lay_traps(folder: Path) -> Path:
    """Images in a folder of their own, and ways out of it."""
    root = folder / "photos"
    (root / "more").mkdir(parents=True)
    secret = folder / "secret.png"
    secret.write_bytes(picture("black"))
    (folder / "secret.txt").write_text(SECRET)
    for color in ("red", "blue"):
        (root / f"{color}.png").write_bytes(picture(color))
    (root / "more" / "green.jpg").write_bytes(picture("green", "JPEG"))
    (root / "text.png").write_text(SECRET)
    (root / "empty.png").write_bytes(b"")
    (root / "link.png").symlink_to(secret)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "away").symlink_to(folder)
    (root / "near.png").symlink_to(root / "red.png")
    os.mkfifo(root / "pipe.png")
    return root


def bodies(job: Any) -> list[Any]:
    """The bodies of a job's requests, in order."""
    lines = b"".join(Path(path).read_bytes() for path in job.requests).splitlines()
    return [orjson.loads(line)["body"] for line in lines]


def photos(cells: list[Any]) -> pd.DataFrame:
    """A frame with a title and a photo a row."""
    index = pd.Index([f"A{i}" for i in range(len(cells))], name="sku")
    titles = [f"thing {i}" for i in range(len(cells))]
    return pd.DataFrame({"title": titles, "photo": pd.Series(cells, dtype=object).values}, index)


def seen(body: Any, custom_id: str) -> Reply:
    """An answer that says which text and which images a request held."""
    (message,) = body["messages"]
    parts = message["content"]
    return Reply(content=orjson.dumps(parts).decode())


def test_every_form_of_an_image_reaches_the_model_beside_its_own_text(
    client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """Paths, Path objects, URLs, data URLs, bytes and PIL images, each in its own row."""
    server.answer = seen
    gif, webp = picture("white", "GIF"), picture("pink", "WEBP")
    pil = Pillow.new("RGB", (2, 2), "orange")
    url = "https://shop.example/p.png?size=2"
    frame = photos(
        ["red.png", shop / "more" / "green.jpg", url, data_url(gif), webp, bytearray(gif), pil]
    )

    frame.llmbatch.submit(
        ASK, "gpt-4o-mini", image="photo", image_root=shop, client=client, store=store
    )
    out = frame.sample(frac=1, random_state=1).llmbatch.collect(
        wait=True, poll_seconds=0.01, client=client, store=store
    )

    out = out.loc[frame.index]
    contents = [picture("red"), picture("green", "JPEG"), None, gif, webp, gif]
    urls = [url if content is None else data_url(content) for content in contents]
    answers = [orjson.loads(answer) for answer in out["llmbatch"]]
    assert answers[:6] == [
        [
            {"type": "text", "text": f"What is this thing {i}?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        for i, url in enumerate(urls)
    ]
    sent = answers[6][1]["image_url"]["url"].removeprefix("data:image/png;base64,")
    again = Pillow.open(io.BytesIO(base64.b64decode(sent)))
    assert (again.size, again.getpixel((0, 0))) == ((2, 2), (255, 165, 0))


def test_the_responses_api_takes_images_in_its_own_form(store: Path, shop: Path) -> None:
    """The parts of /v1/responses, each image with the detail that this endpoint demands."""
    frame = photos(["red.png"])

    job = frame.llmbatch.submit(
        [
            {"role": "user", "content": "First {{ title }}"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "And this?"},
            {"role": "system", "content": "Be brief."},
        ],
        "gpt-4o-mini",
        image="photo",
        image_root=shop,
        endpoint="/v1/responses",
        provider="file",
        store=store,
    )

    assert bodies(job)[0]["input"] == [
        {"role": "user", "content": "First thing 0"},
        {"role": "assistant", "content": "Yes?"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And this?"},
                {
                    "type": "input_image",
                    "image_url": data_url(picture("red")),
                    "detail": "auto",
                },
            ],
        },
        {"role": "system", "content": "Be brief."},
    ]


def test_several_columns_and_a_detail(store: Path, shop: Path) -> None:
    """Images follow the order of the columns; the detail stands with each."""
    frame = photos(["red.png"]).assign(back="blue.png")

    job = frame.llmbatch.submit(
        ASK,
        "gpt-4o-mini",
        image=["back", "photo"],
        image_root=shop,
        image_detail="low",
        provider="file",
        store=store,
    )

    (message,) = bodies(job)[0]["messages"]
    assert message["content"][1:] == [
        {"type": "image_url", "image_url": {"url": data_url(picture(color)), "detail": "low"}}
        for color in ("blue", "red")
    ]


BAD_CELLS = {
    "../secret.png": "lies outside of image_root",
    "more/../../secret.txt": "lies outside of image_root",
    "/etc/passwd": "lies outside of image_root",
    "link.png": "lies outside of image_root",
    "away/secret.png": "lies outside of image_root",
    ".": "lies outside of image_root",
    "loop.png": "cannot be read",
    "more": "is not a file",
    "pipe.png": "is not a file",
    "absent.png": "is not there",
    "red.png\0.txt": "cannot be read",
    "x" * 5000: "cannot be read",
    "text.png": "is no PNG, JPEG, WebP or GIF",
    "empty.png": "is no PNG, JPEG, WebP or GIF",
    "file:///etc/passwd": "is a file: URL",
    "s3://bucket/red.png": "is a s3: URL",
    "https://": "no whole URL",
    "https://[broken": "no whole URL",
    "https://shop.example/a b.png": "no whole URL",
    "data:text/plain;base64,eA==": "is not data:image",
    "data:image/png;base64,@@@@": "does not hold base64",
    "data:image/png;base64," + base64.b64encode(SECRET.encode()).decode(): "is no PNG",
    "data:image/svg+xml,<svg/>": "is not data:image",
}


@pytest.mark.parametrize("cell", BAD_CELLS, ids=lambda cell: repr(cell[:30]))
def test_what_is_no_image_of_the_folder_is_refused_before_anything_is_sent(
    cell: str, client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """Promise 7: no file outside of image_root, no file that is no image; row and column named."""
    frame = photos(["red.png", cell])

    with pytest.raises(ImageError) as caught:
        frame.llmbatch.submit(
            ASK, "gpt-4o-mini", image="photo", image_root=shop, client=client, store=store
        )

    assert BAD_CELLS[cell] in str(caught.value)
    assert "Row 'A1'" in str(caught.value)
    assert "column 'photo'" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert server.requests == []
    assert list(store.glob("*/sidecar.parquet")) == []


@pytest.mark.parametrize(
    "cell", [7, [["red.png"]], SECRET.encode(), b"", picture("red")[:6], {"url": "x"}, object()]
)
def test_a_cell_of_another_kind_is_refused(cell: Any, store: Path) -> None:
    """Numbers, lists of lists, bytes of something else: an error that names row and column."""
    with pytest.raises(ImageError, match=r"Row 'A0' has an image in column 'photo'"):
        photos([cell]).llmbatch.submit(
            ASK, "gpt-4o-mini", image="photo", provider="file", store=store
        )


NAMES = (
    ".. . more away red.png near.png link.png photos secret.png text.png green.jpg secret.txt ~ // "
    "\\ ... %2e%2e"
)
PARTS = st.lists(st.sampled_from([*NAMES.split(), "", " "]), min_size=1, max_size=6)


@given(parts=PARTS, absolute=st.booleans())
@examples(50)
def test_no_path_leads_out_of_the_folder(
    parts: list[str], absolute: bool, outside: tuple[Path, set[bytes]]
) -> None:
    """Whatever a path is put together from, what is read is an image of the folder, or nothing."""
    root, own = outside
    name = ("/" if absolute else "") + "/".join(parts)
    spec = JobSpec("n", "m", (Message("user", "x"),), image=("photo",), image_root=str(root))
    cells = ImageCells(pd.DataFrame({"photo": [f"{root}{name}" if absolute else name]}), spec)

    try:
        images = cells.images(0)
    except (ImageError, NullValueError):
        return

    assert images is not None
    assert {base64.b64decode(url.partition(",")[2]) for url in images.urls} <= own


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[bytes]]:
    """A folder of traps for all examples, and the bytes that may be read from it."""
    root = lay_traps(tmp_path_factory.mktemp("traps"))
    return root, {picture("red"), picture("blue"), picture("green", "JPEG")}


def test_a_link_inside_the_folder_is_fine(store: Path, shop: Path) -> None:
    """What counts is where a link leads, also where the root is one itself."""
    (shop.parent / "alias").symlink_to(shop)

    job = photos(["near.png", str(shop / "red.png")]).llmbatch.submit(
        "What is it?",
        "gpt-4o-mini",
        image="photo",
        image_root=shop.parent / "alias",
        provider="file",
        store=store,
    )

    (body,) = bodies(job)  # the same image under two names is one request
    assert body["messages"][0]["content"][1]["image_url"]["url"] == data_url(picture("red"))


def test_a_null_image_is_an_error_by_default(store: Path, shop: Path) -> None:
    """on_null="raise": the row and the column are named, and what to do."""
    with pytest.raises(NullValueError, match=r"Row 'A1' has no image: column 'photo' is empty"):
        photos(["red.png", None]).llmbatch.submit(
            ASK, "gpt-4o-mini", image="photo", image_root=shop, provider="file", store=store
        )


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA, pd.NaT, "", "  "])
@pytest.mark.parametrize("policy", ["skip", "empty"])
def test_a_null_image_follows_the_policy(
    null: Any, policy: str, client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """The row is left out, or asked without an image; both are collected on a re-read frame."""
    frame = photos(["red.png", null])
    frame.llmbatch.submit(
        ASK,
        "gpt-4o-mini",
        image="photo",
        image_root=shop,
        on_null=policy,
        client=client,
        store=store,
    )
    frame.to_csv(store.parent / "again.csv")

    again = pd.read_csv(store.parent / "again.csv", index_col="sku")
    out = again.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    plain = out["llmbatch"].tolist()[1]
    if policy == "skip":
        assert out["llmbatch_status"].tolist() == ["ok", "skipped"]
        assert pd.isna(plain)
    else:
        assert out["llmbatch_status"].tolist() == ["ok", "ok"]
        assert plain == "echo: What is this thing 1?"


def test_a_changed_image_is_a_mismatch_and_a_lost_one_says_so(
    client: openai.OpenAI, store: Path, shop: Path
) -> None:
    """Promise 2 for images: other bytes under the same name never get the old answer."""
    frame = photos(["red.png", "blue.png"])
    options = {"client": client, "store": store}
    job = frame.llmbatch.submit(ASK, "gpt-4o-mini", image="photo", image_root=shop, **options)
    first = frame.llmbatch.collect(wait=True, poll_seconds=0.01, **options)

    (shop / "blue.png").write_bytes(picture("navy"))
    with pytest.raises(FrameMismatchError, match=r"1 of the frame's rows .* row 'A1'\. Restore"):
        frame.llmbatch.collect(**options)
    (shop / "blue.png").unlink()
    with pytest.raises(FrameMismatchError) as caught:
        frame.llmbatch.collect(**options)
    (shop / "blue.png").write_bytes(picture("blue"))

    assert (
        "such as row 'A1', which has an image in column 'photo' that cannot be used: "
        "'blue.png' is not there under image_root="
    ) in str(caught.value)
    pd.testing.assert_frame_equal(frame.llmbatch.collect(**options), first)
    assert job.collect()["llmbatch_status"].tolist() == ["ok", "ok"]


def test_swapped_images_are_a_mismatch_and_a_frame_without_them_too(
    client: openai.OpenAI, store: Path, shop: Path
) -> None:
    """Two rows whose photos changed places are caught; so is a frame that lost the column."""
    frame = photos(["red.png", "blue.png"]).assign(title="thing")
    options = {"client": client, "store": store}
    job = frame.llmbatch.submit(ASK, "gpt-4o-mini", image="photo", image_root=shop, **options)

    with pytest.raises(FrameMismatchError, match="2 of the frame's rows"):
        frame.assign(photo=["blue.png", "red.png"]).llmbatch.collect(**options)
    with pytest.raises(FrameMismatchError, match="lacks"):
        frame[["title"]].llmbatch.collect(job)


def test_an_image_is_the_same_however_it_is_read_again(
    client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """Bytes that went through Parquet, a file in their place, a PIL image that was reopened."""
    red, options = picture("red"), {"client": client, "store": store}
    pil = Pillow.open(io.BytesIO(red))
    for name, cells, later in (
        ("bytes", [red, data_url(red)], ["red.png", red]),
        ("pil", [pil], [Pillow.open(shop / "red.png")]),
    ):
        frame = photos(cells)
        frame.llmbatch.submit(
            ASK, "gpt-4o-mini", name=name, image="photo", image_root=shop, **options
        )
        out = photos(later).llmbatch.collect(wait=True, poll_seconds=0.01, **options)
        assert set(out[f"{name}_status"]) == {"ok"}

    frame = photos([red, picture("blue")])
    frame.llmbatch.submit(ASK, "gpt-4o-mini", name="pq", image="photo", **options)
    frame.to_parquet(store.parent / "again.parquet")
    again = pd.read_parquet(store.parent / "again.parquet", dtype_backend="pyarrow")
    out = again.llmbatch.collect(wait=True, poll_seconds=0.01, **options)
    assert status_counts(out, "pq") == {"ok": 2}


def test_the_same_submit_is_the_same_job_and_another_image_is_another(
    client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """Promise 3 with images: nothing is sent twice, what changed is sent."""

    def send(**options: Any) -> Any:
        return photos(["red.png", "blue.png"]).llmbatch.submit(
            ASK,
            "gpt-4o-mini",
            image="photo",
            image_root=shop,
            client=client,
            store=store,
            **options,
        )

    first, second = send(), send()
    first.wait(poll_seconds=0.01)
    (shop / "blue.png").write_bytes(picture("navy"))
    third = send().wait(poll_seconds=0.01)
    closer = send(image_detail="high").wait(poll_seconds=0.01)

    assert first.id == second.id != third.id
    assert (third.reused, closer.reused) == (1, 0)
    assert sum(server.executed_bodies.values()) == 5
    assert set(server.executed_bodies.values()) == {1}


def test_the_job_is_the_same_from_another_working_folder(
    client: openai.OpenAI,
    server: BatchServer,
    store: Path,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where images lie is no part of what is asked; the job found looks for them there now."""
    frame = photos(["red.png", "blue.png"])
    options: dict[str, Any] = {"image": "photo", "client": client, "store": store}
    first = frame.llmbatch.submit(ASK, "gpt-4o-mini", image_root="photos", **options)

    monkeypatch.chdir(shop / "more")
    again = frame.llmbatch.submit(ASK, "gpt-4o-mini", image_root="..", **options)
    out = again.collect(frame, wait=True, poll_seconds=0.01)

    assert again.id == first.id
    assert status_counts(out) == {"ok": 2}
    assert sum(server.executed.values()) == 2


def test_shards_are_cut_by_bytes(
    provider: OpenAIBatch, server: BatchServer, store: Path, tmp_path: Path
) -> None:
    """Base64 fills a batch file fast: files stay below the limit, and every row is answered."""
    noise = [os.urandom(3000) for _ in range(12)]
    frame = photos([b"GIF89a" + each for each in noise])
    provider.limits = Limits(max_bytes=13_000)

    job = frame.llmbatch.submit(ASK, "gpt-4o-mini", image="photo", provider=provider, store=store)
    out = job.wait(poll_seconds=0.01).collect(frame)

    sizes = [Path(path).stat().st_size for path in job.requests]
    assert (len(sizes), max(sizes) <= 13_000) == (4, True)
    assert status_counts(out) == {"ok": 12}
    assert out["llmbatch"].tolist() == [f"echo: {user_text(body)}" for body in bodies(job)]


def test_an_image_that_no_file_can_hold_is_named(provider: OpenAIBatch, store: Path) -> None:
    """One request larger than a batch file: refused, with its row."""
    provider.limits = Limits(max_bytes=13_000)

    with pytest.raises(RequestTooLargeError, match="'A1'"):
        photos([picture("red"), b"GIF89a" + bytes(20_000)]).llmbatch.submit(
            ASK, "gpt-4o-mini", image="photo", provider=provider, store=store
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda big, _: big,
        lambda big, _: data_url(big),
        lambda big, root: (root / "big.gif").write_bytes(big) and "big.gif",
        lambda _, __: Pillow.frombytes("RGB", (40, 40), os.urandom(4800)),
    ],
)
def test_huge_images_are_refused(
    make: Callable[[bytes, Path], Any], store: Path, shop: Path
) -> None:
    """More than image_max_bytes, in whatever form; the default is 20 MB."""
    frame = photos(["red.png", make(b"GIF89a" + bytes(2000), shop)])

    with pytest.raises(ImageError, match=r"Row 'A1'.*more than 1,000 bytes"):
        frame.llmbatch.submit(
            ASK,
            "gpt-4o-mini",
            image="photo",
            image_root=shop,
            image_max_bytes=1000,
            provider="file",
            store=store,
        )
    with pytest.raises(ImageError, match="more than 20,000,000 bytes"):
        photos([b"GIF89a" + bytes(20_000_000)]).llmbatch.submit(
            ASK, "gpt-4o-mini", image="photo", provider="file", store=store
        )


@pytest.mark.parametrize(
    ("form", "mode", "sent"),
    [
        ("PNG", "RGBA", "PNG"),
        ("PNG", "P", "PNG"),
        ("JPEG", "RGB", "JPEG"),
        ("JPEG", "CMYK", "JPEG"),
        ("WEBP", "RGB", "WEBP"),
        ("GIF", "P", "PNG"),
    ],
)
def test_images_are_made_smaller_on_request(
    form: str, mode: str, sent: str, store: Path, shop: Path
) -> None:
    """The longest side fits, the shape stays, and what is small enough goes as it came."""
    sink = io.BytesIO()
    Pillow.new(mode, (400, 100)).save(sink, form)
    frame = photos([sink.getvalue(), "red.png"])

    job = frame.llmbatch.submit(
        ASK,
        "gpt-4o-mini",
        image="photo",
        image_root=shop,
        image_max_pixels=100,
        provider="file",
        store=store,
    )

    large, small = (body["messages"][0]["content"][1]["image_url"]["url"] for body in bodies(job))
    smaller = Pillow.open(io.BytesIO(base64.b64decode(large.partition(",")[2])))
    assert (smaller.size, smaller.format) == ((100, 25), sent)
    assert small == data_url(picture("red"))


@pytest.mark.parametrize(
    ("model", "more", "side"),
    [
        ("gpt-4o-mini", {}, 2048),
        ("gpt-4o-2024-08-06", {"image_detail": "low"}, 512),
        ("claude-sonnet-4-5-20250929", {}, 1568),
        ("gpt-4o-mini", {"image_max_pixels": None}, 2400),
        ("gpt-4o-mini", {"image_max_pixels": "auto"}, 2048),
        ("somebodys-model", {}, 2400),
    ],
)
def test_a_large_photo_is_sized_to_what_the_model_looks_at(
    model: str, more: dict[str, Any], side: int, store: Path
) -> None:
    """It is told, once and with the number; None sends it as it is, as for an unknown model."""
    sink = io.BytesIO()
    Pillow.new("RGB", (2400, 1800), "red").save(sink, "JPEG")
    frame = photos([sink.getvalue(), picture("red"), sink.getvalue()])
    how: dict[str, Any] = {"image": "photo", "provider": "file", "store": store, **more}

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        job = frame.llmbatch.submit(ASK, model, **how)

    urls = [body["messages"][0]["content"][1]["image_url"]["url"] for body in bodies(job)]
    sizes = [Pillow.open(io.BytesIO(base64.b64decode(u.partition(",")[2]))).size for u in urls]
    assert [max(size) for size in sizes] == [side, 4, side]
    smaller = f"2 images were made smaller, to a longest side of {side:,} pixels"
    assert [smaller in str(each.message) for each in told] == [True] * (side < 2400)


def test_a_job_whose_photos_went_out_larger_is_found(store: Path) -> None:
    """An earlier version sent photos as they are (promise 14): its job is named, and none made."""
    sink = io.BytesIO()
    Pillow.new("RGB", (2400, 1800), "red").save(sink, "JPEG")
    frame = photos([sink.getvalue()])
    how: dict[str, Any] = {"image": "photo", "provider": "file", "store": store}
    old = frame.llmbatch.submit(ASK, "gpt-4o-mini", image_max_pixels=None, **how)

    with pytest.warns(FrameEnrichWarning, match="with its images in another size"):
        found = frame.llmbatch.submit(ASK, "gpt-4o-mini", **how)

    assert found.id == old.id


@pytest.mark.parametrize("pillow", [True, False])
def test_nothing_fails_where_nobody_asked_for_a_size(
    pillow: bool, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Pillow cannot read goes out as it came, and so does everything without Pillow."""
    cut = picture("red", size=(3000, 3000))[:60]
    if not pillow:
        monkeypatch.setitem(__import__("sys").modules, "PIL", None)

    job = photos([cut]).llmbatch.submit(
        ASK, "gpt-4o-mini", image="photo", provider="file", store=store
    )

    assert bodies(job)[0]["messages"][0]["content"][1]["image_url"]["url"] == data_url(cut)


def test_a_photo_keeps_its_right_side_up(store: Path) -> None:
    """A camera's orientation is lost with the metadata, so it is applied first."""
    sink = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Pillow.new("RGB", (40, 20)).save(sink, "JPEG", exif=exif)

    job = photos([sink.getvalue()]).llmbatch.submit(
        ASK, "gpt-4o-mini", image="photo", image_max_pixels=20, provider="file", store=store
    )

    url = bodies(job)[0]["messages"][0]["content"][1]["image_url"]["url"]
    assert Pillow.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == (10, 20)


def test_a_broken_image_cannot_be_made_smaller(store: Path) -> None:
    """Pillow's many errors become one that names row and column."""
    whole = picture("red", size=(50, 50))

    for broken in (whole[:60], b"GIF89a", b"\xff\xd8\xff" + bytes(50)):
        with pytest.raises(ImageError, match=r"Row 'A0' .* Pillow cannot read it"):
            photos([broken]).llmbatch.submit(
                ASK, "gpt-4o-mini", image="photo", image_max_pixels=9, provider="file", store=store
            )


def test_without_pillow_only_downscaling_fails(
    store: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow is an extra: the error says how to get it, and files need it not."""
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "provider": "file"}
    frame = photos(["red.png"])

    with pytest.raises(ImageError, match=r"pip install 'frameenrich\[images\]'"):
        frame.llmbatch.submit(ASK, "gpt-4o-mini", image_max_pixels=9, store=store, **options)
    assert len(frame.llmbatch.submit(ASK, "gpt-4o-mini", store=store, **options).requests) == 1


def test_preview_says_what_an_image_is_and_not_its_bytes(shop: Path) -> None:
    """A person sees kind and size; URLs are shown."""
    frame = photos(["red.png", "https://shop.example/p.png"])

    chat = str(frame.llmbatch.preview(ASK, "gpt-4o-mini", image="photo", image_root=shop))
    other = str(
        frame.llmbatch.preview(
            ASK, "gpt-4o-mini", image="photo", image_root=shop, endpoint="/v1/responses", n=1
        )
    )

    shown = f"[image] image/png, {len(picture('red'))} bytes"
    assert chat.startswith(
        f"row 'A0'\n[user] What is this thing 0?\n{shown}\n\n"
        "row 'A1'\n[user] What is this thing 1?\n[image] https://shop.example/p.png\n"
    )
    assert f"[user] What is this thing 0?\n{shown}\n" in other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "foto"}, "Did you mean 'photo'"),
        ({"image": []}, "names no column"),
        ({"image": [3]}, "names no column"),
        ({"image": "photo", "image_detail": "max"}, "image_detail='max'"),
        ({"image": "photo", "image_max_pixels": 0}, "image_max_pixels=0"),
        ({"image": "photo", "image_max_pixels": "1024"}, "image_max_pixels='1024'"),
        ({"image": "photo", "image_max_pixels": True}, "image_max_pixels=True"),
        ({"image": "photo", "image_max_bytes": "9"}, "image_max_bytes='9'"),
        ({"image_max_pixels": 9}, "image= is not"),
        ({"image": "photo", "image_max_bytes": -1}, "image_max_bytes=-1"),
        ({"image": "photo", "on_bad_image": "ignore"}, "on_bad_image='ignore'"),
        ({"on_bad_image": "skip"}, "image= is not"),
        ({"image_detail": "low"}, "image= is not"),
        ({"image": "photo", "endpoint": "/v1/completions"}, "takes no images"),
        ({"image": "photo", "endpoint": "/v1/embeddings"}, "takes no images"),
    ],
)
def test_unusable_options_are_refused(
    options: dict[str, Any], message: str, store: Path, shop: Path
) -> None:
    """Each says what is wrong with it, before a row is looked at."""
    with pytest.raises((ImageError, ParameterError), match=message):
        photos(["red.png"]).llmbatch.submit(
            ASK, "gpt-4o-mini", image_root=shop, provider="file", store=store, **options
        )


def test_images_need_a_message_of_the_user(store: Path) -> None:
    """No other role may show images."""
    with pytest.raises(ParameterError, match="role 'user'"):
        photos(["red.png"]).llmbatch.submit(
            [{"role": "system", "content": "Look."}],
            "gpt-4o-mini",
            image="photo",
            store=store,
            provider="file",
        )


def test_a_repeated_column_is_refused(store: Path) -> None:
    """Which of two columns of one name is meant cannot be told."""
    frame = photos([picture("red")])
    twice = pd.concat([frame, frame[["photo"]]], axis=1)

    with pytest.raises(ImageError, match="more than one column called 'photo'"):
        twice.llmbatch.submit(ASK, "gpt-4o-mini", image="photo", provider="file", store=store)


def test_regenerate_shows_the_image_again(
    client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """A later round's request is the first one's, with its image."""
    frame = photos(["red.png", "blue.png"])
    server.faults.add("malformed", content="neither", where="*thing 1*", times=1)
    options = {"client": client, "store": store}
    frame.llmbatch.submit(
        ASK, "gpt-4o-mini", labels=["mug", "hose"], image="photo", image_root=shop, **options
    )
    frame.llmbatch.collect(wait=True, poll_seconds=0.01, **options)

    job = frame.llmbatch.regenerate(**options)
    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, **options)

    first, second, again = bodies(job)
    assert second["messages"] == again["messages"][:1]
    assert first["messages"] != second["messages"]
    assert status_counts(out) == {"ok": 2}


def test_kinds_are_told_by_their_first_bytes() -> None:
    """The four kinds, whatever Pillow writes, and nothing else."""
    forms = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}

    assert {form: media_type(picture("red", form)) for form in forms} == forms
    assert [media_type(picture("red", form)) for form in ("BMP", "TIFF", "ICO")] == [None] * 3


@pytest.mark.parametrize("form", ["BMP", "TIFF"])
def test_what_pillow_reads_is_converted(form: str, store: Path) -> None:
    """A model that takes PNG only is shown the same pixels."""
    frame = photos([picture("red", form)])
    job = frame.llmbatch.submit("{{ title }}", "m", image="photo", provider="file", store=store)

    url = bodies(job)[0]["messages"][0]["content"][1]["image_url"]["url"]
    content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    shown = Pillow.open(io.BytesIO(content)).convert("RGB")
    assert (shown.size, shown.getpixel((0, 0))) == ((4, 3), (255, 0, 0))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"<?xml version='1.0'?><svg xmlns='x'></svg>", "an SVG image"),
    ],
)
def test_what_no_model_takes_is_named(content: bytes, kind: str, store: Path) -> None:
    """A phone's photos are HEIC: the message says so, and not that they are no image."""
    with pytest.raises(ImageError, match=f"is {kind}, which models do not take. Convert it to PNG"):
        photos([content]).llmbatch.submit(
            "{{ title }}", "m", image="photo", provider="file", store=store
        )


@pytest.mark.parametrize(
    ("cell", "kind", "advice"),
    [
        (b"%PDF-1.7 ...", "a PDF", "pdftoppm"),
        ("https://example.org/manual.pdf", "a PDF", "its text into a column"),
        ("manual.pdf", "a PDF", "pdftotext"),
        ("data:application/pdf;base64,JVBERi0xLjcK", "a PDF", "pdftoppm"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a sound file", "Transcribe it first"),
        (b"ID3\x04 ...", "a sound file", "Transcribe it first"),
        ("https://example.org/call.mp3?x=1", "a sound file", "Transcribe it first"),
        (b"\x00\x00\x00\x20ftypisom", "a video", "some of its frames"),
        (b"PK\x03\x04 word/", "an Office document", "its text into a column"),
    ],
)
def test_pdfs_sound_and_film_are_told_what_to_do(
    cell: Any, kind: str, advice: str, store: Path, tmp_path: Path
) -> None:
    """Promise 9: the row, what the cell is, and the next step; nothing is sent."""
    (tmp_path / "manual.pdf").write_bytes(b"%PDF-1.4")
    frame = pd.DataFrame({"title": ["Mug"], "photo": [cell]})

    with pytest.raises(ImageError, match=f"Row 0 .*{kind}") as caught:
        frame.llmbatch.submit(
            "{{ title }}?", "m", image="photo", image_root=tmp_path, provider="file", store=store
        )

    assert advice in str(caught.value)


def test_cells_of_data_sets_and_bare_base64_are_images(store: Path) -> None:
    """What Hugging Face's Parquet files and exports of other tools hold is the same picture."""
    png = picture("blue")
    cells = [png, {"bytes": png, "path": None}, base64.b64encode(png).decode()]
    frame = photos(cells)
    job = frame.llmbatch.submit("{{ title }}", "m", image="photo", provider="file", store=store)

    urls = {body["messages"][0]["content"][1]["image_url"]["url"] for body in bodies(job)}
    assert urls == {f"data:image/png;base64,{base64.b64encode(png).decode()}"}


def test_all_bad_cells_are_named_at_once(store: Path, shop: Path) -> None:
    """Whoever mends a table mends it in one go, not a cell a run."""
    frame = photos(["red.png", "no.png", "red.png", b"text", "gone.png"])

    with pytest.raises(ImageError, match=r"Row 'A1' .*So have 2 more rows: 'A3', 'A4'\.") as caught:
        frame.llmbatch.submit(
            ASK, "m", image="photo", image_root=shop, provider="file", store=store
        )

    assert vars(caught.value)["also"] == [3, 4]


BAD = ["no.png", "red.png", b"text", "more/green.jpg"]
"""Cells of which the first and the third cannot be used."""


def test_rows_with_bad_images_are_skipped_with_their_reason(
    client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """on_bad_image="skip": one warning, the rest is answered, the reason is kept."""
    frame = photos(BAD)
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "on_bad_image": "skip"}
    options |= {"client": client, "store": store}

    with pytest.warns(FrameEnrichWarning, match="on_bad_image") as warned:
        job = frame.llmbatch.submit(ASK, "gpt-4o-mini", **options)
    again = photos(BAD).iloc[::-1]
    out = again.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    (text,) = [str(each.message) for each in warned]
    assert text.startswith("2 rows are not sent (on_bad_image='skip'), such as row 'A0': ")
    assert "'no.png' is not there" in text
    assert sum(server.executed.values()) == 2
    assert out["llmbatch_status"].tolist() == ["ok", "skipped", "ok", "skipped"]
    errors = out["llmbatch_error"].tolist()
    assert [pd.isna(error) for error in errors] == [True, False, True, False]
    assert errors[1] == (
        "the image in column 'photo' cannot be used: what it holds is no PNG, JPEG, WebP or GIF "
        "image"
    )
    assert errors[3].startswith("the image in column 'photo' cannot be used: 'no.png' is not there")
    assert job.collect()["llmbatch_error"].tolist() == errors[::-1]
    assert job.flagged().empty


def test_skipping_bad_images_makes_the_same_job_where_all_are_good(store: Path, shop: Path) -> None:
    """Promise 4: nothing is paid twice for an option that changed no row."""
    frame = photos(["red.png", "blue.png"])
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "provider": "file"}

    first = frame.llmbatch.submit(ASK, "m", store=store, **options)
    again = frame.llmbatch.submit(ASK, "m", store=store, on_bad_image="skip", **options)

    assert first.id == again.id


def test_a_mended_image_asks_for_that_row_alone(
    client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """The rows that were answered are reused."""
    frame = photos(BAD[:2])
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "on_bad_image": "skip"}
    options |= {"client": client, "store": store}
    with pytest.warns(FrameEnrichWarning, match="1 row is not sent"):
        frame.llmbatch.submit(ASK, "m", **options).wait(poll_seconds=0.01)
    (shop / "no.png").write_bytes(picture("grey"))

    with pytest.raises(FrameMismatchError, match="1 of the frame's rows changed"):
        frame.llmbatch.collect(client=client, store=store)
    job = frame.llmbatch.submit(ASK, "m", **options)
    out = job.collect(frame, wait=True, poll_seconds=0.01)

    assert out["llmbatch_status"].tolist() == ["ok", "ok"]
    assert sum(server.executed.values()) == 2


def test_preview_and_estimate_leave_bad_images_out(shop: Path) -> None:
    """Both say what a submit would send."""
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "on_bad_image": "skip"}
    frame = photos(BAD)

    shown = frame.llmbatch.preview(ASK, "gpt-4o-mini", n=4, **options)
    estimate = frame.llmbatch.estimate(ASK, "gpt-4o-mini", **options)

    assert str(shown).count("What is this thing") == 2
    assert (estimate.rows, estimate.skipped, estimate.requests) == (4, 2, 2)


def test_rows_of_bad_images_alone_are_refused(store: Path, shop: Path) -> None:
    """Where nothing is left to send, the first bad cell is named and there is no job."""
    with pytest.raises(InputError, match=r"All 2 rows would be skipped, such as row 'A0': .*photo"):
        photos(["no.png", b"text"]).llmbatch.submit(
            ASK,
            "m",
            image="photo",
            image_root=shop,
            on_bad_image="skip",
            provider="file",
            store=store,
        )
    assert not list(store.glob("llmbatch-*"))


SEVERAL = ["red.png", "https://shop.example/b.png", "more/green.jpg"]
AS_JSON = orjson.dumps(SEVERAL).decode()


@pytest.mark.parametrize(
    "several",
    [[*SEVERAL, None], tuple(SEVERAL), np.array(SEVERAL), AS_JSON, str(SEVERAL)],
    ids=["list", "tuple", "array", "json", "csv"],
)
def test_all_images_of_a_cell_go_in_their_order(
    several: Any, client: openai.OpenAI, server: BatchServer, store: Path, shop: Path
) -> None:
    """However a list is written it is the same row, and a list of one the same as its image."""
    server.answer = seen
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "store": store}
    frame = photos([several, ["blue.png"], "blue.png"])

    job = frame.llmbatch.submit(ASK, "m", client=client, **options)
    again = photos([list(SEVERAL), "blue.png", ["blue.png"]])
    out = job.collect(again, wait=True, poll_seconds=0.01)

    shown = [part["image_url"]["url"] for part in orjson.loads(out["llmbatch"].iloc[0])[1:]]
    red, green = data_url(picture("red")), data_url(picture("green", "JPEG"))
    assert shown == [red, SEVERAL[1], green]
    assert out["llmbatch_status"].tolist() == ["ok"] * 3


def test_a_list_in_another_order_is_another_input(store: Path, shop: Path) -> None:
    """Promise 2: the model saw the images in their order."""
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "provider": "file"}
    job = photos([SEVERAL]).llmbatch.submit(ASK, "m", store=store, **options)

    with pytest.raises(FrameMismatchError, match="1 of the frame's rows changed"):
        job.collect(photos([SEVERAL[::-1]]))


def test_a_bad_image_of_several_is_named(store: Path, shop: Path) -> None:
    """Which of the cell's images; an empty list is no image; a file may be called as a list is."""
    (shop / "[1]").write_bytes(picture("red"))
    options: dict[str, Any] = {"image": "photo", "image_root": shop, "provider": "file"}

    with pytest.raises(ImageError, match=r"cannot be used: image 2 of 2: 'no.png' is not there"):
        photos([["red.png", "no.png"]]).llmbatch.submit(ASK, "m", store=store, **options)
    with pytest.raises(NullValueError, match="'photo' is empty"):
        photos([[]]).llmbatch.submit(ASK, "m", store=store, **options)
    job = photos(["[1]"]).llmbatch.submit(ASK, "m", store=store, **options)
    assert len(bodies(job)) == 1


def test_a_pilot_leaves_bad_images_out_as_the_job_does(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """It shows the reason; the job takes its answer over, and asks about neither bad row."""
    frame = photos([b"no image", picture("red"), None, picture("blue")])
    how: dict[str, Any] = {
        "image": "photo", "on_bad_image": "skip", "on_null": "skip",
        "client": client, "store": store,
    }  # fmt: skip

    with pytest.warns(FrameEnrichWarning, match="1 row is not sent"):
        shown = frame.llmbatch.pilot(ASK, "gpt-4o-mini", n=4, **how)
    with pytest.warns(FrameEnrichWarning, match="1 row is not sent"):
        job = frame.llmbatch.submit(ASK, "gpt-4o-mini", **how)
    out = frame.llmbatch.collect(job, wait=True, poll_seconds=0.01)

    assert shown["llmbatch_status"].tolist() == ["skipped", "ok", "skipped", "ok"]
    assert "no PNG, JPEG, WebP or GIF" in shown["llmbatch_error"].iloc[0]
    assert out["llmbatch_status"].tolist() == ["skipped", "ok", "skipped", "ok"]
    assert (job.reused, sum(server.executed.values())) == (2, 2)


def test_one_more_bad_image_is_one_row(store: Path) -> None:
    """The sentence counts as people do."""
    with pytest.raises(ImageError, match=r"So has 1 more row: 'A2'\."):
        photos([b"x", picture("red"), b"y"]).llmbatch.submit(
            ASK, "m", image="photo", provider="file", store=store
        )

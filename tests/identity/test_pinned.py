"""Names and hashes as stores hold them: another formula would have users pay again (promise 14)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from frameenrich.identity import dedupe, hashes, older
from frameenrich.identity.fingerprint import fingerprint
from frameenrich.identity.keys import custom_ids, key_digests

URL = "/v1/chat/completions"
BODY = (
    b'{"model":"m","messages":[{"role":"system","content":"Sort."},'
    b'{"role":"user","content":"Red mug"}],"temperature":0}'
)
ROWS = np.array([1, 2, 3], "u8")


def test_a_request_has_the_hash_it_had() -> None:
    """By these the answers of all earlier jobs are found again."""
    assert hashes.request_hash(URL, BODY).hex() == (
        "308497139f24166f7d9d3b559a8cbab29ae3ba374907bffd1300f0a698ece10b"
    )
    assert hashes.texts_hash([b'"a"', b'"b"']).hex() == (
        "7f73ec42f8f7a5b6df70817f21f06a64c165b4cb643cdaca1e9a3b3eb3cc44a0"
    )


def test_rows_make_the_job_they_made() -> None:
    """The same submit finds its job by these sums, also in a year."""
    made = dedupe.JobHash()
    made.add(ROWS, bytes(range(96)))

    assert made.mark == "52084e4685f97cc778ef3a00af0ce4bc"


def test_older_formulas_stay() -> None:
    """A store of an earlier version is gone on from by its own."""
    made = older.OlderJobHash()
    made.add(ROWS, bytes(range(48)))

    assert made._sums.tolist() == [16282312921866310441, 13661328074524381612]
    assert older.request_hash(URL, BODY).hex() == "2306ff51b9d61678946258958931b2bd"
    assert older.texts_hashes([["a", "b"], ["c", "d"]]).hex() == (
        "1da0ce14c90aa136c7b29d83ec9232f9c10e1b865cd0baadb7541304d24c9f08"
    )


@pytest.mark.parametrize(
    ("keys", "digests", "ids"),
    [
        (
            {"key_0": ["A1", "x y", "é"]},
            [12637854508483308029, 4025083294989516560, 17839895020865391795],
            ["row-A1", "key-x-y-d7xxhm4it2nmtjkihrwgkoxuyi", "key-tfqgbnojr3z2spebgtagb3evdm"],
        ),
        (
            {"key_0": [1, 2, 3], "key_1": ["a", "b\x1f", "c"]},
            [9148487708889234183, 2755918296806452786, 10029832189245203115],
            [
                "key-1-a-jxvrba75wwmc24jpgoubyp6xou",
                "key-2-b-m64cxlqgdpsg4fcdnhgdj42abe",
                "key-3-c-gj3f55wcujkeylptjlzctmkv5e",
            ],
        ),
    ],
    ids=["one part", "two parts"],
)
def test_a_row_has_the_name_it_had(
    keys: dict[str, list[object]], digests: list[int], ids: list[str]
) -> None:
    """A file that was sent yesterday is answered under these names tomorrow."""
    table = pa.table(keys)

    assert key_digests(table).tolist() == digests
    assert custom_ids(table, "f00d42").to_pylist() == [f"{own}-f00d42" for own in ids]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (3, "f32a8c9593ef2512951782d609f68c817373de76ac0155431e3c193b2be27ee1"),
        (2, "66414bdbbab209804f8f27b4fda8aff0"),
    ],
)
def test_a_frame_has_the_fingerprint_it_had(version: int, expected: str) -> None:
    """By this an unchanged frame is known without rendering a row."""
    frame = pd.DataFrame(
        {
            "t": ["a", None, "é"],
            "n": [1, 2, 3],
            "f": [1.5, np.nan, -0.0],
            "b": [True, False, True],
        }
    )

    assert fingerprint(frame, ["t", "n", "f", "b"], version) == expected


def test_short_hashes_of_a_slice_are_its_own() -> None:
    """A column that is part of another has its own rows' hashes, in any number of pieces."""
    whole = pa.chunked_array([hashes.hash_column(bytes(range(160)))])
    expected = dedupe.short_hashes(bytes(range(160)))

    assert len(expected) == 5
    assert dedupe.short_hash_column(whole).tolist() == expected.tolist()
    assert dedupe.short_hash_column(whole.slice(1, 3)).tolist() == expected[1:4].tolist()
    pieces = pa.chunked_array([*whole.slice(3).chunks, *whole.slice(0, 2).chunks])
    assert dedupe.short_hash_column(pieces).tolist() == [*expected[3:], *expected[:2]]

"""Find requests of a job, as they were sent, by their custom_ids."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.errors import ParameterError
from frameenrich.jsonl import request_ids
from frameenrich.model import Json
from frameenrich.store.folder import JobFolder


def find_requests(folder: JobFolder, custom_ids: str | Iterable[str]) -> dict[str, Json]:
    """Return the requests of a job, of any round, that have some custom_ids.

    Raises
    ------
    ParameterError
        The job has no request of some custom_id.
    """
    wanted = [custom_ids] if isinstance(custom_ids, str) else list(custom_ids)
    names = _wire_ids(folder, wanted)
    found = _lines(folder, set(names.values()))
    unknown = [custom_id for custom_id in wanted if names[custom_id] not in found]
    if unknown:
        example = folder.sidecar()["custom_id"].drop_null()[0].as_py()
        raise ParameterError(
            f"The job {folder.id} has no request with the custom_id {unknown[0]!r}.",
            f"A custom_id of it is {example!r}; collect(usage=True) has those of all rows.",
            custom_ids=unknown,
        )
    return {custom_id: found[names[custom_id]] for custom_id in wanted}


def _wire_ids(folder: JobFolder, wanted: list[str]) -> dict[str, str]:
    """Map each custom_id to the provider's: its tag may be missing, or it is the user's own."""
    # Without messages the requests came ready: the row's key is the user's custom_id, which the
    # provider knows under another name where it would not take that one.
    if folder.spec.messages:
        end = f"-{folder.spec.tag}" if folder.spec.tag else ""
        return {custom_id: custom_id.removesuffix(end) + end for custom_id in wanted}
    names = {custom_id: custom_id for custom_id in wanted}
    sidecar = folder.sidecar().select(["key_0", "custom_id"])
    own = sidecar.filter(pc.is_in(sidecar["key_0"], value_set=pa.array(wanted, pa.string())))
    return names | dict(zip(own["key_0"].to_pylist(), own["custom_id"].to_pylist(), strict=True))


def _lines(folder: JobFolder, names: set[str]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for shard in folder.all_shards():
        if len(found) == len(names):
            break
        with shard.open_requests() as lines:
            own = ((name, line) for name, line in request_ids(lines) if name in names)
            found |= {name: json.loads(line) for name, line in own}
    return found

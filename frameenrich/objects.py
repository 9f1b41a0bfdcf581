"""Small objects written on a condition: what a lock is made of where a store has no locks."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any, Protocol

_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412"}
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"""


class OvertakenError(Exception):
    """The object is no longer what the writer thought it was."""


@dataclass(frozen=True)
class Seen:
    """An object as it was read; `age_seconds` by this computer's clock, 0 where nobody says."""

    data: bytes
    version: str
    age_seconds: float = 0.0


class Objects(Protocol):
    """Reads and writes whole small objects.

    ``exact`` says that of two writers who expect the same version one is refused, always.
    """

    exact: bool

    def read(self, path: str) -> Seen | None:
        """The object, or None where there is none."""

    def exists(self, path: str) -> bool:
        """Whether the object is there; a folder of that name is none."""

    def write(self, path: str, data: bytes, expected: str | None) -> str:
        """Write where the version is as expected (None: no object); the new version.

        Raises
        ------
        OvertakenError
            It is another version.
        """


class S3Objects:
    """Conditional writes as S3 has them: ``If-None-Match: *`` and ``If-Match``.

    Parameters
    ----------
    fs : s3fs.S3FileSystem
        Decides the server and the credentials.
    """

    exact = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def read(self, path: str) -> Seen | None:
        """Body and ETag by one request, so that they belong together."""
        from fsspec.asyn import sync  # noqa: PLC0415 - tens of milliseconds

        try:
            data, answer = sync(self._fs.loop, self._get, path)
        except FileNotFoundError:
            return None
        return Seen(data, answer["ETag"], time.time() - answer["LastModified"].timestamp())

    async def _get(self, path: str) -> tuple[bytes, dict[str, Any]]:
        answer = await self._fs._call_s3("get_object", **self._named(path))  # noqa: SLF001 - s3fs's own way to call within its loop
        async with answer["Body"] as body:
            return await body.read(), answer

    def exists(self, path: str) -> bool:
        """One request; s3fs's own would look for a folder too."""
        try:
            self._fs.call_s3("head_object", **self._named(path))
        except FileNotFoundError:
            return False
        return True

    def _named(self, path: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(path)
        return {"Bucket": bucket, "Key": key}

    def write(self, path: str, data: bytes, expected: str | None) -> str:
        """One PUT; its mark tells a refusal from an answer that was lost on the way here."""
        mark = secrets.token_hex(8)
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            answer = self._fs.call_s3(
                "put_object", **self._named(path), Body=data, Metadata={"write": mark}, **condition
            )
            return str(answer["ETag"])
        except OSError as error:
            if not _refused(error):
                raise
            return self._written_after_all(path, mark)

    def _written_after_all(self, path: str, mark: str) -> str:
        """Whether the PUT that was refused had been made before, and was tried again."""
        try:
            answer = self._fs.call_s3("head_object", **self._named(path))
        except FileNotFoundError:
            raise OvertakenError(path) from None
        if answer.get("Metadata", {}).get("write") != mark:
            raise OvertakenError(path)
        return str(answer["ETag"])


def _refused(error: OSError) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code")
    return isinstance(error, FileExistsError | FileNotFoundError) or code in _REFUSED


class PlainObjects:
    """The same by looking before and after: two that write within one moment may both succeed.

    Parameters
    ----------
    fs : fsspec.AbstractFileSystem
        Whose ``mode="create"`` is exact on Google's and Microsoft's stores, says its documentation.
    """

    exact = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def read(self, path: str) -> Seen | None:
        """The object; its version is what is in it."""
        try:
            data = self._fs.cat_file(path)
        except FileNotFoundError:
            return None
        return Seen(data, hashlib.sha256(data).hexdigest())

    def exists(self, path: str) -> bool:
        """As fsspec says."""
        return bool(self._fs.exists(path))

    def write(self, path: str, data: bytes, expected: str | None) -> str:
        """Look, write, look again."""
        if expected is not None and self._version(path) != expected:
            raise OvertakenError(path)
        try:
            self._fs.pipe_file(path, data, mode="overwrite" if expected else "create")
        except FileExistsError:
            raise OvertakenError(path) from None
        version = hashlib.sha256(data).hexdigest()
        if self._version(path) != version:
            raise OvertakenError(path)
        return version

    def _version(self, path: str) -> str | None:
        seen = self.read(path)
        return None if seen is None else seen.version

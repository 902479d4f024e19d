# Generated from techforge/_async/storage.py by scripts/unasync.py; do not edit.
"""`client.storage`: sign storage keys, download objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from techforge._flows.download import DEFAULT_TIMEOUT, download
from techforge._flows.storage import sign

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from techforge._flows.download import OnProgress
    from techforge._session import Session
    from techforge.models import SignedUrl


class Storage:
    """Storage, with blocking calls. Use it as `client.storage`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def sign(self, path: str) -> SignedUrl:
        """Return a short-lived URL for a storage key: `GET /storage/generate-signed-path`.

        Args:
            path: The storage key, for example `job.output_path`.

        Raises:
            InvalidArgumentError: the storage key is not valid; nothing was sent.
            NotFoundError: there is no such object.
            APIError: the request failed for another reason.

        >>> client.storage.sign(done.output_path).expires_at.tzinfo is not None
        True
        """
        return self._session.run(sign(path, self._session.settings))

    def download(
        self,
        path: str,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Path:
        """Download a storage object into a file, and return the path of the file.

        The bytes go to `<file>.part`, which is renamed when it is complete and on disk. After a failure,
        the next download resumes, also in another process, if the object's ETag is unchanged. An expired
        URL is signed again. The API key is not sent to storage.

        Args:
            path: The storage key, for example `job.output_path`.
            to: The file, or an existing directory. In a directory, the file gets the object's name.
            overwrite: Replace an existing file.
            on_progress: Called with the bytes received so far and the total size. The total is None if
                storage does not say.
            timeout: The limit for the whole download, in seconds.

        Raises:
            InvalidArgumentError: the target is not possible; nothing was sent.
            TargetExistsError: the target file exists, and `overwrite` is False.
            NotFoundError: there is no such object.
            DownloadError: the download is incomplete; `received` bytes are kept, and the next call resumes.
            APIError: the URL could not be signed.

        >>> file = client.storage.download(done.output_path, folder / "video.mp4", overwrite=True)
        >>> file.name
        'video.mp4'
        """
        return self._session.run(
            download(
                path,
                to,
                self._session.settings,
                overwrite=overwrite,
                on_progress=on_progress,
                timeout=timeout,
            )
        )

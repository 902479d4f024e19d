# Generated from techforge/_async/storage.py by scripts/unasync.py; do not edit.
"""`client.storage`: signed URLs, and what they lead to."""

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
    """Storage, with blocking calls. Reached as `client.storage`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def sign(self, path: str) -> SignedUrl:
        """Return a short-lived URL for a storage key: `GET /storage/generate-signed-path`.

        Raises:
            InvalidArgumentError: the key is not one; nothing was sent.
            NotFoundError: there is no such object.
            APIError: the request failed otherwise.

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
        """Fetch a storage object into a file, and return the file's path.

        `to` is a file, or a directory, which takes the object's own name. The bytes go to `<file>.part`
        until all of them are there and on disk; a download that broke off, in another process too, goes
        on from there if the object still has the same ETag. The API key is not sent to storage, and an
        expired URL is signed anew. `on_progress` is called with the bytes that are there and the total
        (None where storage does not say). `timeout` bounds the whole download, in seconds.

        Raises:
            InvalidArgumentError: the target is not possible; nothing was sent.
            TargetExistsError: there is a file already, and `overwrite` is False.
            NotFoundError: there is no such object.
            DownloadError: it could not be finished; `received` bytes are kept for the next try.
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

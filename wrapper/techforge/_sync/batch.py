# Generated from techforge/batch/campaign.py by scripts/unasync.py; do not edit.
"""`client.batch`: from a manifest to the videos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from techforge.batch.campaign import LEDGER, ThreadedBatch

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Generator
    from typing import Unpack

    from techforge.batch.campaign import LedgerPath, Manifest, OnProgress
    from techforge.batch.dispatch import Dispatcher
    from techforge.batch.ledger import Entry, Ledger
    from techforge.batch.loading import OnConflict, OnRemoved
    from techforge.batch.options import RunOptions


class Batch(ThreadedBatch):
    """Campaigns. Use it as `client.batch`. A campaign runs in its own thread."""

    def run(
        self,
        manifest: Manifest | None = None,
        *,
        ledger: LedgerPath = LEDGER,
        campaign: str | None = None,
        skip_bad: bool = False,
        allow_columns: Collection[str] = (),
        on_conflict: OnConflict = "stop",
        on_removed: OnRemoved | None = None,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RunOptions],
    ) -> Generator[Entry]:
        """Submit every row once, wait for the jobs, download the videos, and yield each row when it ends.

        Rows that the campaign already has are not added again. A row ends as `done`, `failed` or `unknown`.
        An unknown row may have a job, because its submission got no response; it is not sent again.

        Args:
            manifest: A CSV, JSONL or Parquet file, or an iterable of mappings. Without one, the campaign
                continues.
            ledger: The SQLite file that records the campaign, or the URL of a PostgreSQL database.
            campaign: The campaign's name. By default it is the name of the manifest's file, or `default` for
                mappings.
            skip_bad: Skip bad rows: they get the state `skipped`. Without it, one bad row stops the run
                before anything is sent.
            allow_columns: Accept these columns, although their names look like misspelt fields.
            on_conflict: What to do if the content of a row_key has changed: `stop`, `keep` the first
                content, or `replace` it if there is no job.
            on_removed: What to do with pending rows that are no longer in the manifest: `stop`, `submit`
                them as well, or `withdraw` them. By default `stop` for a file without `campaign`, otherwise
                `submit`.
            dispatcher: Hands the rows of a PostgreSQL ledger to workers. Default: Procrastinate.
            on_progress: Called with the `Run` about ten times per second.
            options: See `RunOptions`.

        Raises:
            ManifestError, BadManifestError, RowConflictError: the manifest is invalid. Nothing was sent.
            LedgerError: the ledger cannot be used, or another process is running one of its campaigns.
            InvalidArgumentError: an option is wrong.
            APIConnectionError, AuthenticationError: the API cannot be reached, or rejects the key. Nothing
                was submitted.
            NoProgressError: nothing succeeded for `give_up_after` seconds.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> [row.state.value for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        ['done']
        """
        return self._entries(
            lambda each: each.run(
                manifest,
                ledger=ledger,
                campaign=campaign,
                skip_bad=skip_bad,
                allow_columns=allow_columns,
                on_conflict=on_conflict,
                on_removed=on_removed,
                dispatcher=dispatcher,
                on_progress=on_progress,
                **options,
            )
        )

    def work(
        self,
        ledger: LedgerPath,
        *,
        campaign: str | None = None,
        stay: bool = False,
        wait_for_ledger: float = 0.0,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RunOptions],
    ) -> Generator[Entry]:
        """Work on a campaign together with other processes, and yield each row that ends in this process.

        Args:
            ledger: The URL of a PostgreSQL database: `postgresql://user@host/database`.
            campaign: The campaign's name. Not needed if the ledger has only one.
            stay: Wait for more rows when all rows have ended.
            wait_for_ledger: If the ledger does not exist yet or its database cannot be reached, wait for it
                this many seconds.
            dispatcher: Hands the rows to workers. Default: Procrastinate.
            on_progress: Called with the `Run` about ten times per second.
            options: See `RunOptions`.

        Raises:
            NoLedgerError, LedgerUnavailableError: the campaign does not exist, or its database is down.
            FailoverError: a standby took over the ledger, or a backup was restored.
            LedgerError: the ledger cannot be used, for example because it is not in PostgreSQL.
            InvalidArgumentError: an option is wrong.

        >>> for row in client.batch.work(ledger_url):
        ...     print(row.state)
        """
        return self._entries(
            lambda each: each.work(
                ledger,
                campaign=campaign,
                stay=stay,
                wait_for_ledger=wait_for_ledger,
                dispatcher=dispatcher,
                on_progress=on_progress,
                **options,
            )
        )

    def fetch(
        self,
        ledger: LedgerPath = LEDGER,
        *,
        out: str | os.PathLike[str],
        name: str = "{row_key}.mp4",
        campaign: str | None = None,
        downloads: int = 4,
    ) -> Generator[Entry]:
        """Download every finished video that is not in `out`, and yield its row.

        If a download fails, the row's `file` is None and `reason` says why.

        Args:
            ledger: The ledger of the campaign.
            out: The folder for the videos.
            name: The file name of a row's video, as in `RunOptions`.
            campaign: The campaign's name. Not needed if the ledger has only one.
            downloads: Downloads in flight.

        Raises:
            LedgerError: the ledger cannot be used.
            InvalidArgumentError: `out` is not writable.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> ended = [row for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        >>> [row.file is not None for row in client.batch.fetch(folder / "ledger.sqlite", out=folder)]
        [True]
        """
        return self._entries(
            lambda each: each.fetch(ledger, out=out, name=name, campaign=campaign, downloads=downloads)
        )

    def check_unknown(self, ledger: Ledger) -> int:
        """Look for the videos of unknown rows in storage. Return how many were found.

        A row with a video becomes `submitted`; run the campaign again to finish it. A video's path contains
        the job's id, so rows without a known id are not checked. Look for their project in your job service
        or webhook events.

        Args:
            ledger: The open ledger.

        Raises:
            APIError: the request to storage failed.

        >>> from techforge.batch import Ledger
        >>> with Ledger(folder / "ledger.sqlite") as ledger:
        ...     client.batch.check_unknown(ledger)
        0
        """
        return self._result(lambda each: each.check_unknown(ledger))

"""Campaigns: many jobs, with a ledger that survives anything.

>>> rows = [{"image_url": "https://cdn.example.com/image.png", "audio_url": "https://cdn.example.com/audio.mp3"}]
>>> for row in client.batch.run(rows, ledger=folder / "campaign.sqlite", out=folder):
...     print(row.state, row.file[-4:])
done .mp4
"""

from techforge._sync.batch import Batch
from techforge.batch.account import Account, Campaign
from techforge.batch.campaign import AsyncBatch, BadManifestError, Loading, load
from techforge.batch.dispatch import Dispatcher
from techforge.batch.ledger import Chunk, Entry, Ledger, State
from techforge.batch.loading import Conflict, Loaded, RowConflictError
from techforge.batch.manifest import BadRow, ManifestError, Row, read
from techforge.batch.options import Options, RunOptions
from techforge.batch.progress import bar
from techforge.batch.report import ReportError
from techforge.batch.report import write as write_report
from techforge.batch.run_state import NoProgressError
from techforge.batch.runner import Run
from techforge.errors import (
    FailoverError,
    JobsNotRecordedError,
    LedgerError,
    LedgerUnavailableError,
    NoLedgerError,
)

__all__ = [
    "Account",
    "AsyncBatch",
    "BadManifestError",
    "BadRow",
    "Batch",
    "Campaign",
    "Chunk",
    "Conflict",
    "Dispatcher",
    "Entry",
    "FailoverError",
    "JobsNotRecordedError",
    "Ledger",
    "LedgerError",
    "LedgerUnavailableError",
    "Loaded",
    "Loading",
    "ManifestError",
    "NoLedgerError",
    "NoProgressError",
    "Options",
    "ReportError",
    "Row",
    "RowConflictError",
    "Run",
    "RunOptions",
    "State",
    "bar",
    "load",
    "read",
    "write_report",
]

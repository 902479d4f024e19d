"""A campaign: every row of a manifest becomes a video, and no row is paid for twice.

    python campaign.py campaign.csv videos/

After Ctrl-C, a crash or a reboot, run the same command again: the campaign continues. The ledger is in the
folder of the videos. `techforge batch` does the same from a shell.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from techforge import TechForge
from techforge.batch import BadManifestError, State, bar


def main(manifest: str, folder: Path) -> int:
    """Make the videos, and print the rows that are not done. Return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    left = 0
    with TechForge() as client, bar() as on_progress:
        try:
            rows = client.batch.run(
                manifest, ledger=folder / "campaign.sqlite", out=folder, on_progress=on_progress
            )
            for row in rows:
                if row.state is not State.DONE:
                    left += 1
                    print(row.key, row.state, row.reason, sep="\t")  # noqa: T201
        except BadManifestError as error:
            # Nothing was sent: all rows are checked before the first one is submitted.
            print(error, file=sys.stderr)  # noqa: T201
            return 2
    return 1 if left else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a video for each row of a manifest.")
    parser.add_argument("manifest", help="a CSV, JSON Lines or Parquet file with a row for each video")
    parser.add_argument("folder", type=Path, help="the folder for the videos and the ledger")
    arguments = parser.parse_args()
    sys.exit(main(arguments.manifest, arguments.folder))

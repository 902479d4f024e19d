"""A campaign's manifest: one row for each video to make. It is read as a stream, and nothing is sent."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from techforge.batch.columns import type_name
from techforge.batch.content import canonical, content_of
from techforge.batch.manifest_files import read_file
from techforge.batch.rows import BadRow, ManifestError, Row, make_row_from_mapping
from techforge.errors import InvalidArgumentError

__all__ = ["BadRow", "ManifestError", "Row", "canonical", "content_of", "read"]


def read(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, allow_columns: Collection[str] = ()
) -> Iterator[Row | BadRow]:
    """Read a manifest: a .csv, .tsv, .jsonl, .ndjson or .parquet file, or mappings.

    Columns named like an argument of `jobs.create` are the job's params. `row_key` is the row's key. All
    other columns are metadata. Text is UTF-8. An empty cell of a CSV file, or a null elsewhere, means that
    the argument is not set. Without a `row_key`, the key is a hash of the params: the same params have the
    same key in any process, file type and order of columns, even if their URLs were signed again.

    Args:
        source: A path, or an iterable of mappings.
        allow_columns: Treat these columns as metadata. Without it, a column whose name looks like a misspelt
            argument is an error.

    >>> media = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}
    >>> good, bad = read([{**media, "version": 6, "customer": "17"}, {**media, "version": "six"}])
    >>> good.key, good.metadata
    ('688d2449400496603a264489', {'customer': '17'})
    >>> print(bad)
    line 2, column version: "six" must be an int, not a str

    Raises:
        ManifestError: the file as a whole cannot be read, or a column is misspelt. You get it while you
            iterate, as you get the rows.
        InvalidArgumentError: an argument has the wrong type.
    """
    if isinstance(allow_columns, str):
        raise InvalidArgumentError("allow_columns", 'must be a collection of names such as ["langauge"]')
    own = frozenset(allow_columns)
    if isinstance(source, str | os.PathLike):
        return read_file(Path(source), own)
    if not isinstance(cast("object", source), Iterable):
        raise InvalidArgumentError(
            "source", f"must be a path or an iterable of mappings, not {type_name(source)}"
        )
    return (make_row_from_mapping(None, number, item, own) for number, item in enumerate(source, 1))

"""Read the files that hold a manifest, row by row."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from importlib import import_module
from pathlib import Path

from techforge._masking import as_typed, mask
from techforge.batch.columns import UnfitValueError, decode_json
from techforge.batch.manifest_csv import read_csv, read_tsv
from techforge.batch.rows import BadRow, ManifestError, Row, check_header, make_row, make_row_from_mapping
from techforge.batch.text_files import check_utf8, open_text


def read_file(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file. `own` holds columns that are accepted although they look misspelt."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise ManifestError(f"{as_typed(str(path))}: not a type of file that can be read; there are {known}")
    try:
        yield from reader(path, own)
    except OSError as error:
        raise ManifestError(f"{as_typed(str(path))}: {error.strerror or error}") from error


def _read_jsonl(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    with open_text(path, "\n") as file:
        for line, text in enumerate(file, 1):
            if text.isspace():
                continue
            if not text.isascii():
                check_utf8(path, line, text)
            try:
                item = decode_json(text)
            except UnfitValueError as error:
                yield BadRow(line, None, None, str(error))
            else:
                yield make_row_from_mapping(path, line, item, own)


def _read_parquet(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ManifestError(
            f"{path}: Parquet needs pyarrow, which is not installed; pip install techforge[parquet]"
        ) from None
    number = 0
    try:
        # With pyarrow's defaults a whole row group is in memory, and that may be the whole file.
        with parquet.ParquetFile(path, buffer_size=64 * 1024, pre_buffer=False) as file:
            check_header(path, file.schema_arrow.names, own)
            for batch in file.iter_batches(batch_size=1_000, use_threads=False):
                for item in batch.to_pylist():
                    number += 1
                    yield make_row(number, item.items())
    except arrow.ArrowException as error:
        raise ManifestError(f"{path}: cannot be read as Parquet: {mask(str(error))}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: a text after row {number} is not UTF-8") from None


_READERS: dict[str, Callable[[Path, AbstractSet[str]], Iterator[Row | BadRow]]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}

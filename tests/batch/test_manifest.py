"""Manifests: what is a row, what is a bad one and why, and what cannot be read at all."""

from __future__ import annotations

import csv
import doctest
import hashlib
import itertools
import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints
from uuid import UUID

import pytest
from attrs import evolve

from techforge import InvalidArgumentError, JobParams, TechForgeError
from techforge.batch import (
    columns,
    content,
    manifest,
    manifest_csv,
    manifest_files,
    rows,
    spelling,
    text_files,
)
from techforge.batch.manifest import BadRow, ManifestError, Row, content_of, read

IMAGE, AUDIO = "https://cdn.example.com/image.png", "https://cdn.example.com/audio.mp3"
MEDIA = {"image_url": IMAGE, "audio_url": AUDIO}
PROJECT = "468ea7a0-66e1-4357-a760-236e54167f3e"
HIDDEN = "c2VjcmV0"
EVERYTHING = {
    **MEDIA,
    "project_id": PROJECT,
    "job_type": "ai_talking_video",
    "is_clone_required": False,
    "language": "en",
    "version": 6,
    "output_size": 400,
    "crop": True,
    "dynamic_scale": 1,
    "iteration_count": 10,
    "expand_ratio": 0.5,
    "values": ["a", "ü"],
    "extra": {"seed": 7, "deep": {"er": [None, 1.5]}},
}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(content: str | bytes, name: str = "manifest.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def as_csv(write, rows: list[dict[str, Any]], **options):
    """Write mappings as CSV: JSON for what is nested, words for booleans."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))

    def cell(value: Any) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return json.dumps(value)

    path = write("")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerow(names)
        writer.writerows([cell(row.get(name)) for name in names] for row in rows)
    return path


def as_jsonl(write, rows: list[dict[str, Any]]):
    """Write mappings as JSONL."""
    return write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "manifest.jsonl")


def one(source) -> Row | BadRow:
    """Return the only row."""
    (row,) = read(source)
    return row


def cell(write, name: str, text: str) -> Row | BadRow:
    """Return the row of a CSV file that has this text in this column."""
    return one(as_csv(write, [{**MEDIA, name: text}]))


def test_the_example_is_true() -> None:
    """The example in the documentation of `read` runs."""
    tests = doctest.DocTestFinder().find(read, globs={"read": read})
    assert [doctest.DocTestRunner().run(test).failed for test in tests] == [0]
    assert sum(len(test.examples) for test in tests) > 2


def test_it_needs_no_network() -> None:
    """A manifest is read without httpx and without the generated code: nothing here could send anything."""
    for module in (manifest, columns, rows, manifest_files, manifest_csv, text_files, content, spelling):
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert "httpx" not in source
        assert "techforge_api" not in source


def test_every_field_of_a_job_is_a_column(write) -> None:
    """All that `jobs.create` takes can be given in a manifest; one of an unknown type fails the import."""
    assert set(EVERYTHING) == set(get_type_hints(JobParams))
    row = one([EVERYTHING])
    assert one(as_jsonl(write, [EVERYTHING])) == row
    assert one(as_csv(write, [EVERYTHING])) == evolve(row, line=2)
    assert row.params == EVERYTHING
    assert {name: type(value) for name, value in row.params.items()} == {
        **{name: type(value) for name, value in EVERYTHING.items()},
        "dynamic_scale": float,
    }


# --- CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_dialects(write, delimiter: str, quoting: int, newline: str) -> None:
    """The usual delimiters, line ends and habits of quoting are understood."""
    note = 'a, b; c | d "e" \t f'
    rows = [{**MEDIA, "note": note}, {**MEDIA, "note": ""}]
    path = as_csv(write, rows, delimiter=delimiter, quoting=quoting, lineterminator=newline)
    assert [(row.params, row.metadata, row.line) for row in read(path)] == [
        (MEDIA, {"note": note}, 2),
        (MEDIA, {"note": ""}, 3),
    ]


def test_texts_do_not_change_the_dialect(write) -> None:
    """Apostrophes and semicolons in a text leave a comma file one; `csv.Sniffer` reads it in another way."""
    notes = [f"it's {n}; don't; 'x';'y'" for n in range(800)] + ['say "it"']
    path = as_csv(write, [{**MEDIA, "note": note} for note in notes])
    assert csv.Sniffer().sniff(path.read_text()[: 64 * 1024], ",;\t|").delimiter != ","
    assert [row.metadata["note"] for row in read(path)] == notes


def test_the_header_tells_the_delimiter(write) -> None:
    """The delimiter is the one that has the required columns, and not the most frequent one."""
    row = one(write(f"image_url;audio_url;a,b,c|d|e|f\n{IMAGE};{AUDIO};x,y\n"))
    assert row.metadata == {"a,b,c|d|e|f": "x,y"}


def test_blanks_after_delimiters(write) -> None:
    """Where the header has a blank after each delimiter, so have the records; names lose their blanks."""
    content = f' image_url , audio_url, row_key, note\n{IMAGE}, {AUDIO}, a, "b, c"\n'
    row = one(write(content.replace(" ,", ",")))
    assert row == Row("a", MEDIA, {"note": "b, c"}, 2)
    assert one(write(f"image_url ,\taudio_url, note\n{IMAGE},{AUDIO}, b\n")).metadata == {"note": " b"}


def test_tsv(write) -> None:
    """A .tsv file has tabs, whatever else is in its header; the case of the suffix does not matter."""
    row = one(write(f"image_url\taudio_url\ta,b;c\n{IMAGE}\t{AUDIO}\t,;\n", "manifest.TSV"))
    assert row.metadata == {"a,b;c": ",;"}


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.tsv", "manifest.jsonl", "manifest.ndjson"])
def test_a_byte_order_mark(write, name: str) -> None:
    """A byte order mark, as Excel writes it, is no part of the first column's name."""
    if name.endswith("json") or "json" in name:
        content = json.dumps(MEDIA)
    else:
        content = f"image_url,audio_url\n{IMAGE},{AUDIO}\n".replace(",", "\t" if "tsv" in name else ",")
    assert one(write(b"\xef\xbb\xbf" + content.encode(), name)).params == MEDIA


def test_lines_are_those_of_the_file(write) -> None:
    """`line` is where a record starts, after newlines in quotes, blank lines, and a header of two lines."""
    content = (
        '\n \n"note\n2",image_url,audio_url\r\n'
        f'"a\nb\r\nc",{IMAGE},{AUDIO}\n'
        f"\n   \n\nd,{IMAGE},{AUDIO}\n"
        '"e\nf",x,y\n'
        f"g,{IMAGE},{AUDIO}"
    )
    rows = list(read(write(content)))
    assert [(row.line, type(row)) for row in rows] == [(5, Row), (11, Row), (12, BadRow), (14, Row)]
    assert [row.metadata for row in rows if isinstance(row, Row)] == [
        {"note\n2": text} for text in ("a\nb\r\nc", "d", "g")
    ]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("version", "6", 6),
        ("version", " +6 ", 6),
        ("output_size", "-1", -1),
        ("crop", "true", True),
        ("crop", "TRUE", True),
        ("crop", "1", True),
        ("crop", " Yes ", True),
        ("crop", "False", False),
        ("crop", "0", False),
        ("crop", "no", False),
        ("dynamic_scale", "1", 1.0),
        ("dynamic_scale", ".5", 0.5),
        ("dynamic_scale", " -1.5e3 ", -1500.0),
        ("language", " en ", " en "),
        ("values", "[]", []),
        ("values", ' ["a", "\\u00fc"] ', ["a", "ü"]),
        ("extra", "{}", {}),
        ("extra", '{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("project_id", PROJECT.upper(), PROJECT),
        ("project_id", PROJECT.replace("-", ""), PROJECT),
        ("image_url", "http://user:pw@[::1]:8080/ü.png", "http://user:pw@[::1]:8080/ü.png"),
        ("audio_url", "HTTPS://h:65535?a=b#c", "HTTPS://h:65535?a=b#c"),
    ],
)
def test_text_becomes_the_fields_type(write, name: str, text: str, value: object) -> None:
    """A cell's text is converted by the type of its field."""
    row = cell(write, name, text)
    assert isinstance(row, Row), str(row)
    assert row.params[name] == value
    assert type(row.params[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("version", "six", "is not a whole number such as 5"),
        ("version", "6.0", "is not a whole number such as 5"),
        ("version", "1_000", "is not a whole number such as 5"),
        ("version", "٣", "is not a whole number such as 5"),
        ("version", " ", "is not a whole number such as 5"),
        ("output_size", "9" * 30, "is too large a number"),
        ("output_size", "9" * 5000, "is not a whole number such as 5"),
        ("crop", "maybe", "is none of true, false, yes, no, 1 and 0"),
        ("dynamic_scale", "1,5", "is not a number such as 1.5"),
        ("dynamic_scale", "nan", "is not a number such as 1.5"),
        ("dynamic_scale", "inf", "is not a number such as 1.5"),
        ("dynamic_scale", "1_0", "is not a number such as 1.5"),
        ("dynamic_scale", "1e999", "is not a finite number"),
        ("values", "a", "is not JSON"),
        ("values", '"a"', "must be a list of str, not a str"),
        ("values", '["a", 1]', "must be a list of str, and holds an int"),
        ("values", '["\\ud800"]', "cannot be encoded as UTF-8"),
        ("extra", "{", "is not JSON"),
        ("extra", "[]", "must be a mapping, not a list"),
        ("extra", '{"a": NaN}', "holds NaN, which is not JSON"),
        ("extra", '{"a": 1e999}', "cannot be sent as JSON"),
        ("extra", '{"a": "\\ud800"}', "cannot be sent as JSON"),
        ("extra", '{"a": 1, "a": 2}', "holds a name twice"),
        ("extra", '{"version": 6}', "holds version, which has a column of its own; use that"),
        ("extra", '{"extra": 6}', "holds extra, which has a column of its own; use that"),
        ("extra", "[" * 100_000, "nested too deeply"),
        ("project_id", "17", "is not a UUID; give one such as"),
        ("image_url", "", "must be given"),
        ("audio_url", "", "must be given"),
        ("image_url", "ftp://a/b", "is not an absolute http(s) URL with a host; give"),
        ("image_url", "https://h:0/", "is not an absolute http(s) URL with a host"),
        ("image_url", "https://h:99999/", "is not an absolute http(s) URL with a host"),
        ("image_url", "https://h/a b", "is not an absolute http(s) URL with a host"),
        ("image_url", "https://h/a\n", "is not an absolute http(s) URL with a host"),
        ("audio_url", "cdn.example.com/audio.mp3", "is not an absolute http(s) URL with a host"),
    ],
)
def test_text_that_is_not_of_the_fields_type(write, name: str, text: str, reason: str) -> None:
    """What cannot be converted is a bad row that says what was expected, in the column that it is in."""
    row = cell(write, name, text)
    assert isinstance(row, BadRow)
    assert (row.line, row.column) == (2, name)
    assert reason in row.reason
    assert str(row).startswith(f"line 2, column {name}: ")
    assert "\n" not in str(row)
    assert len(row.value) <= 80


def test_the_first_problem_is_told() -> None:
    """A row with two problems tells of the first, in the order of its columns; missing columns are last."""
    assert one([{"crop": 1, "version": "6"}]).column == "crop"
    assert one([{"version": "6", "crop": 1}]).column == "version"
    assert one([{"version": 6}]).column == "image_url"


def test_the_first_problem_of_a_record_is_told(write) -> None:
    """The same in CSV, where columns that are read in another order are told of in the file's."""
    path = write(f"crop,row_key,image_url,audio_url\nmaybe,..,x,{AUDIO}\n1,..,x,{AUDIO}\n1,a,x,{AUDIO}\n")
    assert [row.column for row in read(path)] == ["crop", "row_key", "image_url"]


@pytest.mark.parametrize("text", [IMAGE, f"{IMAGE},{AUDIO},a,b", ",,,,", '""'])
def test_records_of_another_length(write, text: str) -> None:
    """A record with more or fewer fields than the header is bad: nobody knows what is where."""
    good = f"{IMAGE},{AUDIO},note\n"
    rows = list(read(write(f"image_url,audio_url,note\n{good}{text}\n{good}")))
    if text == '""':
        assert [row.line for row in rows] == [2, 4]
        return
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    fields = text.count(",") + 1
    assert str(rows[1]) == f"line 3: has {fields} fields, and the header has 3"


def test_an_empty_cell_is_not_given(write) -> None:
    """An empty cell leaves its field to the API; metadata comes back as it was."""
    rows = [{**dict.fromkeys(EVERYTHING, ""), **MEDIA, "row_key": "", "note": ""}]
    row = one(as_csv(write, rows))
    assert (row.params, row.metadata) == (MEDIA, {"note": ""})
    assert row.key == one([MEDIA]).key


def test_rows_share_nothing(write) -> None:
    """A row's lists and mappings are its own, though many rows have the same text."""
    first, second = read(as_csv(write, [EVERYTHING, EVERYTHING]))
    first.params["values"].append("b")
    first.params["extra"]["deep"].clear()
    first.params["version"] = 4
    assert second.params == EVERYTHING


@pytest.mark.parametrize("distinct", [1, 3, 2_000])
def test_what_is_remembered_is_right(write, distinct: int) -> None:
    """Rows get the options of their own text, whether few or many texts are in the file."""
    rows = [{**MEDIA, "output_size": n % distinct, "language": "x" * (n % 7)} for n in range(4_000)]
    expected = [{name: value for name, value in row.items() if value != ""} for row in rows]
    assert [row.params for row in read(as_csv(write, rows))] == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://h",
        "https://h:1/",
        "https://h:9999?a",
        "https://h#f",
        'https://h.-.:80/%00<>"{}|\\^`[]',
        "https://a-b.example/?q=https://x:y@z",
        "https://h:/x",
        "https://h:08/x",
        "https://-h/x",
        "https://h\\x",
        "https://h/\x7f",
        "https://[h/x",
        "https:/h",
        "https://h/x\n",
        "https://h_h/x",
    ],
)
def test_the_short_cut_for_urls_is_no_loophole(text: str) -> None:
    """What is taken without the check of a client's own arguments passes that check."""
    try:
        columns._checks.http_url("url", text)
        fit = True
    except InvalidArgumentError:
        fit = False
    assert isinstance(one([{**MEDIA, "image_url": text}]), Row) == fit


# --- what cannot be read


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (None, "missing.csv", "No such file"),
        (None, "missing.jsonl", "No such file"),
        ("", "manifest.xlsx", "there are .csv, .tsv, .jsonl, .ndjson, .parquet"),
        ("", "manifest", "there are .csv, .tsv, .jsonl, .ndjson, .parquet"),
        ("", "manifest.csv", "no header"),
        ("\n  \n", "manifest.csv", "no header"),
        (b"\xef\xbb\xbf", "manifest.tsv", "no header"),
        ("row_key;image_url\n", "manifest.csv", "audio_url must be there, .*: row_key, image_url$"),
        ("image_url,audio_url\n", "manifest.tsv", "column image_url and the column audio_url must"),
        ("image_url,audio_url, image_url\n", "manifest.csv", "image_url is there twice"),
        ("image_url,audio_url,a,a\n", "manifest.csv", "the column a is there twice"),
        ("image_url,audio_url,,\n", "manifest.csv", "2 columns have no name"),
        (b'image_url,audio_url\na,b\n\n"a\nb\n\xff"', "manifest.csv", "line 6: not UTF-8"),
        ("image_url,audio_url,ü\n".encode("latin-1"), "manifest.csv", "line 1: not UTF-8"),
        ("image_url,audio_url\n".encode("utf-16"), "manifest.csv", "line 1: not UTF-8"),
        (b"{}\n{}\n\n{\xff}\n", "manifest.jsonl", "line 4: not UTF-8"),
        (f'image_url,audio_url\n{IMAGE},"{AUDIO}\n', "manifest.csv", "starts in line 2 is not CSV"),
        (f'image_url,audio_url\n\n{IMAGE},"a" b\n', "manifest.csv", "starts in line 3 is not CSV"),
        (f"image_url,audio_url\n{IMAGE},{'a' * 200_000}\n", "manifest.csv", "starts in line 2 is not CSV"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(write, tmp_path, content, name: str, says: str) -> None:
    """A file that cannot be read as a whole is an error of ours that says what is wrong, and where."""
    path = tmp_path / name if content is None else write(content, name)
    with pytest.raises(ManifestError, match=says) as caught:
        list(read(path))
    assert isinstance(caught.value, TechForgeError)
    assert str(path) in str(caught.value)


def test_a_folder(tmp_path) -> None:
    """A folder with the name of a manifest is no manifest."""
    (tmp_path / "manifest.csv").mkdir()
    with pytest.raises(ManifestError, match="directory"):
        list(read(str(tmp_path / "manifest.csv")))


def test_a_first_row_in_place_of_the_header_is_not_shown(write) -> None:
    """Without a header, the error's columns are the first row's values: they grant nothing."""
    with pytest.raises(ManifestError, match="only these columns") as caught:
        list(read(write(f"{IMAGE}?token={HIDDEN},https://u:{HIDDEN}@h/a.mp3\n")))
    assert HIDDEN not in str(caught.value)


def test_one_column_without_a_name(write) -> None:
    """An index, as pandas writes it, is a column without a name, and metadata."""
    assert one(write(f",image_url,audio_url\n0,{IMAGE},{AUDIO}\n")).metadata == {"": "0"}


def test_unknown_columns_are_metadata(write) -> None:
    """What is no field of a job comes back as it was: text from CSV, values from JSONL."""
    assert one(as_csv(write, [{**MEDIA, "n": 1, "x": " y "}])).metadata == {"n": "1", "x": " y "}
    metadata = {"n": 1, "x": None, "list": [{"a": 1.5}], "Vision": "6"}
    assert one(as_jsonl(write, [{**MEDIA, **metadata}])).metadata == metadata


# --- JSONL and mappings


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("version", "6", "must be an int, not a str"),
        ("version", True, "must be an int, not a bool"),
        ("version", 6.0, "must be an int, not a float"),
        ("output_size", 2**63, "is too large a number"),
        ("crop", 1, "must be a bool, not an int"),
        ("crop", "true", "must be a bool, not a str"),
        ("dynamic_scale", True, "must be a number, not a bool"),
        ("dynamic_scale", "1", "must be a number, not a str"),
        ("dynamic_scale", 10**400, "is not a finite number"),
        ("language", 1, "must be a str, not an int"),
        ("image_url", 1, "must be a str, not an int"),
        ("audio_url", None, "must be given"),
        ("audio_url", ["a"], "must be a str, not a list"),
        ("project_id", 17, "must be a str, not an int"),
        ("project_id", "", "is not a UUID"),
        ("values", "abc", "must be a list of str, not a str"),
        ("values", [None], "must be a list of str, and holds a NoneType"),
        ("extra", '{"a": 1}', "must be a mapping, not a str"),
        ("row_key", 17, "must be a str, not an int"),
        ("language", "\ud800", "cannot be encoded as UTF-8"),
        ("image_url", "https://h/\ud800", "cannot be encoded as UTF-8"),
        ("note", "\ud800", "cannot be encoded as UTF-8"),
        ("note", ["a", {"b": "\ud800"}], "cannot be encoded as UTF-8"),
        ("note\ud800", 1, "cannot be encoded as UTF-8"),
    ],
)
def test_types_must_be_right(write, name: str, value: object, reason: str) -> None:
    """In JSONL and in mappings nothing is converted: what has another type is bad."""
    item = {**MEDIA, name: value}
    path = write(json.dumps(item) + "\n", "manifest.jsonl")
    rows = [one(path), one([item])]
    assert all(isinstance(row, BadRow) for row in rows)
    assert rows[0] == rows[1]
    assert reason in rows[0].reason
    assert rows[0].column == name.replace("\ud800", r"\ud800")
    str(rows[0]).encode()


@pytest.mark.parametrize(
    ("item", "column", "reason"),
    [
        ({**MEDIA, "dynamic_scale": math.nan}, "dynamic_scale", "is not a finite number"),
        ({**MEDIA, "extra": {1: 2}}, "extra", "must have names that are str, and has an int"),
        ({**MEDIA, "extra": {"a": object()}}, "extra", "cannot be sent as JSON"),
        ({**MEDIA, "extra": {"a": math.inf}}, "extra", "cannot be sent as JSON"),
        ({**MEDIA, "extra": {"a": 10**5000}}, "extra", "cannot be sent as JSON"),
        ({**MEDIA, "output_size": 10**5000}, "output_size", "is too large a number"),
        ({**MEDIA, 1: 2}, "1", "names of columns must be str"),
        ("image_url", "", "must be a mapping of columns to values, not a str"),
        (None, "", "must be a mapping of columns to values, not a NoneType"),
    ],
)
def test_mappings_that_json_could_not_hold(item, column: str, reason: str) -> None:
    """Python has more than JSON; what cannot be sent is told before anything is."""
    row = one([item])
    assert isinstance(row, BadRow)
    assert (row.line, row.column) == (1, column)
    assert reason in row.reason


def test_metadata_that_holds_itself() -> None:
    """Metadata is not judged, unless nobody could write it down."""
    loop: list[object] = []
    loop.append(loop)
    assert "holds itself" in one([{**MEDIA, "note": loop}]).reason
    thing = object()
    assert one([{**MEDIA, "note": thing}]).metadata["note"] is thing


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("nonsense", "is not JSON"),
        ("{} {}", "is not JSON"),
        ("[]", "must be a mapping of columns to values, not a list"),
        ("5", "must be a mapping of columns to values, not an int"),
        ('{"a": Infinity}', "holds Infinity, which is not JSON"),
        ('{"image_url": "https://a/b", "image_url": "https://a/c"}', "holds a name twice"),
        ('{"a": ' + "9" * 5000 + "}", "too many digits"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "must be given"),
    ],
)
def test_lines_that_are_no_objects(write, text: str, reason: str) -> None:
    """A line that is no JSON object is a bad row, and the next line is read."""
    good = json.dumps(MEDIA)
    rows = list(read(write(f"{good}\r\n\n{text}\n \n{good}", "manifest.ndjson")))
    assert [(row.line, type(row)) for row in rows] == [(1, Row), (3, BadRow), (5, Row)]
    assert reason in rows[1].reason


def test_null_is_not_given(write) -> None:
    """Null leaves a field to the API."""
    row = one(as_jsonl(write, [{**dict.fromkeys(EVERYTHING), **MEDIA, "row_key": None}]))
    assert (row.params, row.metadata, row.key) == (MEDIA, {}, one([MEDIA]).key)


def test_mappings_may_hold_uuids_and_tuples() -> None:
    """A UUID becomes its text and a tuple a list, so that params are what JSON can hold."""
    row = one([{**MEDIA, "project_id": UUID(PROJECT), "values": ("a",), "extra": {"t": (1,)}}])
    assert row.params == {**MEDIA, "project_id": PROJECT, "values": ["a"], "extra": {"t": [1]}}


def test_mappings_are_copied() -> None:
    """A generator may use its mapping, and what is in it, again."""

    def rows():
        item: dict[str, Any] = {**MEDIA, "extra": {"n": {"m": 0}}, "values": []}
        for n in range(3):
            item["extra"]["n"]["m"] = n
            item["values"].append("a")
            yield item

    taken = list(read(rows()))
    assert [row.params["extra"] for row in taken] == [{"n": {"m": n}} for n in range(3)]
    assert [len(row.params["values"]) for row in taken] == [1, 2, 3]


@pytest.mark.parametrize("source", [None, 5, object()])
def test_what_is_no_manifest(source) -> None:
    """What is neither a path nor iterable is refused at once."""
    with pytest.raises(InvalidArgumentError, match="source: must be a path or an iterable of mappings"):
        read(source)


def test_an_error_of_the_iterable_is_its_own() -> None:
    """What the user's generator raises comes out as it is, after the rows before it."""

    def rows():
        yield MEDIA
        raise OSError("database is gone")

    taken = read(rows())
    assert next(taken).params == MEDIA
    with pytest.raises(OSError, match="database is gone"):
        next(taken)


# --- keys


def derived(params: dict[str, Any]) -> str:
    """Return the key of params, as documented."""
    text = json.dumps(params, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def test_a_derived_key_is_a_hash_of_the_params(write) -> None:
    """The key of a row without one is the hash of its params as canonical JSON, and of nothing else."""
    params = {**EVERYTHING, "dynamic_scale": 1.0, "language": "ü€"}
    for source in ([params], as_csv(write, [params]), as_jsonl(write, [params])):
        assert one(source).key == derived(params)
    assert one([{**params, "note": "a", "row_key": None}]).key == derived(params)
    assert one([MEDIA]).key == "e55780e53d01082bdbd8a0b8"


@pytest.mark.parametrize("seed", range(4))
def test_derived_keys_do_not_depend_on_the_columns_order(write, seed: int) -> None:
    """The same params have the same key in any order of columns and any type of file."""
    names = list(EVERYTHING)
    names = names[seed * 3 :] + names[: seed * 3]
    item = {name: EVERYTHING[name] for name in names}
    keys = {one(source).key for source in ([item], as_csv(write, [item]), as_jsonl(write, [item]))}
    assert keys == {one([EVERYTHING]).key}


def test_derived_keys_do_not_depend_on_the_process() -> None:
    """Another process, with another seed of hashes, derives the same key."""
    program = f"from techforge.batch.manifest import read\nprint(next(read([{EVERYTHING!r}])).key, end='')"
    path = ":".join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == one([EVERYTHING]).key


def test_spellings_of_the_same_params_have_the_same_key(write) -> None:
    """1 and 1.0, TRUE and 1, a UUID in capitals: the same job, the same key."""
    rows = [
        {**MEDIA, "dynamic_scale": "1", "crop": "TRUE", "project_id": PROJECT},
        {**MEDIA, "dynamic_scale": "1.0", "crop": "1", "project_id": PROJECT.upper()},
        {**MEDIA, "dynamic_scale": "1e0", "crop": "yes", "project_id": f"{{{PROJECT}}}"},
    ]
    item = {**MEDIA, "dynamic_scale": 1, "crop": True, "project_id": UUID(PROJECT)}
    assert {row.key for row in read(as_csv(write, rows))} == {one([item]).key}


def test_other_params_have_other_keys() -> None:
    """Whatever differs in the params differs in the key."""
    items = [{**MEDIA, name: EVERYTHING[name]} for name in EVERYTHING if name not in MEDIA] + [
        MEDIA,
        {**MEDIA, "image_url": AUDIO},
        {"image_url": AUDIO, "audio_url": IMAGE},
        {**MEDIA, "values": []},
        {**MEDIA, "extra": {}},
    ]
    assert len({row.key for row in read(items)}) == len(items)


@pytest.mark.parametrize("key", ["a", "row 1", "17", "...", ".a", "ü€😀", "a:b", "x" * 200, "ü" * 200])
def test_row_keys(write, key: str) -> None:
    """A row's own name is kept as it is."""
    assert {
        one(source).key
        for source in ([{**MEDIA, "row_key": key}], as_csv(write, [{**MEDIA, "row_key": key}]))
    } == {key}
    assert "row_key" not in one([{**MEDIA, "row_key": key}]).params


@pytest.mark.parametrize(
    "key", [".", "..", "a/b", "/", "a\\b", "a\0b", "a\nb", "\x7f", "\u202e", "a\u2028", "x" * 201]
)
def test_bad_row_keys(write, key: str) -> None:
    """Files are named by the key: what could name another file, or none, is refused."""
    for source in ([{**MEDIA, "row_key": key}], as_csv(write, [{**MEDIA, "row_key": key}])):
        row = one(source)
        assert isinstance(row, BadRow)
        assert row.column == "row_key"
        assert "cannot name a file" in row.reason
        assert str(row).isprintable()
    assert "cannot name a file" in one([{**MEDIA, "row_key": ""}]).reason
    assert "cannot name a file" in one([{**MEDIA, "row_key": "\ud800"}]).reason


# --- content


S3 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F1&X-Amz-Date=20250101T000000Z&X-Amz-Expires=60"
GOOGLE = "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a&X-Goog-Date=1&X-Goog-Expires=60"
ALIBABA = "x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-credential=a&x-oss-date=1&x-oss-expires=60"
AZURE = "sv=2024-11-04&sp=r&st=2025-01-01&se=2025-01-02&sr=b&spr=https&sip=1.2.3.4&sks=b&rsct=image/png"


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (f"{S3}&X-Amz-Security-Token=t&X-Amz-SignedHeaders=host&X-Amz-Signature=a", ""),
        (f"versionId=7&{S3}&X-Amz-Signature=a&response-content-type=image/png&x-id=GetObject",
         "versionId=7&response-content-type=image/png&x-id=GetObject"),
        (f"Text=hi&VoiceId=Amy&{S3}&X-Amz-Signature=a", "Text=hi&VoiceId=Amy"),
        (f"{S3}&X-Amz-Signature=a".lower(), ""),
        (f"{GOOGLE}&generation=7&X-Goog-Signature=a", "generation=7"),
        (f"{ALIBABA}&x-oss-process=image/resize,w_100&x-oss-signature=a", "x-oss-process=image/resize,w_100"),
        ("AWSAccessKeyId=AKIA&versionId=7&Signature=a%3D&Expires=1&x-amz-security-token=t", "versionId=7"),
        ("GoogleAccessId=a%40b&Expires=1&Signature=a&generation=7", "generation=7"),
        ("OSSAccessKeyId=a&Expires=1&Signature=a&security-token=t&x-oss-process=b", "x-oss-process=b"),
        ("Expires=1&Signature=a&Key-Pair-Id=K&w=100", "w=100"),
        ("w=100&Policy=p&Signature=a&Key-Pair-Id=K&Hash-Algorithm=SHA256", "w=100"),
        (f"{AZURE}&sig=a%2B", ""),
        ("w=1&token=a&expires=2&token_path=%2F", "w=1"),
        ("token=a&expire=2", ""),
        ("hdnts=exp=1~hmac=a&w=1", "w=1"),
        ("auth_key=1-0-0-a", ""),
        (f"snapshot=1&versionid=2&{AZURE}&sig=a", "snapshot=1&versionid=2"),
        ("a=1&sig=a&a=%41&&b", "a=1&a=%41&&b"),
        ("sig=a&se=2025-01-01", ""),
    ],
)  # fmt: skip
def test_signatures_are_not_content(query: str, kept: str) -> None:
    """A URL that is signed again is the same input; whatever else is in its query selects another."""
    plain, signed = f"{IMAGE}{'?' if kept else ''}{kept}#f", f"{IMAGE}?{query}#f"
    for field in ("image_url", "audio_url"):
        assert content_of({**MEDIA, field: signed}) == content_of({**MEDIA, field: plain})
        assert content_of({**MEDIA, field: plain}) == derived({**MEDIA, field: plain})
    extra = {"voice_url": signed, "seed": 7}
    assert content_of({**MEDIA, "extra": extra}) == derived({**MEDIA, "extra": {**extra, "voice_url": plain}})


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("&", "&"),
        ("si=1&st=2&sr=24000&se=3&sp=4&sv=5", "si=1&st=2&sr=24000&se=3&sp=4&sv=5"),
        ("token=a", "token=a"),
        ("expires=1&w=2", "expires=1&w=2"),
        ("sr=24000&sp=fast&st=warm&sig=a", "sr=24000&sp=fast&st=warm"),
        ("Policy=home&Expires=never&Key-Pair-Id=7", "Policy=home&Expires=never&Key-Pair-Id=7"),
        ("policy=home&Expires=1&Signature=a", "policy=home"),
        ("Signature=Jane", "Signature=Jane"),
        ("Signature", "Signature"),
        ("signatures=1&Expires=7", "signatures=1&Expires=7"),
        ("X-Amz-Date=1&X-Goog-Date=2&x-oss-date=3", "X-Amz-Date=1&X-Goog-Date=2&x-oss-date=3"),
        ("X-Amz-Date=1&X-Goog-Date=2&X-Goog-Signature=3", "X-Amz-Date=1"),
        ("a=%7e&b=+&c=%20&a=ü", "a=%7e&b=+&c=%20&a=ü"),
        ("#?Signature=a&Expires=1&sig=b", "#?Signature=a&Expires=1&sig=b"),
    ],
)
def test_what_may_select_an_input_is_content(query: str, kept: str) -> None:
    """A generic name belongs to a signature only beside names that make it one. Other text stays as it is."""
    assert content_of({**MEDIA, "image_url": f"{IMAGE}?{query}"}) == derived(
        {**MEDIA, "image_url": f"{IMAGE}?{kept}"}
    )


def test_each_row_has_its_content(write, tmp_path) -> None:
    """A row's content is the hash of its params without signatures, whatever its key and other columns."""
    signed = {**MEDIA, "image_url": f"{IMAGE}?{S3}&X-Amz-Signature=a"}
    items = [MEDIA, signed, {**signed, "row_key": "a", "note": "b"}]
    path = tmp_path / "manifest.parquet"
    _write_parquet(path, [{"row_key": None, "note": None, **item} for item in items])
    for source in (items, as_csv(write, items), as_jsonl(write, items), path):
        rows = list(read(source))
        assert [row.content for row in rows] == [derived(MEDIA)] * 3
        assert [row.key for row in rows] == [derived(MEDIA)] * 2 + ["a"]
        assert rows[1].params == signed
    assert Row("a", signed, {}, 1).content == derived(MEDIA)


def test_a_given_project_is_content() -> None:
    """A project that the manifest names belongs to what was ordered."""
    assert content_of({**MEDIA, "project_id": PROJECT}) != content_of(MEDIA)


def test_content_is_hashed_once(write, monkeypatch) -> None:
    """A row without a `row_key` takes its content for a key; a million rows are not hashed twice."""
    hashed = []

    def blake2b(text: bytes, **options):
        hashed.append(text)
        return hashlib.blake2b(text, **options)

    monkeypatch.setattr(content, "hashlib", SimpleNamespace(blake2b=blake2b))
    items = [MEDIA, {**MEDIA, "row_key": "a"}, {**MEDIA, "crop": True}]
    for source in (items, as_csv(write, items)):
        hashed.clear()
        assert len({row.content for row in read(source)}) == 2
        assert len(hashed) == 3


# --- misspelt columns

FIELDS = [*EVERYTHING, "row_key"]
OWN = """
    customer customer_id customer_key name title notes note email campaign url video_url audio image
    voice lang locale script key id row take project project_name project_code price language_name
    language_code language_id image_id created_at version_note old_version app_version version2 v2
    first_language image_name image_path audio_file audio_type output output_file output_name output_dir
    outputs size width height scale ratio count iteration iterations type job job_id job_name job_title
    job_style status copy text speaker product sku order item caption description tags tag category
    country region city date month comment owner team client brand cost amount total value_eur
    conversion conversion_rate session session_id user user_id ref image_url_2 image_url_old
    source_image_url thumbnail_url callback_url website page_url crop_x row_number row_id duration
    seconds fps format resolution quality seed model background gender age accent translation subtitles
    expand dynamic video_id file filename folder group drop shop color test batch keyword api_key
    variation variant extra_info is required region_id priority deadline approved clone 注 ü Überschrift
    17 % -
""".split()  # noqa: SIM905 - a long list is easier to read this way


def misspellings(field: str) -> set[str]:
    """Return a name with a letter missing, doubled or swapped, its plural, and other styles of writing."""
    words, places = field.split("_"), range(len(field))
    missing = {field[:i] + field[i + 1 :] for i in places}
    doubled = {field[:i] + field[i] + field[i:] for i in places}
    swapped = {
        field[:i] + field[i + 1] + field[i] + field[i + 2 :]
        for i in places[:-1]
        if "_" not in field[i : i + 2]
    }
    titled = [word.title() for word in words]
    styled = {field.upper(), words[0] + "".join(titled[1:]), "".join(titled), " ".join(titled)}
    styled |= {"-".join(words), " ".join(words), ".".join(words), f" {field} ", f"{field}:"}
    return (missing | doubled | swapped | styled | {f"{field}s", f"{field}s".upper()}) - {field}


@pytest.mark.parametrize("field", FIELDS)
def test_misspelt_columns_stop_the_run(field: str) -> None:
    """A column that was meant as a field would be left out of every paid job, so nothing is read."""
    for name in misspellings(field):
        with pytest.raises(ManifestError) as caught:
            list(read([MEDIA | {field: None, name: "x"}]))
        assert f"did you mean {field}?" in str(caught.value), name


def test_own_columns_are_not_taken_for_misspelt_ones(write) -> None:
    """Ordinary names of own columns pass. So does a field's name with another word, or one word of it."""
    own = dict.fromkeys(OWN, "x")
    for source in (
        [{**MEDIA, **own}],
        as_csv(write, [{**MEDIA, **own}]),
        as_jsonl(write, [{**MEDIA, **own}]),
    ):
        assert one(source).metadata == own


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "mappings", "parquet"])
def test_what_a_misspelt_column_says(write, tmp_path, kind: str) -> None:
    """The error names the file, the column, the field that was meant, and how to keep the column."""
    items = [{**MEDIA, "note": "a"}, {**MEDIA, "note": "a", "langauge": "en", "Output Size": "4"}]
    path = tmp_path / f"manifest.{kind}"
    place = str(path)
    if kind == "mappings":
        source, place = items, "row 2"
    elif kind == "jsonl":
        source, place = as_jsonl(write, items), f"{path}, line 2"
    elif kind == "parquet":
        _write_parquet(path, items[1:])
        source = path
    else:
        source = as_csv(write, items, delimiter="\t" if kind == "tsv" else ",").rename(path)
    with pytest.raises(ManifestError) as caught:
        list(read(source))
    assert str(caught.value) == (
        f"{place}: the column langauge is unknown, did you mean language? "
        "The column Output Size is unknown, did you mean output_size? "
        "Rename them. If they are columns of your own, keep them with "
        "--allow-column langauge --allow-column 'Output Size' "
        "(Python: allow_columns=['langauge', 'Output Size'])."
    )
    with pytest.raises(ManifestError, match=r"^[^?]*langauge.*Rename it. .* with --allow-column langauge \("):
        list(read(source, allow_columns=["Output Size"]))
    allowed = list(read(source, allow_columns={"langauge", "Output Size"}))[-1]
    assert (allowed.params, allowed.metadata) == (MEDIA, {"note": "a", "langauge": "en", "Output Size": "4"})


@pytest.mark.parametrize("name", ["imge_url", "Image URL", "imageUrl", "image_urls", "image_uri"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_misspelt_required_column_is_named(write, suffix: str, name: str) -> None:
    """The error says which column was meant for the required one, and not only that one is missing."""
    item = {name: IMAGE, "audio_url": AUDIO}
    with pytest.raises(ManifestError, match=f"column {name} is unknown, did you mean image_url\\?"):
        list(read(as_csv(write, [item]) if suffix == "csv" else as_jsonl(write, [item])))


def test_an_allowed_column_does_not_replace_a_required_one(write) -> None:
    """Where a misspelt column is kept as the user's own, the required one is still missing."""
    path = as_csv(write, [{"imge_url": IMAGE, "audio_url": AUDIO}])
    with pytest.raises(ManifestError, match="the column image_url must be there"):
        list(read(path, allow_columns=["imge_url"]))


def test_an_allowed_column_is_kept_beside_a_bad_cell(write) -> None:
    """A row that is read the slow way, because a cell is unusual, keeps the allowed columns too."""
    item = {**MEDIA, "project_id": PROJECT.upper(), "langauge": "en"}
    assert one_allowed(as_csv(write, [item])) == {"langauge": "en"}


def one_allowed(source) -> dict[str, Any]:
    """Return the metadata of the only row, with `langauge` allowed."""
    (row,) = read(source, allow_columns=["langauge"])
    return row.metadata


def test_allowed_columns_are_a_collection_of_names() -> None:
    """One text is refused: its letters would be taken for names."""
    with pytest.raises(InvalidArgumentError, match=r'allow_columns: .* such as \["langauge"\]'):
        read([MEDIA], allow_columns="langauge")


def test_a_misspelt_column_shows_no_secret() -> None:
    """The name of a column is shown as safely as a value."""
    with pytest.raises(ManifestError) as caught:
        list(read([{**MEDIA, "image_url?": 1}]))
    assert "image_url?***" in str(caught.value)


def test_names_are_judged_once(monkeypatch) -> None:
    """A million mappings have the same few names, which are compared with the fields once."""
    judged = []
    known = spelling.closest
    spelling.closest.cache_clear()
    monkeypatch.setattr(spelling, "_score", lambda *names: judged.append(names) or 0.0)
    assert len(list(read({**MEDIA, "cust0mer": n} for n in range(1_000)))) == 1_000
    known.cache_clear()
    assert 0 < len(judged) <= len(FIELDS)


# --- secrets


@pytest.mark.parametrize(
    "text",
    [
        f"https:///x?token={HIDDEN}",
        f"https://?token={HIDDEN}",
        f"ftp://h/x?token={HIDDEN}",
        f"cdn.example.com/x?a=1 b&token={HIDDEN}",
        f"https://h/x?a=1\n&token={HIDDEN}",
        f"https://h:0/x#token={HIDDEN}",
        f"ftp://user:{HIDDEN}@h/x",
        f"ftp://user:a/{HIDDEN}@h/x",
        f"user:{HIDDEN}@h/x",
        f"https://h h/{'x' * 60}?{HIDDEN}",
        f"https://h h/{'x' * 9000}?{HIDDEN}",
    ],
)
@pytest.mark.parametrize("column", ["image_url", "project_id", "version", "values", "row_key"])
def test_a_bad_row_shows_no_secret(write, column: str, text: str) -> None:
    """What is shown of a value grants access to nothing, wherever a URL got to, and is short."""
    rows = list(read(as_csv(write, [{**MEDIA, column: text}])))
    if column != "version":
        rows.append(one([{**MEDIA, column: text, **({"values": text} if column == "values" else {})}]))
    for row in rows:
        assert isinstance(row, BadRow)
        for shown in (str(row), repr(row), row.value, row.reason):
            assert HIDDEN not in shown
        assert 0 < len(row.value) <= 80


def test_what_a_bad_row_says(write) -> None:
    """A bad row says where it is, what is there, and what is wrong with it."""
    assert str(cell(write, "image_url", f"https:///x?token={HIDDEN}")) == (
        'line 2, column image_url: "https:///x?***" is not an absolute http(s) URL with a host; '
        "give an absolute URL such as https://cdn.example.com/file"
    )
    assert str(one([{**MEDIA, "crop": 5}])) == 'line 1, column crop: "5" must be a bool, not an int'
    assert str(one([{"audio_url": AUDIO}])) == "line 1, column image_url: must be given"


def test_a_bad_row_that_others_make_shows_no_secret() -> None:
    """A bad row keeps secrets back whoever makes it."""
    row = BadRow(1, "image_url", f"https://h/?{HIDDEN}", "is bad")
    assert row.value == "https://h/?***"
    assert BadRow(row.line, row.column, row.value, row.reason) == row


def test_the_repr_of_a_row_shows_no_secret() -> None:
    """A row is shown by tracebacks, and an input's URL may be signed: its query is not shown."""
    shown = repr(one([{**MEDIA, "image_url": f"{IMAGE}?{HIDDEN}", "note": [f"{AUDIO}?{HIDDEN}"]}]))
    assert HIDDEN not in shown
    assert f"{IMAGE}?***" in shown


def test_nothing_is_logged(write, caplog) -> None:
    """Rows are logged at no level."""
    caplog.set_level(0)
    list(read(as_csv(write, [MEDIA, {"image_url": "x", "audio_url": "y"}])))
    assert caplog.records == []


# --- streams


def test_mappings_are_read_as_far_as_asked() -> None:
    """A row is taken from the iterable when it is asked for, and not before."""
    taken = []

    def rows():
        for n in itertools.count():
            taken.append(n)
            yield MEDIA

    stream = read(rows())
    assert taken == []
    assert [next(stream).line, next(stream).line] == [1, 2]
    assert taken == [0, 1]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_is_opened_when_it_is_read(tmp_path, suffix: str) -> None:
    """Nothing is opened before the first row is asked for; a stream that is given up closes its file."""
    path = tmp_path / f"manifest.{suffix}"
    stream = read(path)
    text = json.dumps(MEDIA) if suffix == "jsonl" else f"image_url,audio_url\n{IMAGE},{AUDIO}"
    path.write_text(f"{text}\n" * 2)
    assert next(stream).params == MEDIA
    stream.close()


def test_a_header_that_is_repeated_is_a_bad_row(write) -> None:
    """Files that were put together have their header again, and it is no job."""
    path = write(f"image_url,audio_url\n{IMAGE},{AUDIO}\n" * 2)
    assert [type(row) for row in read(path)] == [Row, BadRow, Row]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "mappings", "parquet"])
def test_memory_is_constant(tmp_path, suffix: str) -> None:
    """20,000 rows, each different in every column, pass through less than a megabyte."""

    def rows():
        for n in range(20_000):
            yield {"image_url": f"{IMAGE}?{n}", "audio_url": AUDIO, "output_size": n, "note": f"{n}" * 20}

    path = tmp_path / f"manifest.{suffix}"
    if suffix == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image_url", "audio_url", "output_size", "note"])
            writer.writeheader()
            writer.writerows(rows())
    elif suffix == "parquet":
        pytest.importorskip("pyarrow")
        _write_parquet(path, list(rows()))
        # What pyarrow itself needs the first time.
        next(read(path))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    tracemalloc.start()
    try:
        assert sum(isinstance(row, Row) for row in read(rows() if suffix == "mappings" else path)) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# --- Parquet


def _write_parquet(path, rows: list[dict[str, Any]], **options) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415 - where it is installed

    parquet.write_table(arrow.Table.from_pylist(rows, **options), path)


def test_parquet(tmp_path) -> None:
    """A Parquet file's columns are a job's fields in their own types, null is not given, rows are counted."""
    path = tmp_path / "manifest.parquet"
    small = {**MEDIA, "row_key": "b", "note": 5}
    _write_parquet(path, [{**EVERYTHING, "dynamic_scale": 1.0, "row_key": None, "note": None}, small])
    first, second = read(path)
    assert first == evolve(one([EVERYTHING]), metadata={"note": None})
    assert second == Row("b", MEDIA, {"note": 5}, 2)


def test_rows_of_parquet_are_checked(tmp_path) -> None:
    """A bad row of a Parquet file is told with its number, over the bounds of batches."""
    path = tmp_path / "manifest.parquet"
    rows: list[dict[str, Any]] = [MEDIA] * 2_500
    rows[2_100] = {**MEDIA, "image_url": None}
    _write_parquet(path, rows)
    assert [str(row) for row in read(path) if isinstance(row, BadRow)] == [
        "line 2101, column image_url: must be given"
    ]
    _write_parquet(path, [{**MEDIA, "version": "6"}])
    assert str(one(path)) == 'line 1, column version: "6" must be an int, not a str'


def test_parquet_without_a_column(tmp_path) -> None:
    """A Parquet file without a required column, or with a column twice, is none of ours."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415 - where it is installed

    path = tmp_path / "manifest.parquet"
    for names, says in [
        (["image_url", "note"], "audio_url must be there, .* image_url, note$"),
        (["image_url", "audio_url", "a", "a"], "the column a is there twice"),
    ]:
        parquet.write_table(arrow.table([["x"]] * len(names), names=names), path)
        with pytest.raises(ManifestError, match=says):
            list(read(path))


def test_a_file_that_is_no_parquet(write, tmp_path) -> None:
    """What is no Parquet file, or not there, is an error of ours."""
    pytest.importorskip("pyarrow")
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        list(read(write("image_url,audio_url", "manifest.parquet")))
    with pytest.raises(ManifestError, match="No such file"):
        list(read(tmp_path / "missing.parquet"))


@pytest.mark.parametrize("missing", ["pyarrow", "pyarrow.parquet"])
def test_parquet_without_pyarrow(write, monkeypatch, missing: str) -> None:
    """Without pyarrow the error says how to install it."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ManifestError, match=r"pip install techforge\[parquet\]"):
        list(read(write("", "manifest.parquet")))

"""The documentation site's checks see what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import griffe
import pytest

import parameter_tables
import website

if TYPE_CHECKING:
    from pathlib import Path

PLACES = {**website.PLACES, "docs/batch.md": "batch.md", "examples/worker.py": "examples/worker.md"}


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("[a](../examples/worker.py)", "[a](examples/worker.md)"),
        ("[a](batch.md#pace)", "[a](batch.md#pace)"),
        ("[a](docs/batch.md)", "[a](batch.md)"),
        ("[`a`](../wrapper/techforge/errors.py)", "[`a`](errors.md)"),
        ("[a](../noxfile.py)", "a"),
        ("[a](https://example.com/)", "[a](https://example.com/)"),
        ("[a](#here)", "[a](#here)"),
    ],
)
def test_a_link_leads_to_where_things_are_on_the_site(link: str, there: str) -> None:
    """What is not on the site loses its link."""
    assert website.relinked(link, "docs/mock.md", "mock.md", PLACES) == there


def test_a_link_that_leads_nowhere_ends_the_build() -> None:
    """It is said where it is."""
    with pytest.raises(SystemExit, match=r"docs/mock\.md: the link to gone\.md leads nowhere"):
        website.relinked("[a](gone.md)", "docs/mock.md", "mock.md", PLACES)


def test_a_section_that_the_readme_lacks_ends_the_build() -> None:
    """A heading that was renamed would else empty a page."""
    with pytest.raises(SystemExit, match="no section 'Gone'"):
        website.with_sections("<!-- README.md: Gone -->", "docs/index.md")


def test_blocks_with_a_title_become_tabs() -> None:
    """The comment that names a block is invisible where there are no tabs; other blocks stay as they are."""
    block = "```python\nx = 1\n\ny = 2\n```"
    text = f"<!-- tab: Sync -->\n{block}\n\n<!-- tab: Async -->\n{block}\n\n{block}\n"
    indented = "    ```python\n    x = 1\n\n    y = 2\n    ```"
    assert website.tabbed(text) == f'=== "Sync"\n\n{indented}\n\n=== "Async"\n\n{indented}\n\n{block}\n'


MODULE = '''
from typing import Required, TypedDict, Unpack

class Options(TypedDict, total=False):
    """Options."""

    url: Required[str]
    """Where."""
    wait: float
    """How long. Default 60."""
    kind: str
    """Which; `video` by default."""
    crop: bool
    """Whether."""

MANY = 10

def make(name, *rest: str, many: int = MANY, **options: Unpack[Options]) -> None:
    """Make it.

    Args:
        name: Its name.

    Raises:
        ValueError: it is wrong.
    """

def close() -> None:
    """Close it."""

class Maker:
    """A maker.

    Args:
        name: Its name.
        options: See `Options`.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str, **options: Unpack[Options]) -> None:
        self.name = name

class Jobs:
    """Jobs. Reached as `client.jobs`."""

    def __init__(self, session: _Session) -> None:
        self._session = session

class _Session:
    pass
'''


def test_every_parameter_is_in_a_table() -> None:
    """Options are listed one by one. A meaning comes from a docstring, or its cell is empty."""
    extensions = griffe.load_extensions(parameter_tables.ParameterTables)
    with griffe.temporary_visited_package(
        "made", {"__init__.py": MODULE}, extensions=extensions, docstring_parser="google"
    ) as package:
        _, table, raises = package["make"].docstring.parsed
        assert raises.kind is griffe.DocstringSectionKind.raises
        assert [(row.name, str(row.annotation), row.description, row.default) for row in table.value] == [
            ("name", "None", "Its name.", None),
            ("*rest", "str", "", "()"),
            ("many", "int", "", "10"),
            ("url", "str", "Where.", None),
            ("wait", "float", "How long. Default 60.", "60"),
            ("kind", "str", "Which; `video` by default.", "'video'"),
            ("crop", "bool", "Whether.", "optional"),
        ]
        assert [section.kind.value for section in package["close"].docstring.parsed] == ["text"]
        _, attributes, table = package["Maker"].docstring.parsed
        assert str(attributes.value[0].annotation) == "str"
        names = {row.name: row.description for row in table.value}
        assert list(names) == ["name", "url", "wait", "kind", "crop"]
        assert names["name"] == "Its name."
        assert [section.kind.value for section in package["Jobs"].docstring.parsed] == ["text"]


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="gone.html">', "gone.html is not there"),
        ('<a href="#gone">', "#gone is no place in that page"),
        ('<img src="gone.png">', "gone.png is not there"),
        ('<script src="https://cdn.example.com/x.js"></script>', "loads https://cdn.example.com/x.js"),
        ('<link rel="stylesheet" href="//cdn.example.com/x.css">', "loads //cdn.example.com/x.css"),
        ('<div class="doc-md-description">\n</div>', "1 parameters have no description"),
    ],
)
def test_what_is_wrong_with_a_page_is_found(
    html: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead links, and whatever another host would have to give."""
    monkeypatch.setattr(website, "SITE", tmp_path)
    monkeypatch.setattr(website, "unlisted", lambda: iter(()))
    (tmp_path / "index.html").write_text(f'<h1 id="top"></h1><a href="#top"></a>{html}', encoding="utf-8")
    found = [text for text in website.problems() if "reference" not in text]
    assert len(found) == 1
    assert found[0].endswith(problem)


def test_try_it_knows_no_live_api() -> None:
    """The reference's copy of the contract has the mock server of the reader's machine, and no other."""
    (server,) = website.for_the_mock({"servers": [{"url": "https://api.techforgeinnovate.com"}]})["servers"]
    assert server["url"] == "http://127.0.0.1:{port}"
    assert server["variables"]["port"]["default"] == "8642"

"""Put the documentation site's pages together, and look at what was built of them; `nox -s docs` runs it."""

import ast
import json
import os
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
# The builder has its cache beside its settings, and no way to put it elsewhere.
PROJECT = ROOT / "build" / "website"
PAGES = PROJECT / "docs"
SITE = ROOT / "site"

# Where a file of the repository is on the site, if it is not under docs/.
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "openapi.json": "openapi.json",
    "wrapper/techforge/errors.py": "errors.md",
}
SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
_LINK = re.compile(r"(?<!`)(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")
_LOADS = re.compile(r"url\([\"']?(?:https?:)?//[^)]*|@import[^;]*")
_NO_DESCRIPTION = re.compile(r'<div class="doc-md-description">\s*</div>')
_SECTION = re.compile(r"<!-- README\.md: (.+?) -->")
_TAB = re.compile(r"^<!-- tab: (.+?) -->\n(```.*?^```$)", re.MULTILINE | re.DOTALL)


def stage(renderer: Path) -> None:
    """Fill the folder that the site is built from; `renderer` is the folder of swagger-ui-dist."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "site", PROJECT)
    places = {
        **PLACES,
        **{str(p.relative_to(ROOT)): p.name for p in ROOT.glob("docs/*.*")},
        **{f"examples/{p.name}": f"examples/{p.stem}.md" for p in ROOT.glob("examples/*.py")},
        **{f"examples/{p.name}": f"examples/{p.name}" for p in ROOT.glob("examples/*.ipynb")},
    }
    for source, place in places.items():
        target = PAGES / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source in {"README.md", "wrapper/techforge/errors.py"}:
            continue  # other pages hold them
        if source.endswith(".md"):
            text = (ROOT / source).read_text(encoding="utf-8")
            text = tabbed(with_sections(text, source))
            target.write_text(relinked(text, source, place, places), encoding="utf-8")
        elif source.endswith(".py"):
            text = (ROOT / source).read_text(encoding="utf-8")
            target.write_text(f"# {target.stem}.py\n\n```python\n{text}```\n", encoding="utf-8")
        else:
            shutil.copy(ROOT / source, target)
    assets = PAGES / "assets"
    shutil.copytree(PROJECT / "theme" / "assets", assets)
    for name in SWAGGER_UI:
        # The source map that its last line names is not taken along.
        text = (renderer / name).read_text(encoding="utf-8").partition("sourceMappingURL=")[0]
        text = text.rstrip().removesuffix("/*#").removesuffix("//#")
        (assets / name).write_text(text, encoding="utf-8")
    contract = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    (assets / "mock-openapi.json").write_text(json.dumps(for_the_mock(contract)), encoding="utf-8")


def with_sections(text: str, source: str) -> str:
    """Put sections of the README where a page asks for them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    def section(match: re.Match[str]) -> str:
        found = re.search(
            rf"^## {re.escape(match[1])}\n.*?(?=^## |\Z)", readme, flags=re.MULTILINE | re.DOTALL
        )
        if found is None:
            sys.exit(f"{source}: README.md has no section {match[1]!r}.")
        return found[0].rstrip()

    return _SECTION.sub(section, text)


def tabbed(text: str) -> str:
    """Put each code block that follows a comment `<!-- tab: Title -->` into a tab."""
    return _TAB.sub(lambda match: f'=== "{match[1]}"\n\n{textwrap.indent(match[2], "    ")}', text)


def relinked(text: str, source: str, place: str, places: Mapping[str, str]) -> str:
    """Let links lead to where things are on the site; what is not there loses its link."""

    def link(match: re.Match[str]) -> str:
        image, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        # A section of the README links as the README does.
        for start in (Path(source).parent, Path()):
            at = os.path.normpath(start / target).replace(os.sep, "/")
            if at in places:
                found = os.path.relpath(places[at], Path(place).parent).replace(os.sep, "/")
                return f"{image}[{label}]({found}{anchor})"
            if (ROOT / at).exists():
                return label
        sys.exit(f"{source}: the link to {target} leads nowhere.")

    return _LINK.sub(link, text)


def for_the_mock(contract: dict[str, Any]) -> dict[str, Any]:
    """Return the contract with a mock server of the reader's own in place of the live API."""
    port = {"default": "8642", "description": "The port of `python -m techforge.mock`."}
    mock = {"url": "http://127.0.0.1:{port}", "description": "A mock server on this machine"}
    return {**contract, "servers": [{**mock, "variables": {"port": port}}]}


def in_navigation(entries: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the title and the file of each page, in order; a part yields its title and no file."""
    for entry in entries:
        for title, value in entry.items():
            if isinstance(value, str):
                yield title, value
            else:
                yield title, ""
                yield from in_navigation(value)


def settings() -> dict[str, Any]:
    """Return what the builder is told."""
    found: dict[str, Any] = tomllib.loads((PROJECT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    return found


def llms() -> str:
    """Return llms.txt: the navigation, with a line on each page."""
    said = settings()["extra"]["llms"]
    lines = ["# techforge", "", f"> {settings()['site_description']}", ""]
    for title, file in in_navigation(settings()["nav"]):
        place = file.removesuffix(".md") + ".html"
        lines += [f"- [{title}]({place}): {said[file]}"] if file else ["", f"## {title}", ""]
    return "\n".join([*lines, "- [openapi.json](openapi.json): the contract of the HTTP API", ""])


class _Page(HTMLParser):
    """What a page links to and loads, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values.get("id", "")} | ({values.get("name", "")} if tag == "a" else set())
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in {"canonical", "prev", "next"}:
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])


def problems() -> Iterator[str]:
    """Look for links that lead nowhere, for what comes from another host, and for what is left out."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(SITE.rglob("*.html"))}
    yield from unlisted()
    for path, page in pages.items():
        yield from (f"{path.name}: {problem}" for problem in problems_of(path, pages))
        yield from (f"{path.name} loads {target}" for target in page.loads if urlsplit(target).netloc)
        if missing := len(_NO_DESCRIPTION.findall(path.read_text(encoding="utf-8"))):
            yield f"{path.name}: {missing} parameters have no description"
    for sheet in SITE.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        yield from (f"{sheet.name} loads {found}" for found in _LOADS.findall(text))
    ids = set[str]().union(*(page.ids for page in pages.values()))
    for package in ("techforge", "techforge.batch"):
        for name in exported(package) - {"__version__"}:
            if ids.isdisjoint({f"{package}.{name}", f"techforge.errors.{name}"}):
                yield f"{package}.{name} is not in the reference"


def unlisted() -> Iterator[str]:
    """Compare the pages with the settings."""
    there = {str(path.relative_to(PAGES)) for path in PAGES.rglob("*.md")}
    listed = {file for _, file in in_navigation(settings()["nav"]) if file}
    for name, found in (("nav", listed), ("extra.llms", settings()["extra"]["llms"].keys())):
        yield from (f"{file} is not in `{name}` of docs/site/zensical.toml" for file in sorted(there - found))
        yield from (f"{file} is in `{name}`, and not in docs/" for file in sorted(found - there))


def problems_of(path: Path, pages: Mapping[Path, _Page]) -> Iterator[str]:
    """Follow the links of a page within the site."""
    for target in sorted({*pages[path].links, *pages[path].loads}):
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        # The page for what is not found is served from any place, so its links begin at the root.
        start = SITE if url.path.startswith("/") else path.parent
        file = (start / unquote(url.path).lstrip("/")).resolve() if url.path else path
        if file == SITE:
            file /= "index.html"
        if not file.is_file():
            yield f"{target} is not there"
        elif url.fragment and file in pages and unquote(url.fragment) not in pages[file].ids:
            yield f"{target} is no place in that page"


def exported(package: str) -> set[str]:
    """Return what a package of ours lists in `__all__`."""
    source = ROOT / "wrapper" / Path(*package.split(".")) / "__init__.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    sys.exit(f"{source} has no __all__.")


def main(arguments: list[str]) -> int:
    """Do what comes before the building, or what comes after it."""
    match arguments:
        case ["stage", renderer]:
            stage(Path(renderer))
        case ["finish"]:
            shutil.rmtree(SITE, ignore_errors=True)
            shutil.move(PROJECT / "site", SITE)
            if found := list(problems()):
                sys.exit("\n".join(found))
            (SITE / "llms.txt").write_text(llms(), encoding="utf-8")
        case _:
            sys.exit("Usage: website.py stage FOLDER | finish")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

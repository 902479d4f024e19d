"""Use the built documentation site as a reader does, in Chromium; `nox -s docs-browser` runs it."""

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Request, ViewportSize, expect, sync_playwright

from techforge.mock import MockServer

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
PICTURES = ROOT / "reports" / "docs"
WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 375, "height": 800}

# What software that is not ours does, and what no setting of it changes: axe's rules, by page, and a message.
EXCEPTED = {
    # Swagger UI has a <main> within the theme's.
    "api.html": ("landmark-main-is-top-level", "landmark-no-duplicate-main", "landmark-unique"),
    # The theme's search draws its results in a shadow root: its paths are pale, its names are shorter.
    "search": ("color-contrast", "label-content-name-mismatch"),
}
# The theme's search field asks for the focus on pages that are opened at a heading.
EXCEPTED_MESSAGE = "Autofocus processing was blocked because a document's URL has a fragment"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name for it
        """Say nothing of each request."""


@contextmanager
def serving(folder: Path) -> Generator[str]:
    """Serve a folder on a free port, and give its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Reader:
    """A page of the browser, and what is wrong with what it has seen."""

    def __init__(self, page: Page, site: str, axe: Path) -> None:
        self.page, self.site, self.axe = page, site, axe
        self.problems: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"{page.url}: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if not message.text.startswith(EXCEPTED_MESSAGE):
            self.problems.append(f"{self.page.url}: the console says: {message.text}")

    def _request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and url.hostname != "127.0.0.1":
            self.problems.append(f"{self.page.url}: a request to {request.url}")

    def open(self, name: str) -> None:
        """Go to a page of the site."""
        self.page.goto(f"{self.site}/{name}", wait_until="networkidle")
        if name == "api.html":
            expect(self.page.locator(".opblock")).to_have_count(2)
            expect(self.page.locator(".opblock .btn.try-out__btn")).to_have_count(2)

    def picture(self, name: str, *, whole: bool = False) -> None:
        """Keep what the page looks like."""
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)

    def audit(self, name: str) -> None:
        """Let axe look at the page."""
        self.page.add_script_tag(path=self.axe)
        rules = {rule: {"enabled": False} for rule in EXCEPTED.get(name, ())}
        found: dict[str, Any] = self.page.evaluate("rules => axe.run({rules})", rules)
        for violation in found["violations"]:
            places = "; ".join(str(node["target"]) for node in violation["nodes"][:4])
            count = len(violation["nodes"])
            self.problems.append(f"{self.page.url}: axe: {violation['id']} ({count}): {places}")

    def width(self) -> None:
        """See that nothing makes the page scroll sideways."""
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        if wide > self.page.evaluate("window.innerWidth"):
            self.problems.append(f"{self.page.url}: {wide} pixels wide")


def try_it(reader: Reader, mock: MockServer) -> None:
    """Submit a job from the reference, and see that the mock got it and that its answer is shown."""
    reader.open("api.html")
    page = reader.page
    page.locator(".server-variables input, .servers input").first.fill(str(urlsplit(mock.url).port))
    operation = page.locator(".opblock-post")
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response-col_status").last
    expect(answer).to_contain_text("202")
    expect(operation.locator(".live-responses-table")).to_contain_text("jobId")
    records = mock.journal.requests(operation="createJob")
    if [record.status for record in records] != [202]:
        reader.problems.append(f"the mock got {records}")
    operation.locator(".live-responses-table").scroll_into_view_if_needed()
    reader.picture("api-tried")
    reader.audit("api.html")


def search(reader: Reader) -> None:
    """Look for `wait`, and go to a result."""
    reader.open("index.html")
    page = reader.page
    page.keyboard.press("/")
    page.keyboard.type("wait", delay=30)
    results = page.get_by_role("listbox", name="Search results")
    expect(results.locator("mark").get_by_text("wait", exact=True).first).to_be_visible()
    reader.picture("search")
    reader.audit("search")
    page.keyboard.press("Enter")
    expect(page.locator("h2 mark, h3 mark").filter(has_text="wait").first).to_be_visible()


def copy(reader: Reader) -> None:
    """Copy the commands of the first page: they come without prompts and remarks."""
    reader.open("index.html")
    reader.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    block = reader.page.locator(".language-console").first
    block.hover()
    block.get_by_role("button").first.click()
    lines = [line.strip() for line in reader.page.evaluate("navigator.clipboard.readText()").splitlines()]
    if lines != ["python3 scripts/dev.py demo", "python3 scripts/dev.py"]:
        reader.problems.append(f"{reader.page.url}: the copied commands are {lines}")


def choose_async(reader: Reader) -> None:
    """Choose async on one page, and find it chosen on another."""
    reader.open("index.html")
    reader.page.locator(".tabbed-labels").get_by_text("Async", exact=True).click()
    reader.open("keys.html")
    expect(reader.page.get_by_text("async def main").first).to_be_visible()


def main(arguments: list[str]) -> int:
    """Go through the site, and say what is wrong."""
    browser_path, axe = arguments[:2]
    PICTURES.mkdir(parents=True, exist_ok=True)
    names = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    with (
        serving(SITE) as site,
        MockServer(render=False, job_seconds=0.1) as mock,
        sync_playwright() as playwright,
    ):
        # As root, which CI often is, Chromium has no sandbox of its own; it sees nothing but our pages. It
        # finds no other host, whatever it would like to ask by itself.
        alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-dev-shm-usage", alone]
        )
        context = browser.new_context(viewport=WIDE)
        context.set_default_timeout(10_000)
        reader = Reader(context.new_page(), site, Path(axe))
        try_it(reader, mock)
        search(reader)
        copy(reader)
        choose_async(reader)
        for name in names:
            reader.open(name)
            reader.audit(name)
            reader.picture(name.removesuffix(".html").replace("/", "-"))
        reader.page.set_viewport_size(NARROW)
        reader.page.emulate_media(color_scheme="dark")
        for name in names:
            reader.open(name)
            reader.width()
            reader.audit(name)
            reader.picture(name.removesuffix(".html").replace("/", "-") + "-narrow-dark")
        browser.close()
    print(*reader.problems, f"{len(names)} pages, {len(reader.problems)} problems", sep="\n")
    return 1 if reader.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

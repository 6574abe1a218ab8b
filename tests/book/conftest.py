"""The built book, and a browser that reaches nothing but its files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from book_site import BUILT, ROOT, SITE
from filelock import FileLock


@dataclass
class Opened:
    """A page in the browser, with all that it complained about or asked the net for."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The book, built as `make book-html` does: a warning is a failure."""
    if BUILT:
        return SITE
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers: the first builds, the others wait
    log = shared / "book.log"
    with FileLock(shared / "book.lock"):
        if not log.exists():
            log.write_text(_build(), encoding="utf-8")
    complaint = log.read_text(encoding="utf-8")
    assert not complaint, complaint
    return SITE


def _build() -> str:
    """Build the book; return what it printed last if that failed."""
    command = [sys.executable, ROOT / "book" / "make.py"]
    built = subprocess.run(command, capture_output=True, text=True)
    return built.stdout[-4000:] + built.stderr[-4000:] if built.returncode else ""


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium: the machine's own, or else the one Playwright brought."""
    from playwright.sync_api import Error, sync_playwright

    names = ["chromium", "chromium-browser", "google-chrome", "chrome"]
    path = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox", "--disable-gpu"]
            )
        except Error as error:
            if os.environ.get("PRECODE_REQUIRE_BROWSER"):
                raise
            pytest.skip(f"no Chromium here; install one to run this: {error.name}")
        yield browser
        browser.close()


def _visits(site, browser) -> Iterator:
    contexts = []

    def open_document(
        document: str, query: str = "", clock: bool = False, **options
    ) -> Opened:
        context = browser.new_context(**options)
        contexts.append(context)
        opened = Opened(context.new_page())

        def answer(route) -> None:
            if route.request.url.startswith("file://"):
                return route.continue_()
            opened.requests.append(route.request.url)
            return route.abort()

        if clock:
            opened.page.clock.install()
        opened.page.route("**/*", answer)
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning")
                and opened.complaints.append(message.text)
            ),
        )
        opened.page.goto((site / f"{document}.html").as_uri() + query)
        return opened

    def close_all() -> None:
        while contexts:
            contexts.pop().close()

    open_document.close_all = close_all
    yield open_document
    close_all()


@pytest.fixture
def visit(site, browser) -> Iterator:
    """Open a document of the book, perhaps with a clock that a test can move.

    Options are those of a browser context.
    """
    yield from _visits(site, browser)


@pytest.fixture(scope="module")
def visit_in_module(site, browser) -> Iterator:
    """The same for tests that share what they see; they close what they opened."""
    yield from _visits(site, browser)

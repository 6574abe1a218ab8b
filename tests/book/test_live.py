"""A chapter in Jupyter Lab: sliders that compute, and an attack that can be stopped."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from book_site import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.browser]

PATIENCE = 60_000  # milliseconds; a limit for broken runs, not a measure
# Behind the welcome page's own cells: a quiz, and an attack that nobody waits for.
QUIZ = """
from precode_lib.widgets import quiz, right, wrong

quiz("Is it live?", wrong("Never.", "It is."), right("Here.", "It is."))
"""
WATCH = """
from dataclasses import replace
from precode_lib.attacks import IGA, Search
from precode_lib.widgets import watch

seen = observe(
    model, images[:1], labels[:1], normalisation=photos.normalisation
)
search = Search(
    seen,
    replace(IGA, iterations=10**6),
    generator=torch.Generator().manual_seed(0),
)
watch(search, photos.pixels[:1], question="Does it stop?", caption="c")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        assert server.poll() is None, "Jupyter Lab ended at once"
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nobody answers at {address}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The welcome page's notebook and the cells above, and Lab's own settings."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = json.loads((ROOT / "book" / "welcome.ipynb").read_text("utf-8"))
    for name, source in (("quiz", QUIZ), ("watch", WATCH)):
        cell = {"cell_type": "code", "id": name, "metadata": {}, "outputs": []}
        notebook["cells"].append({**cell, "execution_count": None, "source": source})
    (folder / "live.ipynb").write_text(json.dumps(notebook), "utf-8")
    news = "@jupyterlab/apputils-extension:announcements"
    settings = folder / "config" / "labconfig"
    settings.mkdir(parents=True)
    config = {"disabledExtensions": {news: True}}
    (settings / "page_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """The address of a Jupyter Lab that serves the folder and knows nobody."""
    port = free_port()
    options = [
        "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PRECODE_STATIC", None)
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{address}/api/status", server)
            yield address
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(scope="module")
def notebook(lab, browser):
    """The notebook in the browser, with every cell run."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{lab}/lab/tree/live.ipynb")
    page.wait_for_function(
        "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady"
    )
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    page.get_by_text("Does it stop?", exact=True).wait_for()
    yield page
    context.close()


def test_moving_sigma_by_keyboard_changes_the_picture_and_the_numbers(notebook):
    figure = notebook.locator(".precode-live .precode-figure").first
    leaked = figure.locator(".precode-leaked")
    before = leaked.locator("img").get_attribute("src")
    # Not `inner_text`: Lab does not draw what is out of sight.
    similarity = leaked.locator("dd").text_content()
    handle = notebook.locator(".noUi-handle").first
    handle.focus()
    for _ in range(7):
        handle.press("ArrowRight")
    notebook.wait_for_function(
        "([before, dd]) => {"
        " const now = document.querySelector('.precode-live .precode-leaked');"
        " return now.querySelector('img').src !== before"
        " && now.querySelector('dd').textContent !== dd; }",
        arg=[before, similarity],
    )
    assert float(leaked.locator("dd").text_content()) < float(similarity)


def test_stop_ends_the_attack_and_keeps_what_it_found(notebook):
    stop = notebook.get_by_role("button", name="Stop").last
    figure = notebook.locator(".precode-figure:has(.precode-curve)")
    status = notebook.locator(".precode-status", has_text="iteration")
    reached = notebook.locator("output").last
    notebook.wait_for_function(
        "Number([...document.querySelectorAll('output')].at(-1).textContent) > 3"
    )
    stop.click()
    notebook.get_by_text("stopped after").wait_for()
    assert stop.is_disabled()
    assert status.count() == 1
    assert int(reached.inner_text()) > 3
    assert figure.locator(".precode-mark").count() == 1
    before = figure.locator(".precode-leaked img").get_attribute("src")
    notebook.locator(".noUi-handle").last.focus()
    notebook.keyboard.press("Home")
    notebook.wait_for_function(
        "Number([...document.querySelectorAll('output')].at(-1).textContent) === 0"
    )
    assert figure.locator(".precode-leaked img").get_attribute("src") != before


def test_a_quiz_follows_the_mouse_and_the_arrow_keys(notebook):
    quiz = notebook.locator(".precode-quiz")
    feedback = quiz.locator(".precode-feedback")
    quiz.get_by_text("Never.").click()
    assert [one.is_visible() for one in feedback.all()] == [True, False]
    quiz.locator("input").first.press("ArrowDown")
    assert [one.is_visible() for one in feedback.all()] == [False, True]
    assert quiz.locator("input").last.evaluate("one => one === document.activeElement")

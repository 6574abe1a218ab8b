"""The book's own tools: when outputs are stale, and how the book is served."""

import gc
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from book_site import ROOT, SITE, documents
from jupyter_cache import get_cache


@pytest.fixture
def static_build(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import static_build

    return static_build


def test_a_change_in_the_library_changes_its_fingerprint(
    static_build, monkeypatch, tmp_path
):
    monkeypatch.setattr(static_build, "LIBRARY", tmp_path)
    fingerprints = {static_build.library_fingerprint()}
    for text in ("a = 1", "a = 2"):
        (tmp_path / "room.py").write_text(text)
        fingerprints.add(static_build.library_fingerprint())
    assert len(fingerprints) == 3
    (tmp_path / "room.pyc").write_text("compiled")
    assert static_build.library_fingerprint() in fingerprints


def test_executed_notebooks_are_kept_until_the_library_changes(static_build, tmp_path):
    app = SimpleNamespace(outdir=tmp_path / "html")
    executed = tmp_path / ".jupyter_cache" / "executed"

    def start_build(fingerprint: str) -> None:
        config = SimpleNamespace(
            nb_execution_cache_path="", library_fingerprint=fingerprint
        )
        static_build.forget_stale_outputs(app, config)

    start_build("one")
    executed.mkdir()
    start_build("one")
    assert executed.exists()
    start_build("two")
    assert not executed.exists()


@pytest.mark.slow
def test_the_build_executes_every_chapter_to_its_end(site):
    # No other test runs the chapters.
    cache = get_cache(SITE.parent / ".jupyter_cache")
    paths = [ROOT / f"{document}.ipynb" for document in documents()]
    chapters = [p for p in paths if p.exists() and p.parent.name != "exercises"]
    assert len(chapters) > 15
    for path in chapters:
        record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
        executed = cache.get_cache_bundle(record.pk).nb
        last = [cell for cell in executed.cells if cell.cell_type == "code"][-1]
        assert last.execution_count, path


BUTTONS = {"use_repository_button": True, "use_issues_button": True}


@pytest.mark.parametrize(
    ("address", "workflow", "launched"),
    [
        ("https://github.com/_account_/book", "", None),
        ("https://github.com/_account_/book", "ada/fork", {"binderhub_url"}),
        ("https://github.com/ada/book", "", {"binderhub_url", "colab_url"}),
        ("https://github.com/ada/book", "bob/fork", {"binderhub_url", "colab_url"}),
    ],
)
def test_launch_buttons_wait_for_an_address(
    static_build, monkeypatch, address, workflow, launched
):
    monkeypatch.setenv("GITHUB_REPOSITORY", workflow)
    options = {"repository_url": address, "repository_branch": "main"}
    static_build.point_to_repository(None, SimpleNamespace(html_theme_options=options))
    if launched is None:
        assert options == {"repository_branch": "main"}
        return
    assert BUTTONS.items() <= options.items()
    assert "_account_" not in options["repository_url"]
    buttons = options["launch_buttons"]
    assert {key for key in buttons if key.endswith("_url")} == launched


@pytest.mark.slow
@pytest.mark.parametrize("account", ["_account_", "ada"])
def test_pages_offer_binder_and_colab_only_with_an_address(
    script_at, monkeypatch, tmp_path, account
):
    address = script_at("tools/address.py")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    for folder in ("book/_ext", "book/_static", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    here = address.read().replace(address.read().split("/")[3], account)
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    config = config.replace(address.read(), here).replace(
        "execute_notebooks: cache", 'execute_notebooks: "off"'
    )
    (tmp_path / "_config.yml").write_text(config, encoding="utf-8")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    cell = nbformat.v4.new_markdown_cell("# A page")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "book" / "page.ipynb")
    (tmp_path / "book" / "references.bib").touch()
    command = [Path(sys.executable).with_name("jupyter-book"), "build", tmp_path]
    built = subprocess.run(command, capture_output=True, text=True)
    page = tmp_path / "_build" / "html" / "book" / "page.html"
    assert page.exists(), built.stdout + built.stderr
    links = re.findall(r'href="(https://[^"]+)"', page.read_text(encoding="utf-8"))
    name, file = here.removeprefix("https://github.com/"), "book/page.ipynb"
    binder = f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{file}"
    colab = f"https://colab.research.google.com/github/{name}/blob/main/{file}"
    is_set = account != "_account_"
    assert (binder in links, colab in links, here in links) == (is_set,) * 3
    assert is_set or not [link for link in links if "_account_" in link]


# nbclient leaves its event loops to the garbage collector, in threads as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_changed_notebooks_are_executed_together_and_failures_left_to_sphinx(
    monkeypatch, tmp_path
):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import execution
    from jupyter_cache import get_cache

    paths = {}
    for name, code in {"one": "1 + 1", "two": "print(2)", "three": "1 / 0"}.items():
        cell = nbformat.v4.new_code_cell(code)
        paths[name] = tmp_path / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), paths[name])
    config = SimpleNamespace(
        execution_mode="cache",
        execution_cache_path="",
        execution_excludepatterns=[],
        execution_timeout=60,
    )
    env = SimpleNamespace(mystnb_config=config, doc2path=paths.get)
    app = SimpleNamespace(outdir=tmp_path / "html", env=env)
    execution.execute_changed(app, env, list(paths))
    gc.collect()  # here, where their warning is expected
    cache = get_cache(tmp_path / ".jupyter_cache")
    cached = {Path(record.uri).stem for record in cache.list_cache_records()}
    assert cached == {"one", "two"}


@pytest.mark.slow
def test_serving_prints_an_address_that_shows_the_welcome_page(site):
    code = "import make; make.serve(0)"
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT / "book",
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(server.stdout.readline, "")
        address = next(filter(None, (re.search(r"http://\S+", li) for li in lines)))[0]
        with urllib.request.urlopen(address) as answer:
            assert "book/welcome.html" in answer.read().decode()
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()

"""What the book needs at build time and _config.yml cannot express."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import torch
from pygments.lexers import get_lexer_by_name

import precode_lib
from precode_lib.plots import colour_css

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import address

LIBRARY = Path(precode_lib.__file__).parent
RESULTS = ROOT / "data"
KEPT = {".py", ".js", ".css", ".json", ".mplstyle"}


def library_fingerprint() -> str:
    """A digest of all that decides outputs, besides the page itself."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted([*LIBRARY.rglob("*"), *RESULTS.rglob("*")]):
        if path.suffix in KEPT:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def forget_stale_outputs(app, config) -> None:
    """Drop notebooks executed with another library: the cache ignores it."""
    cache = Path(
        config.nb_execution_cache_path
        or Path(app.outdir).parent / ".jupyter_cache"
    )
    stamp = cache / "library_fingerprint"
    if (
        stamp.exists()
        and stamp.read_text(encoding="utf-8") == config.library_fingerprint
    ):
        return
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    stamp.write_text(config.library_fingerprint, encoding="utf-8")


def write_colours(app) -> None:
    """Write the theme's colours from the library, their only home."""
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "colours.css").write_text(colour_css(), encoding="utf-8")


def point_to_repository(app, config) -> None:
    """Offer Binder, Colab and GitHub once the repository has an address.

    A workflow on GitHub knows it even where nobody has set it. Colab waits
    all the same: it runs the set-up cell, and that has the placeholder.
    """
    options = config.html_theme_options
    here = options.get("repository_url", "")
    colab = {"colab_url": "https://colab.research.google.com"}
    if not address.is_real(here):
        name, colab = os.environ.get("GITHUB_REPOSITORY"), {}
        here = f"https://github.com/{name}" if name else ""
    if not here:
        for option in ("repository_url", "launch_buttons"):
            options.pop(option, None)
        return
    options["repository_url"] = address.checked(here)
    options |= dict.fromkeys(
        ("use_repository_button", "use_issues_button"), True
    )
    options["launch_buttons"] = {
        "binderhub_url": "https://mybinder.org",
        "notebook_interface": "jupyterlab",
        **colab,
    }


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    """Remove the theme's Thebe script: unused, and it stops with an error."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "THEBE_JS_URL"
        not in (getattr(script, "attributes", {}).get("body") or "")
        and "sphinx-thebe" not in str(getattr(script, "filename", script))
    ]


def name_toggles(app, pagename, templatename, context, doctree) -> None:
    """Give the menu's arrows a name: the theme leaves them without any."""
    draw = context.get("generate_toctree_html")
    if draw is None:
        return
    name = '<summary aria-label="Show or hide the pages below">'

    def draw_with_names(*arguments, **options):
        return str(draw(*arguments, **options)).replace("<summary>", name)

    context["generate_toctree_html"] = draw_with_names


def setup(app):
    """Register the hooks above with Sphinx."""
    os.environ["PRECODE_STATIC"] = "1"  # the notebooks' kernels inherit it
    app.add_config_value("library_fingerprint", library_fingerprint(), "env")
    # A notebook that is not executed does not say that `!git` is no mistake.
    app.add_lexer("python", type(get_lexer_by_name("ipython3")))
    app.connect("config-inited", forget_stale_outputs, priority=900)
    app.connect("config-inited", point_to_repository)
    app.connect("builder-inited", write_colours)
    app.add_css_file("colours.css", priority=100)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", name_toggles, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

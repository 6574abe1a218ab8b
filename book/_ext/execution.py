"""Execute the notebooks that changed two at a time, before Sphinx reads them.

MyST-NB executes one after the other, each while it is read. This fills its
cache first; what fails here runs once more there, where it is reported.
"""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePath

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from sphinx.util import logging

AT_ONCE = min(2, os.cpu_count() or 1)  # a chapter may take 1.2 GB
THREADS = max(1, (os.cpu_count() or 1) // AT_ONCE)  # of each kernel
LOGGER = logging.getLogger(__name__)


def execute_changed(app, env, documents) -> None:
    """Execute those of the documents that the cache does not have."""
    config = env.mystnb_config
    if config.execution_mode != "cache":
        return
    cache = open_cache(app)
    excluded = config.execution_excludepatterns
    waiting = {}
    for path in map(Path, map(env.doc2path, documents)):
        if path.suffix != ".ipynb" or _matches(path, excluded):
            continue
        notebook = nbformat.read(path, as_version=4)
        if not _is_cached(cache, notebook):
            waiting[path] = notebook
    if len(waiting) < 2:
        return  # nothing to gain
    timeout = config.execution_timeout
    # Kernels that each take all cores make each other wait, many times over.
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {
            pool.submit(_execute, notebook, path, timeout): path
            for path, notebook in waiting.items()
        }
        for done in as_completed(running):
            path, result = running[done], done.result()
            if result.err is not None:
                continue
            LOGGER.info(f"executed {path.name} in {result.time:.0f} s")
            bundle = CacheBundleIn(
                waiting[path],
                str(path),
                data={"execution_seconds": result.time},
            )
            cache.cache_notebook_bundle(
                bundle, check_validity=False, overwrite=True
            )


def open_cache(app):
    """The executed notebooks, where MyST-NB keeps them."""
    default = Path(app.outdir).parent / ".jupyter_cache"
    return get_cache(app.env.mystnb_config.execution_cache_path or default)


def _execute(notebook, path, timeout):
    return single_nb_execution(
        notebook, cwd=str(path.parent), timeout=timeout, allow_errors=False
    )


def _matches(path, patterns) -> bool:
    return any(PurePath(path).match(pattern) for pattern in patterns)


def _is_cached(cache, notebook) -> bool:
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    return True


def setup(app):
    """Run before any document is read."""
    app.connect("env-before-read-docs", execute_changed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Where a published data set is looked for, and how it is fetched if asked."""

import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from precode_lib.data.cache import cache_folder
from precode_lib.data.folders import existing

RETRIES = 3


class MissingDataError(FileNotFoundError):
    """A published data set is neither where we looked nor could be downloaded."""


@dataclass(frozen=True)
class Source:
    """A published data set: its name, its files, and its official home."""

    title: str
    loader: str  # the function a reader calls
    files: tuple[str, ...]  # accepted in the cache folder; the first is downloaded
    url: str
    known_hash: str | None  # "sha256:..." or None where the home re-packs its archive
    size: str


def locate(source: Source, path: str | Path | None, *, download: bool) -> Path:
    """The given path, else a file in the cache folder, else a fresh download.

    Raises MissingDataError, which tells the three ways to get the files, if all fail.
    """
    if path is not None:
        return existing(path)
    for name in source.files:
        if (cache_folder() / name).exists():
            return cache_folder() / name
    if not download:
        raise _missing(source)
    return fetch(source)


def fetch(source: Source) -> Path:
    """Download into the cache folder, with retries: checked and whole, or nothing."""
    import pooch
    import requests

    name = source.files[0]
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".partial-") as folder:
        downloads = pooch.create(
            folder,
            base_url="",
            registry={name: source.known_hash},
            urls={name: source.url},
            retry_if_failed=RETRIES,
        )
        try:
            partial = Path(downloads.fetch(name, progressbar=True))
        except requests.RequestException as problem:
            raise _missing(source, problem) from problem
        except ValueError as problem:
            raise ValueError(
                f"{source.url} sent something else than {source.title}: its checksum "
                f"is not {source.known_hash}. Nothing was kept."
            ) from problem
        if source.known_hash is None:
            _check_zip(partial, source)
        os.replace(partial, cache_folder() / name)
    return cache_folder() / name


def _check_zip(file: Path, source: Source) -> None:
    """Compare every entry with its own CRC, where the whole has no known checksum."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = "the archive itself"
    if damaged:
        raise ValueError(
            f"The download of {source.title} from {source.url} is damaged ({damaged}); "
            "nothing was kept. Try again."
        )


def _missing(source: Source, problem: Exception | None = None) -> MissingDataError:
    failed = f"The download failed: {problem}\n" if problem else ""
    return MissingDataError(
        f"{source.title} is not here: no {' or '.join(source.files)} in "
        f"{cache_folder()}.\n{failed}Three ways to get it:\n"
        f"1. {source.loader}(download=True) fetches {source.size} from {source.url}\n"
        f"2. {source.loader}(path=...) reads a file or folder that you have\n"
        f"3. put the file into that cache folder (PRECODE_DATA names another folder)"
    )

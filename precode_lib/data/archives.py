"""Read files out of a folder, a zip or a tar archive, without trusting the archive."""

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

MAX_FILE_BYTES = 512 << 20  # no picture or batch is larger; a zip bomb is

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # an encrypted zip, or a compression method this Python lacks
)


def names(path: Path) -> Iterator[str]:
    """Yield the relative names of all files in a folder or archive."""
    return (name for name, _ in _members(path))


def entries(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wanted files, in the archive's own order.

    Nothing is written to disk. Entries that point outside the archive, links, and
    damaged archives raise a ValueError that says which.
    """
    for name, read in _members(path):
        if wanted(name):
            with _damage_explained(path):
                yield name, read()


def unpack(path: Path, wanted: Callable[[str], bool], folder: Path) -> None:
    """Write the wanted files of an archive below `folder`, and nothing elsewhere."""
    for name, content in entries(path, wanted):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if path.is_dir():
        yield from _folder_members(path)
    elif zipfile.is_zipfile(path):
        yield from _zip_members(path)
    elif _is_tar(path):
        yield from _tar_members(path)
    else:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is neither a folder nor a readable "
            "zip or tar archive; if it was downloaded, it may have been cut short."
        )


def _folder_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        for name in sorted(files):
            file = Path(folder, name)
            yield file.relative_to(path).as_posix(), file.read_bytes


def _zip_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with _damage_explained(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        checked = [  # all of them before the first is used
            _checked(
                path,
                info.filename,
                info.file_size,
                is_plain=not stat.S_ISLNK(info.external_attr >> 16),
            )
            for info in infos
        ]
        for name, info in zip(checked, infos, strict=True):
            yield name, lambda info=info: archive.read(info)


def _tar_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with _damage_explained(path), tarfile.open(path) as archive:
        for info in archive:
            if info.isdir():
                continue
            name = _checked(path, info.name, info.size, is_plain=info.isfile())
            yield name, lambda info=info: archive.extractfile(info).read()


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except _DAMAGE:
        return False


def _checked(path: Path, name: str, size: int, *, is_plain: bool) -> str:
    """The entry's name with forward slashes, if it is safe to use."""
    clean = PurePosixPath(name.replace("\\", "/"))
    if clean.is_absolute() or ".." in clean.parts or ":" in name.split("/")[0]:
        raise ValueError(
            f"{path} has an entry {name!r} that points outside the archive; it was not "
            "made by an ordinary packer, so nothing of it is used."
        )
    if not is_plain:
        raise ValueError(
            f"{path} has a link or device {name!r} where a plain file belongs; pack "
            "the files themselves."
        )
    if size > MAX_FILE_BYTES:
        raise ValueError(
            f"{path} claims {size} bytes for {name!r}; more than {MAX_FILE_BYTES} is "
            "no picture."
        )
    return str(clean)


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as problem:
        raise ValueError(
            f"{path} is damaged or cut short ({problem}); fetch or pack it again."
        ) from problem

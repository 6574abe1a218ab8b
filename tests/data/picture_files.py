"""Picture files and archives of them, for the tests of this folder."""

import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_picture(file: Path, *, seed: int = 0, shape=(8, 8, 3), **options) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, shape)).save(file, **options)


def png_bytes(seed: int = 0) -> bytes:
    buffer = BytesIO()
    Image.fromarray(noise(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for member in sorted(folder.rglob("*")):
            archive.write(member, prefix + member.relative_to(folder).as_posix())
    return file


def tarred(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for member in folder.iterdir():
            archive.add(member, member.name)
    return file


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))

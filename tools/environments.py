"""Virtual environments that the other scripts of this folder make once and keep."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


def environment(
    folder: Path, python: str, packages: Sequence[str], *, torch_index: str | None
) -> Path:
    """The Python of an environment in a folder; made if it is not there.

    It is made anew when other packages are asked for, not when newer ones are out.

    Args:
        packages: what pip is asked for, options such as `--editable=…` included.
        torch_index: where PyTorch comes from, for example without CUDA.
    """
    inside, stamp = folder / "bin" / "python", folder / "stamp"
    asked = "\n".join(packages)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == asked:
        return inside
    print(f"making an environment in {folder}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    install = [inside, "-m", "pip", "install", "--quiet"]
    if torch_index:
        torch = [each for each in packages if each.startswith("torch")]
        subprocess.run([*install, *torch, "--index-url", torch_index], check=True)
    subprocess.run([*install, *packages], check=True)
    stamp.write_text(asked, encoding="utf-8")
    return inside

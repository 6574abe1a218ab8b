"""Say where the repository lives, once, and everything that names it follows.

    python tools/address.py https://github.com/ACCOUNT/REPOSITORY
    python tools/address.py --links book/exercises/labels.ipynb

The address has one home: `repository: url:` in _config.yml. This checks the new one and
rewrites that line and every text that repeats it (the notebooks' set-up cells, pages,
README.md, CITATION.cff, pyproject.toml), with the address of the published book. Until
then the account is `_account_`, which GitHub gives to nobody. Without an argument it
prints the address; with --links, where a notebook opens on Binder and on Colab.
"""

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDER = "_account_"  # no account begins with an underscore
BRANCH = "main"  # as in _config.yml
TEXTS = {".cff", ".ipynb", ".md", ".toml", ".yaml", ".yml"}

# GitHub's rule: letters, digits, single hyphens inside; managed users end in _company.
_ACCOUNT = r"(?!.*--)[a-zA-Z\d](?:[a-zA-Z\d-]{0,37}[a-zA-Z\d])?(?:_[a-zA-Z\d]+)?"
_HOME = re.compile(r"^(repository:\n(?:  #.*\n)*  url: )(\S+)", flags=re.MULTILINE)


def read(root: Path = ROOT) -> str:
    """The address of the repository, as _config.yml has it."""
    found = _HOME.search((root / "_config.yml").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("_config.yml: `repository:` does not begin with its `url:`.")
    return found[2]


def is_real(address: str) -> bool:
    """Whether somebody set the address, or it is still the placeholder."""
    return f"/{PLACEHOLDER}/" not in address


def checked(address: str) -> str:
    """The address without .git and trailing slash; an error if GitHub has no such."""
    short = address.strip().removesuffix("/").removesuffix(".git")
    parts = rf"https://github\.com/{_ACCOUNT}/(?!\.{{1,2}}$)[\w.-]{{1,100}}"
    if not re.fullmatch(parts, short, flags=re.ASCII):
        raise ValueError(
            f"expected https://github.com/ACCOUNT/REPOSITORY, got {address!r}; "
            "accounts have letters, digits and single hyphens."
        )
    return short


def pages(address: str) -> str:
    """Where GitHub Pages publishes the book of this repository."""
    account, name = address.split("/")[-2:]
    host = f"https://{account.lower()}.github.io"
    return host if name.lower() == f"{account.lower()}.github.io" else f"{host}/{name}"


def binder(address: str, notebook: str) -> str:
    """Where a notebook of this repository opens on Binder."""
    name = _name(address).strip("/")
    return f"https://mybinder.org/v2/gh/{name}/{BRANCH}?urlpath=lab/tree/{notebook}"


def colab(address: str, notebook: str) -> str:
    """Where a notebook of this repository opens on Colab."""
    host = "https://colab.research.google.com/github"
    return f"{host}{_name(address)}/blob/{BRANCH}/{notebook}"


def rewrite(new: str, root: Path = ROOT) -> list[Path]:
    """Replace the address in every text that repeats it, and list those texts."""
    new, old = checked(new), read(root)
    changed = []
    for path in _texts(root):
        before = path.read_bytes().decode("utf-8")  # bytes: leave line ends alone
        after = _replace(before, pages(old), pages(new))
        # Binder and Colab have the name without the host: .../gh/ACCOUNT/REPOSITORY.
        after = _replace(after, _name(old), _name(new))
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed.append(path)
    return changed


def _name(address: str) -> str:
    return address.removeprefix("https://github.com")  # /ACCOUNT/REPOSITORY


def _replace(text: str, old: str, new: str) -> str:
    # Not inside a longer name: .../leaky-gradient-2 is another repository.
    return re.sub(rf"{re.escape(old)}(?![\w-])", lambda _: new, text)


def _texts(root: Path) -> Iterator[Path]:
    # Untracked files too: a chapter that is being written names the address as well.
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    for name in sorted(filter(None, listed.decode("utf-8").split("\0"))):
        path = root / name
        if path.suffix in TEXTS and path.is_file() and "tests" not in path.parts:
            yield path


def main(arguments: list[str] | None = None) -> int:
    """Print the address or a notebook's links, or set the address."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", help="https://github.com/ACCOUNT/NAME")
    parser.add_argument("--links", metavar="NOTEBOOK", help="print where it opens")
    given = parser.parse_args(arguments)
    address = given.address
    if given.links:
        print(binder(read(), given.links), colab(read(), given.links), sep="\n")
        return 0
    if address is None:
        print(read())
        return 0
    try:
        changed = rewrite(address)
    except ValueError as error:
        parser.error(str(error))
    for path in changed:
        print(path.relative_to(ROOT).as_posix())
    print(f"{len(changed)} files name {read()}; the book will be at {pages(read())}/")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

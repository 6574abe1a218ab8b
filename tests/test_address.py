"""The address of the repository: one home, checked, and everything follows it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def address(script_at):
    """The module tools/address.py."""
    return script_at("tools/address.py")


@pytest.fixture
def checkout(tmp_path, address):
    """A copy of every text that can name the address, as a git checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    for path in address._texts(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


@pytest.mark.parametrize(
    "given",
    [
        "https://github.com/ada/leaky-gradient",
        "https://github.com/ada/leaky-gradient/",
        "https://github.com/ada/leaky-gradient.git",
        "https://github.com/Ada-Love-1/a.b_c",
        "https://github.com/ada_company/book",
    ],
)
def test_addresses_of_repositories_are_accepted(address, given):
    assert given.startswith(address.checked(given))
    assert not address.checked(given).endswith(("/", ".git"))


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ada/leaky-gradient",
        "http://github.com/ada/leaky-gradient",
        "https://github.com/ada",
        "https://github.com/ada/leaky-gradient/tree/main",
        "https://github.com/_account_/leaky-gradient",
        "https://github.com/-ada/book",
        "https://github.com/a--b/book",
        "https://github.com/ada/..",
        "https://github.com.example.org/ada/book",
        "https://gitlab.com/ada/book",
        "https://github.com/ada/bo ok",
        "https://github.com/adä/book",
    ],
)
def test_other_addresses_are_refused(address, given):
    with pytest.raises(ValueError, match="expected https://github.com/ACCOUNT"):
        address.checked(given)


def test_one_call_changes_every_text_that_names_the_repository(checkout, address):
    old, new = address.read(checkout), "https://github.com/ada/other-name"
    before = {path: path.read_bytes() for path in address._texts(checkout)}
    naming = [path for path, text in before.items() if old.encode() in text]
    changed = address.rewrite(new, checkout)
    assert set(naming) <= set(changed)
    assert {"_config.yml", "CITATION.cff", "pyproject.toml", "README.md"} <= {
        path.name for path in changed
    }
    assert address.read(checkout) == new
    assert address.is_real(new)
    for path, text in before.items():
        after = path.read_bytes()
        assert b"_account_" not in after, path
        # Line by line the rest is the same.
        pairs = zip(text.split(b"\n"), after.split(b"\n"), strict=True)
        assert all(a == b or b"account_" in a for a, b in pairs)


def test_setting_the_address_twice_ends_where_once_does(checkout, address):
    address.rewrite("https://github.com/one/book", checkout)
    address.rewrite("https://github.com/two/leaky-gradient", checkout)
    twice = {path: path.read_bytes() for path in address._texts(checkout)}
    assert address.rewrite("https://github.com/two/leaky-gradient", checkout) == []
    assert twice == {path: path.read_bytes() for path in address._texts(checkout)}
    assert not [p for p, text in twice.items() if b"github.com/one" in text]


def test_longer_names_are_another_repository(address):
    old, new = "https://github.com/a/book", "https://github.com/b/book"
    text = f"{old} {old}/issues {old}-2 {old}.git {old}s"
    replaced = f"{new} {new}/issues {old}-2 {new}.git {old}s"
    assert address._replace(text, old, new) == replaced


def test_the_published_book_has_an_address_too(address):
    assert address.pages("https://github.com/Ada/Book") == "https://ada.github.io/Book"
    assert address.pages("https://github.com/a/a.github.io") == "https://a.github.io"


def first_chapter() -> str:
    """The first numbered page of the book."""
    text = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    numbered = text[text.index("numbered: true") :]
    return re.search(r"- file: (\S+)", numbered)[1] + ".ipynb"


def test_the_front_page_starts_the_first_chapter_on_binder_and_colab(address):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / first_chapter()).exists()
    for link in (address.binder, address.colab):
        assert f"]({link(address.read(), first_chapter())})" in text


def test_links_lead_to_the_branch_that_the_book_is_made_of(address):
    text = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert re.search(r"^  branch: (\S+)$", text, re.MULTILINE)[1] == address.BRANCH
    link = address.binder("https://github.com/ada/book", "book/a.ipynb")
    assert link == (
        "https://mybinder.org/v2/gh/ada/book/main?urlpath=lab/tree/book/a.ipynb"
    )


def test_the_command_prints_the_address_and_refuses_nonsense(address):
    def run(*arguments):
        command = [sys.executable, ROOT / "tools" / "address.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    assert run().stdout.strip() == address.read()
    links = run("--links", "book/a.ipynb").stdout.split()
    assert links == [
        kind(address.read(), "book/a.ipynb") for kind in (address.binder, address.colab)
    ]
    refused = run("nonsense")
    assert refused.returncode == 2
    assert "nonsense" in refused.stderr

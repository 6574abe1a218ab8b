import io
import os
import tarfile
import zipfile

import pytest
from picture_files import files_below, tarred, zipped

from precode_lib.data import archives


def everything(name):
    return True


@pytest.fixture(params=["folder", "zip", "tar"])
def container(request, tree, tmp_path):
    makers = {
        "folder": lambda: tree,
        "zip": lambda: zipped(tree, tmp_path / "tree.zip"),
        "tar": lambda: tarred(tree, tmp_path / "tree.tar.gz"),
    }
    return makers[request.param]()


def test_folder_zip_and_tar_hold_the_same_files(container, tree):
    expected = {
        p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.glob("*/*")
    }
    assert len(expected) == 10
    assert dict(archives.entries(container, everything)) == expected
    assert set(archives.names(container)) == set(expected)


def test_only_wanted_files_are_read(container):
    wanted = [n for n, _ in archives.entries(container, lambda n: n == "dog/3.png")]
    assert wanted == ["dog/3.png"]


def test_unpacking_writes_what_was_packed(container, tree, tmp_path):
    archives.unpack(container, everything, tmp_path / "out")
    assert files_below(tmp_path / "out") == files_below(tree)


def evil_zip(file, name, mode=0o100644):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat/0.png", b"harmless")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"/etc/passwd")
    return file


def evil_tar(file, name, kind=tarfile.REGTYPE):
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info, io.BytesIO(b""))
    return file


@pytest.mark.parametrize("make", [evil_zip, evil_tar])
@pytest.mark.parametrize(
    "name", ["../evil.png", "cat/../../evil.png", "/tmp/evil.png", "C:/evil.png"]
)
def test_an_entry_outside_the_archive_stops_everything(make, name, tmp_path):
    file = make(tmp_path / "evil", name)
    with pytest.raises(ValueError, match="points outside the archive"):
        archives.unpack(file, everything, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert files_below(tmp_path) == ["evil"]


def test_backslashes_do_not_smuggle_an_entry_out(tmp_path):
    file = evil_zip(tmp_path / "evil", "cat\\..\\..\\evil.png")
    with pytest.raises(ValueError, match="points outside the archive"):
        list(archives.names(file))


def test_links_are_refused(tmp_path):
    symlink = evil_zip(tmp_path / "a", "cat/link.png", mode=0o120777)
    with pytest.raises(ValueError, match="link or device 'cat/link.png'"):
        list(archives.entries(symlink, everything))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        file = evil_tar(tmp_path / "b", "cat/link.png", kind)
        with pytest.raises(ValueError, match="link or device"):
            list(archives.entries(file, everything))


def test_an_entry_that_claims_to_be_enormous_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 5)
    with pytest.raises(ValueError, match="claims 8 bytes"):
        list(archives.names(evil_zip(tmp_path / "big", "x")))


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_archive_is_a_clear_error(pack, share, tree, tmp_path):
    whole = pack(tree, tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cut short"):
        list(archives.entries(cut, everything))


def test_a_flipped_byte_in_a_zip_is_noticed(tree, tmp_path):
    file = zipped(tree, tmp_path / "flipped.zip")
    content = bytearray(file.read_bytes())
    content[100] ^= 0xFF  # inside the first picture
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        list(archives.entries(file, everything))


def test_an_encrypted_zip_is_a_clear_error(tree, tmp_path):
    file = zipped(tree, tmp_path / "locked.zip")
    content = bytearray(file.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(magic)
        while at >= 0:
            content[at + offset] |= 1  # the flag for "encrypted"
            at = content.find(magic, at + 1)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged or cut short \(.*encrypted"):
        list(archives.entries(file, everything))


def test_a_file_that_is_no_archive_is_a_clear_error(tmp_path):
    text = tmp_path / "page.zip"
    text.write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"16 bytes\) is neither a folder nor"):
        list(archives.names(text))


def test_an_error_of_the_caller_is_not_blamed_on_the_archive(container):
    with pytest.raises(RuntimeError, match="mine"):
        for _ in archives.entries(container, everything):
            raise RuntimeError("mine")


def test_a_folder_reads_symlinked_files_of_its_owner(tree):
    os.symlink(tree / "cat" / "0.png", tree / "dog" / "linked.png")
    assert "dog/linked.png" in archives.names(tree)

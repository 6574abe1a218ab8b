import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from picture_files import files_below, zipped

from precode_lib.data import MissingDataError
from precode_lib.data.sources import RETRIES, Source, locate

CONTENT = bytes(range(256)) * 2000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class _Server(ThreadingHTTPServer):
    """Serves `content`, but drops the connection midway for the first `cuts` times."""

    content = CONTENT
    cuts = 0
    status = 200
    num_requests = 0


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.num_requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        cut = self.server.num_requests <= self.server.cuts
        length = len(self.server.content) // 2 if cut else None
        self.wfile.write(self.server.content[:length])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with _Server(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting_between_retries(monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def source(server=None, known_hash=SHA256):
    port = server.server_port if server else 9  # "discard": nobody listens there
    return Source(
        title="Our set",
        loader="our_set",
        files=("ours.bin", "ours-unpacked"),
        url=f"http://127.0.0.1:{port}/ours.bin",
        known_hash=known_hash,
        size="0.5 MB",
    )


def test_a_given_path_comes_first(tmp_path, cache):
    cache.mkdir()
    (cache / "ours.bin").write_bytes(b"in the cache")
    (tmp_path / "mine").write_bytes(b"mine")
    found = locate(source(), tmp_path / "mine", download=False)
    assert found == tmp_path / "mine"


def test_a_given_path_that_is_absent_is_not_replaced_by_another(tmp_path, cache):
    cache.mkdir()
    (cache / "ours.bin").write_bytes(b"in the cache")
    with pytest.raises(FileNotFoundError, match="nothing at"):
        locate(source(), tmp_path / "typo", download=True)


@pytest.mark.parametrize("name", ["ours.bin", "ours-unpacked"])
def test_files_in_the_cache_are_used_without_network(name, cache, server):
    cache.mkdir()
    (cache / name).write_bytes(b"")
    assert locate(source(server), None, download=True) == cache / name
    assert server.num_requests == 0


def test_absent_data_are_named_with_the_place_and_three_ways_to_get_them(cache):
    with pytest.raises(MissingDataError) as caught:
        locate(source(), None, download=False)
    text = str(caught.value)
    assert "Our set is not here: no ours.bin or ours-unpacked in" in text
    assert str(cache) in text
    assert "1. our_set(download=True) fetches 0.5 MB from http://127.0.0.1" in text
    assert "2. our_set(path=...)" in text
    assert "3. put the file into that cache folder (PRECODE_DATA" in text
    assert isinstance(caught.value, FileNotFoundError)
    assert not cache.exists()


def test_a_download_arrives_whole_in_the_cache_with_a_progress_bar(
    server, cache, capfd
):
    assert locate(source(server), None, download=True) == cache / "ours.bin"
    assert (cache / "ours.bin").read_bytes() == CONTENT
    assert files_below(cache) == ["ours.bin"]
    assert "100%" in capfd.readouterr().err
    locate(source(server), None, download=True)
    assert server.num_requests == 1


def test_a_cut_connection_is_tried_again(server, cache):
    server.cuts = 2
    locate(source(server), None, download=True)
    assert (cache / "ours.bin").read_bytes() == CONTENT
    assert server.num_requests == 3


def test_a_download_that_keeps_breaking_leaves_nothing(server, cache):
    server.cuts = 99
    with pytest.raises(MissingDataError, match=r"download failed: (?s:.)*3\. put"):
        locate(source(server), None, download=True)
    assert server.num_requests == 1 + RETRIES
    assert files_below(cache) == []


def test_an_interrupted_download_leaves_nothing(server, cache, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("pooch.core.hash_matches", interrupt)  # the file has arrived
    with pytest.raises(KeyboardInterrupt):
        locate(source(server), None, download=True)
    assert server.num_requests == 1
    assert files_below(cache) == []


def test_without_network_the_error_still_tells_the_three_ways(cache):
    with pytest.raises(MissingDataError, match=r"download failed(?s:.)*Three ways"):
        locate(source(), None, download=True)
    assert files_below(cache) == []


def test_a_page_that_is_gone_is_a_failed_download(server, cache):
    server.status = 404
    with pytest.raises(MissingDataError, match="404"):
        locate(source(server), None, download=True)
    assert files_below(cache) == []


def test_other_content_than_published_is_refused_and_not_kept(server, cache):
    server.content = b"something else"
    with pytest.raises(ValueError, match=r"sent something else than Our set"):
        locate(source(server), None, download=True)
    assert files_below(cache) == []


def test_a_zip_without_published_checksum_is_checked_entry_by_entry(
    server, cache, tree, tmp_path
):
    whole = zipped(tree, tmp_path / "tree.zip").read_bytes()
    server.content = whole
    locate(source(server, known_hash=None), None, download=True)
    assert (cache / "ours.bin").read_bytes() == whole


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_zip_without_checksum_is_not_kept(
    damage, server, cache, tree, tmp_path
):
    content = bytearray(zipped(tree, tmp_path / "tree.zip").read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[100] ^= 0xFF
    server.content = bytes(content)
    with pytest.raises(ValueError, match=r"download of Our set .* is damaged"):
        locate(source(server, known_hash=None), None, download=True)
    assert files_below(cache) == []

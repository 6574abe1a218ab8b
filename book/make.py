"""Build the book into _build/html; with --serve, show it on localhost as well.

`make book` and `make book-html` call this, and so can a machine without make.
"""

import argparse
import http.server
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"


def build() -> int:
    """Build every page, executing what changed; a warning is a failure."""
    strict = ["-W", "-n", "--keep-going"]
    # Not -m, which jupyter-book lacks. Its script lies beside Python, but
    # not in an environment of conda on Windows.
    jupyter_book = Path(sysconfig.get_path("scripts"), "jupyter-book")
    return subprocess.call([jupyter_book, "build", ".", *strict], cwd=ROOT)


def serve(port: int) -> None:
    """Serve the built book on localhost, print the address, until Ctrl+C."""
    handler = partial(_QuietHandler, directory=SITE)
    with _server(handler, port) as server:
        address = f"http://localhost:{server.server_address[1]}/"
        print(f"\nThe book is at {address} (Ctrl+C stops it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def _server(handler, port: int) -> http.server.ThreadingHTTPServer:
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (
        OSError
    ):  # taken, perhaps by an earlier `make book`: any free one will do
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        """Say nothing: a reader looks for the address printed above."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--serve", action="store_true", help="serve it afterwards"
    )
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    status = build()
    if status == 0 and options.serve:
        serve(options.port)
    return status


if __name__ == "__main__":
    sys.exit(main())

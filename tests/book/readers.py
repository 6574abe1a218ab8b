"""What readers bring to a figure that computes in the page, and what they see of it."""

import io
import zlib
from contextlib import contextmanager
from importlib.resources import files

from PIL import Image

PHONE = {"width": 390, "height": 844}
# A tab that a script can hide.
HIDDEN = """
window.away = false;
Object.defineProperty(document, 'hidden', { get: () => window.away });
window.turn = away => {
  window.away = away;
  document.dispatchEvent(new Event('visibilitychange'));
};
"""
# A canvas as it is seen: rows of red, green, blue from 0 to 255.
LEVELS = """canvas => {
  const { data } = canvas.getContext('2d')
    .getImageData(0, 0, canvas.width, canvas.height);
  return [...data].filter((_, i) => i % 4 < 3);
}"""
_COLOURS = {
    "light": ("#fdfcfa", "#1f2429", "#0b5a8f"),
    "dark": ("#14171b", "#dde1e6", "#7cc0f5"),
}


def halves(width: int, height: int) -> Image.Image:
    """Blue on the left, yellow on the right."""
    image = Image.new("RGB", (width, height), (30, 60, 200))
    image.paste((230, 200, 40), (width // 2, 0, width, height))
    return image


def png(pixels: Image.Image, kind: str = "PNG") -> dict:
    buffer = io.BytesIO()
    pixels.save(buffer, kind)
    return file(buffer.getvalue())


def file(content: bytes) -> dict:
    return {"name": "mine.png", "mimeType": "image/png", "buffer": content}


def _bomb() -> bytes:
    """A PNG of a few bytes that claims 12,000 x 12,000 pixels."""
    whole = bytearray(png(halves(8, 8))["buffer"])
    whole[16:24] = (12_000).to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    return bytes(whole)


# By what the page says of them.
HOSTILE = {
    "a PDF": b"%PDF-1.7 " + b"x" * 100,
    "SVG": b'<?xml version="1.0"?>\n<svg onload="window.hurt=1"></svg>',
    "HEIC": b"\0\0\0\x18ftypheic" + b"\0" * 100,
    "no picture": b"just some words",
    "cannot be read": b"\x89PNG\r\n\x1a\n" + b"\xff" * 500,
    "no picture that": b"",
    "120 million": _bomb(),
}


def document_of(figure) -> str:
    """A page with nothing but the figure."""
    return (
        '<!doctype html><html lang="en" data-theme="light"><title>A figure</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<main>{figure._repr_html_()}</main></html>"
    )


@contextmanager
def visitors(browser):
    """Opens addresses, each in a context of its own; notes requests and complaints."""
    contexts = []

    def visit(address: str, script: str = "", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.add_init_script(script)
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()


def sent(page, address: str) -> list[str]:
    """What was asked of anything but the page itself."""
    local = ("blob:", "data:", address)
    return [url for url in page.requests if not url.startswith(local)]


def faults(page, theme: str = "light") -> list[dict]:
    """What axe finds in the colours of a theme, if it is serious."""
    paper, ink, accent = _COLOURS[theme]
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    page.add_style_tag(
        content=f":root{{--pst-color-background:{paper};--pst-color-text-base:{ink};"
        f"--pst-color-text-muted:{ink};--pst-color-surface:{paper};"
        f"--pst-color-primary:{accent}}}body{{background:{paper}}}"
    )
    page.add_script_tag(path=files("axe_playwright_python") / "axe.min.js")
    found = page.evaluate("axe.run().then(report => report.violations)")
    return [each for each in found if each["impact"] in ("serious", "critical")]


def reached_and_spoken(page, controls: list) -> None:
    """The tabulator goes through all controls in order; sliders say their values."""
    controls[0].focus()
    for control in controls[1:]:
        page.keyboard.press("Tab")
        assert control.evaluate("node => node === document.activeElement")
    for slider in page.locator("input[type=range]").all():
        text = slider.get_attribute("aria-valuetext")
        output = page.locator(f"output[for='{slider.get_attribute('id')}']")
        assert output.inner_text() == text


def times_shown(page, *, kind: str) -> int:
    """How often the figure, "leak" or "sum", has shown an answer."""
    return int(page.locator(f"[data-{kind}]").get_attribute("data-shown") or 0)


def shown_again(page, before: int = 0, *, kind: str) -> None:
    """Wait until it has shown more answers than that."""
    page.wait_for_function(
        f"seen => Number(document.querySelector('[data-{kind}]').dataset.shown) > seen",
        arg=before,
    )

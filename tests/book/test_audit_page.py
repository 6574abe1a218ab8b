"""The page of an audit in a browser: nothing leaves it, is cut, or has no name."""

from importlib.resources import files

import pytest
import torch
from torch import nn

from precode_lib.audit import audit, page
from precode_lib.data import victims
from precode_lib.models import lenet, smlp

PHONE, DESKTOP = {"width": 390, "height": 800}, {"width": 1280, "height": 900}
AXE = "axe.run({resultTypes: ['violations']}).then((report) => report.violations)"


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def reports() -> dict:
    """A leak beside its control; rows with no pictures; and no verdict at all."""
    pictures = victims("photos", 4)
    dense = smlp(width=32, generator=seeded())
    rows = torch.randn(4, 5, generator=seeded()), torch.zeros(4).long()
    hostile = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    name = "<script>alert(1)</script>&amp;" + "long_name_" * 20
    return {
        "leak": audit(dense, pictures, effort=0, defense=["precode:16", "dp-sgd:1:1"]),
        "rows": audit(hostile, rows, effort=0, name=name),
        "none": audit(lenet(generator=seeded()), pictures, effort=0),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for name, report in reports().items():
        (folder / f"{name}.html").write_text(page(report), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["leak", "rows", "none"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_is_whole_in_a_browser(name, theme, written, browser):
    context = browser.new_context(bypass_csp=True, color_scheme=theme)
    shown, requests, complaints = context.new_page(), [], []
    shown.on("request", lambda request: requests.append(request.url))
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("dialog", lambda dialog: complaints.append("a script ran"))
    address = (written / f"{name}.html").as_uri()
    for size in (PHONE, DESKTOP):
        shown.set_viewport_size(size)
        shown.goto(address)
        width = shown.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], size
    assert {url for url in requests if not url.startswith("data:")} == {address}
    assert complaints == []
    assert shown.locator("h1").count() == 1 and shown.locator("script").count() == 0
    shown.add_script_tag(path=files("axe_playwright_python") / "axe.min.js")
    found = shown.evaluate(AXE)
    serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
    context.close()


def test_it_prints_on_paper_with_nothing_lost(written, browser):
    context = browser.new_context()
    shown = context.new_page()
    shown.goto((written / "leak.html").as_uri())
    assert shown.pdf().startswith(b"%PDF")
    shown.emulate_media(media="print")
    assert shown.locator(".clients li").count() > 3
    assert "What was not tried" in shown.inner_text("main")
    context.close()


def test_its_policy_lets_nothing_out(written, browser):
    context = browser.new_context()
    shown = context.new_page()
    asked = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto((written / "rows.html").as_uri())
    send = "fetch('https://example.org/').then(() => 'sent', () => 'refused')"
    assert shown.evaluate(send) == "refused"
    assert not any("example.org" in url for url in asked)  # by the page, not the net
    context.close()

"""Every checklist of every page, worked through as readers do, and on paper."""

import pytest
from book_site import documents

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LIST = ".precode-checklist"


def with_lists(site) -> list[str]:
    mark = 'class="precode-figure precode-checklist"'
    pages = {name: site / f"{name}.html" for name in documents()}
    return [n for n, page in pages.items() if mark in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("scripts", [True, False])
def test_a_rule_unfolds_by_the_keyboard_and_tells_what_we_say(site, visit, scripts):
    names = with_lists(site)
    assert names
    for name in names:
        page = visit(name, java_script_enabled=scripts).page
        for line in page.locator(f"{LIST} details").all():
            assert not line.locator("label").first.is_visible()
            line.locator("summary").press("Enter")
            line.locator("label").first.click()
            told = line.locator(".precode-feedback").first
            assert "We say" in told.inner_text()
            assert line.locator(".precode-feedback:visible").count() == 1


def test_paper_has_the_rules_and_no_answers(site, visit):
    for name in with_lists(site):
        page = visit(name).page
        line = page.locator(f"{LIST} details").first
        line.locator("summary").click()
        line.locator("label").first.click()
        page.emulate_media(media="print")
        assert line.locator("summary").is_visible()
        assert line.locator(".precode-feedback:visible").count() == 0


def test_the_code_with_our_answers_is_left_to_the_notebook(site, visit):
    for name in with_lists(site):
        page = visit(name).page
        for one in page.locator(LIST).all():
            cell = one.locator("xpath=ancestor::div[contains(@class, 'cell ')][1]")
            for part in cell.locator(".cell_input").all():
                assert not part.is_visible()

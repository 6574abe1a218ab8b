"""Every quiz of every page, answered as readers do: by mouse, keyboard and voice."""

import pytest
from book_site import documents

pytestmark = [pytest.mark.slow, pytest.mark.browser]

QUIZ = ".precode-quiz"


def has_quizzes(site, document: str) -> bool:
    # As a class of an element: the style of every figure names it, too.
    text = (site / f"{document}.html").read_text(encoding="utf-8")
    return 'class="precode-figure precode-quiz"' in text


@pytest.fixture(params=documents(), scope="module")
def quizzes(request, site, visit_in_module):
    """The quizzes of a document, which is opened once and only if it has any."""
    if not has_quizzes(site, request.param):
        yield []
        return
    opened = visit_in_module(request.param)
    yield opened.page.locator(QUIZ).all()
    assert opened.requests == []
    assert opened.complaints == []
    visit_in_module.close_all()


def told(quiz) -> list[int]:
    """Which options' feedback is seen."""
    feedback = quiz.locator(".precode-feedback").all()
    return [index for index, one in enumerate(feedback) if one.is_visible()]


def check_told(quiz, index: int) -> None:
    """Only this option's feedback is seen, as a word, and read out."""
    assert told(quiz) == [index]
    shown = quiz.locator(".precode-feedback").nth(index)
    assert shown.inner_text().startswith(("✓Right. ", "✗Not quite. "))
    spoken = quiz.locator("[role=status]").nth(index).aria_snapshot()
    assert "Right." in spoken or "Not quite." in spoken


def test_the_book_has_quizzes(site):
    assert sum(has_quizzes(site, document) for document in documents()) >= 1


def test_a_click_on_an_option_shows_its_feedback_and_only_its(quizzes):
    for quiz in quizzes:
        labels = quiz.locator("label").all()
        assert len(labels) >= 2
        verdicts = []
        for index, label in enumerate(labels):
            label.click()
            check_told(quiz, index)
            verdicts.append(quiz.locator(".precode-feedback").nth(index).inner_text())
        assert sum(verdict.startswith("✓") for verdict in verdicts) == 1


def test_tab_space_and_arrows_answer(quizzes):
    for quiz in quizzes:
        options = quiz.locator("input").all()
        quiz.evaluate("node => node.querySelectorAll('input').forEach("
                      "input => { input.checked = false; })")  # fmt: skip
        assert told(quiz) == []
        # From what is before the quiz, so that Tab is what brings the focus in.
        options[0].focus()
        quiz.page.keyboard.press("Shift+Tab")
        quiz.page.keyboard.press("Tab")
        assert options[0].evaluate("node => node === document.activeElement")
        quiz.page.keyboard.press("Space")
        check_told(quiz, 0)
        for index in range(1, len(options)):
            quiz.page.keyboard.press("ArrowDown")
            check_told(quiz, index)


def test_the_question_names_the_group_and_no_name_comes_twice(quizzes):
    names = set()
    for quiz in quizzes:
        question = quiz.locator("legend").inner_text()
        group = quiz.get_by_role("group", name=question, exact=True)
        assert group.get_by_role("radio").count() == quiz.locator("input").count()
        names.add(quiz.locator("input").first.get_attribute("name"))
    assert len(names) == len(quizzes)


def test_paper_gives_no_answer_away(quizzes):
    for quiz in quizzes:
        quiz.locator("label").first.click()
        quiz.page.emulate_media(media="print")
        assert told(quiz) == []
        assert quiz.locator("label").first.is_visible()
        quiz.page.emulate_media(media="screen")


def test_without_scripts_a_quiz_works_the_same(site, visit):
    document = next(name for name in documents() if has_quizzes(site, name))
    quiz = visit(document, java_script_enabled=False).page.locator(QUIZ).first
    assert told(quiz) == []
    quiz.locator("label").last.click()
    check_told(quiz, quiz.locator("label").count() - 1)


def test_the_code_with_the_answers_is_left_to_the_notebook(quizzes):
    for quiz in quizzes:
        cell = quiz.locator("xpath=ancestor::div[contains(@class, 'cell ')][1]")
        assert cell.locator(".cell_input, summary").all() != []
        for part in cell.locator(".cell_input, summary").all():
            assert not part.is_visible()

"""Rules are read, evaluated, and refused with a reason; nothing in them is run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precode_lib.audit import FIGURES, criterion
from precode_lib.audit.criteria import DEFAULT

NOTHING = dict.fromkeys(FIGURES, 0.0)


@pytest.mark.parametrize(
    ("text", "figures", "fires"),
    [
        (DEFAULT, {}, False),
        (DEFAULT, {"asr": 0.125}, True),
        (DEFAULT, {"certified": 1}, True),
        ("asr >= .5 and ssim > .8", {"asr": 0.5, "ssim": 0.8}, False),
        ("asr >= .5 and ssim > .8", {"asr": 0.5, "ssim": 0.81}, True),
        ("not labels == 1", {"labels": 1.0}, False),
        ("0 < features < 3 or (tokens)", {"features": 2}, True),
        ("0 < features < 3 or (tokens)", {"features": 3}, False),
        ("recovered != -1", {}, True),
    ],
)
def test_a_rule_says_what_it_reads_like(text, figures, fires):
    assert criterion(text).fires(NOTHING | figures) is fires
    assert str(criterion(text)) == text


@given(st.dictionaries(st.sampled_from(sorted(FIGURES)), st.floats(0, 1)))
def test_it_agrees_with_python_itself(figures):
    text = "asr > .5 or certified and not (silent < .3 <= ssim) or labels == tokens"
    values = NOTHING | figures
    assert criterion(text).fires(values) == bool(eval(text, {}, values))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "text such as"),
        ("asr >", "cannot be read"),
        ("asr > 0 or", "cannot be read"),
        ("__import__('os').system('true')", "has no place"),
        ("asr.__class__", "has no place"),
        ("[asr]", "has no place"),
        ("'asr' > 0", "has no place"),
        ("asr in certified", "numbers are compared"),
        ("ars > 0", "did you mean 'asr'"),
        ("asr + 1", "has no place"),
        ("(lambda: 1)()", "has no place"),
        ("asr > 1j", "has no place"),
    ],
)
def test_whatever_is_no_rule_is_refused_with_a_way_out(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        criterion(text)
    assert "asr > 0" in str(caught.value)

"""The table of models: each observed, each audited, each verdict known in advance."""

from dataclasses import replace

import pytest
import torch
from zoo import ZOO

from precode_lib.audit import audit, page
from precode_lib.audit.attempts import attempts
from precode_lib.audit.findings import EXACT
from precode_lib.audit.protections import NONE
from precode_lib.audit.samples import sample
from precode_lib.audit.scenes import Case, Terms, play
from precode_lib.audit.threats import threat


@pytest.fixture(params=sorted(ZOO))
def kept(request):
    torch.manual_seed(0)
    return replace(ZOO[request.param], name=request.param)


def test_the_verdict_is_what_linear_algebra_says(kept):
    report = audit(
        kept.make(), kept.examples(), loss=kept.loss, training=kept.trains, effort=0
    )
    (case,) = report.cases
    exact = [f for f in case.findings if f.group == EXACT and f.is_done]
    proven = {f.gives for f in exact if f.returns_examples and all(f.certified)}
    assert ({kept.leaks} <= proven) if kept.leaks else not proven
    assert report.verdict == kept.verdict
    labels = {"several labels": 1.0, "regression": None, "U-Net, masks": None}
    assert case.figures["labels"] == labels.get(kept.name, case.figures["labels"])
    features = [f for f in exact if f.gives == "features"]
    assert any(all(f.certified) for f in features) == (kept.features and bool(features))
    assert report.to_json() and page(report)


def test_a_search_can_be_made_or_says_why_not(kept):
    case = Case("given", kept.trains, 1, NONE)
    terms = Terms(threat("C"), loss=kept.loss)
    scene = play(case, kept.make(), sample(kept.examples()), terms, seed=0)
    first = attempts()[0]
    if not kept.searched:
        assert "tokens are no numbers" in first.why_not(scene)
        return
    assert first.why_not(scene) is None
    search = first.search(scene, 1, torch.Generator().manual_seed(0))
    assert len(list(search)) == 1
    assert search.result.objective.isfinite().all()

"""May these gradients leave the client? Any model, the attacks that apply, a report.

`audit` plays clients, tries closed forms, labels and searches on what they send, and
returns a `Report`; `page` makes one file of it that anybody can read. `precode audit`
is the command line of both.
"""

import typing

import precode_lib.basics.doors as _doors
from precode_lib.audit.criteria import FIGURES, Criterion, criterion
from precode_lib.audit.threats import THREATS, Threat, threat

if typing.TYPE_CHECKING:
    from precode_lib.audit.auditing import audit
    from precode_lib.audit.pages import page
    from precode_lib.audit.protections import Protection, protection
    from precode_lib.audit.report import CaseReport, Report, schema
    from precode_lib.audit.samples import Sample, sample

# What needs torch comes when it is asked for: the command line reads its arguments
# without.
_LATER = {
    "CaseReport": "report",
    "Protection": "protections",
    "Report": "report",
    "Sample": "samples",
    "audit": "auditing",
    "frame": "pages",
    "page": "pages",
    "protection": "protections",
    "sample": "samples",
    "schema": "report",
}

__all__ = [
    "FIGURES",
    "THREATS",
    "CaseReport",
    "Criterion",
    "Protection",
    "Report",
    "Sample",
    "Threat",
    "audit",
    "criterion",
    "page",
    "protection",
    "sample",
    "schema",
    "threat",
]


__getattr__ = _doors.later(__name__, _LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

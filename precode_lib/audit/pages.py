"""An audit as one page: it loads nothing, prints, and reads on a phone.

Whatever comes from a model or a folder is text here, never markup, and the page's own
policy allows no script.
"""

from collections.abc import Iterable, Sequence
from html import escape

from torch import Tensor

from precode_lib.audit.criteria import FIGURES
from precode_lib.audit.findings import (
    EXACT,
    LABEL,
    ORACLE,
    REFUSED,
    UNKNOWING,
    Finding,
)
from precode_lib.audit.report import (
    LEAKS,
    NOTHING,
    CaseReport,
    Report,
)
from precode_lib.data import png_base64

_MOST_SHOWN = 16  # clients' pictures on the page
_SHOWN_SIDE = 128  # pixels of a picture at most; larger ones are thinned out

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --bad: #a1260d; --calm: #1a6b2d;
  --open: #7a5300; --soft: #f3f4f6; --paper: #fff; --ink: #1c1e21; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff9c85; --calm: #7fd391;
  --open: #ffcf70; --soft: #262a30; --paper: #16181c; --ink: #e8e8e8; } }
@media print { :root { color-scheme: light; } }
* { box-sizing: border-box; } html { background: var(--paper); }
body { background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 64rem;
  padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h1, h2, h3, p, li, dd { overflow-wrap: anywhere; }
td, th { overflow-wrap: break-word; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.verdict { border: 2px solid var(--tone); border-inline-start-width: .7rem;
  border-radius: .4rem; padding: .9rem 1.1rem; }
.verdict strong { color: var(--tone); font-size: 1.25rem; display: block; }
.verdict p { margin: .3rem 0 0; }
.leaks { --tone: var(--bad); } .quiet { --tone: var(--calm); }
.open { --tone: var(--open); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem;
  margin: 0; }
dt { font-weight: 600; } dd { margin: 0; }
.wide { overflow-x: auto; } .wide:focus { outline: 2px solid; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: start; padding-block: .3rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0;
  text-align: start; vertical-align: top; }
.number { text-align: end; } .yes { color: var(--bad); font-weight: 600; }
.clients { display: grid; gap: 1rem; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.clients li { background: var(--soft); border-radius: .4rem; padding: .6rem; }
.pair { display: flex; gap: .4rem; } .pair figure { flex: 1; margin: 0; }
.pair img { width: 100%; image-rendering: pixelated; display: block; }
figcaption, small { font-size: .85rem; }
code { overflow-wrap: anywhere; }
details { margin-block: .6rem; } summary { cursor: pointer; padding-block: .2rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; }
  .stacks thead { display: none; } .stacks tr { display: block; padding-block: .4rem;
    border-bottom: 1px solid var(--line); }
  .stacks td { display: flex; gap: .8rem; border: 0; padding: .1rem 0;
    text-align: start; }
  .stacks td:empty { display: none; }
  .stacks td div { min-width: 0; overflow-wrap: anywhere; }
  .stacks td::before { content: attr(data-head); flex: 0 0 6rem; opacity: .75; } }
@media print { body { max-width: none; } .clients li { break-inside: avoid; }
  h2, h3 { break-after: avoid; } tr { break-inside: avoid; } }
"""
_HOW = {  # why a closed form works
    "division": "its gradient is its bias's gradient times its input: one division",
    "direction": "every row of its gradient is a multiple of its input",
    "isolated units": "some units saw one example of the batch alone",
    "patches": "the positions' gradients are the slopes of the patches: equations",
    "rows": "only the rows of tokens that occurred are not zero",
    "span": "only tokens that occurred lie in the span of its gradient",
}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_TONES = {LEAKS: "leaks", NOTHING: "quiet"}


def page(report: Report) -> str:
    """The whole page as text."""
    title = f"Audit of {report.subject['name']}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<main>\n<h1>{_text(title)}</h1>",
        _verdict(report),
        _subject(report),
        _layers(report),
        *(_case(report, number) for number in range(len(report.cases))),
        _cost(report),
        _not_tried(report),
        _again(report),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def frame(report: Report, *, height: str = "36rem") -> str:
    """The page in a frame, for notebooks: it stays apart from what is around it."""
    title = _text(f"Report: audit of {report.subject['name']}")
    style = f"width: 100%; height: {height}; border: 1px solid #8886"
    inner = _text(page(report))
    return (
        f'<div><iframe title="{title}" sandbox style="{style}" srcdoc="{inner}">'
        "</iframe></div>"
    )


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _verdict(report: Report) -> str:
    tone = _TONES.get(report.verdict, "open")
    meanings = "; ".join(
        f"{name}: {FIGURES[name]}" for name in FIGURES if name in report.rule.text
    )
    return (
        f'<section class="verdict {tone}" aria-label="Verdict">'
        f"<strong>{_text(report.verdict.capitalize())}</strong>"
        f"<p>{_text(report.sentence())}</p>"
        f"<p><small>The rule: fail if <code>{_text(report.rule)}</code>. "
        f"{_text(meanings)}.</small></p></section>"
    )


def _subject(report: Report) -> str:
    subject, settings = report.subject, report.settings
    shapes = " and ".join(
        "x".join(map(str, s)) or "a number" for s in subject["shapes"]
    )
    labels = "known to the attacker" if settings["labels_known"] else "hidden"
    rows = [
        ("Model", f"{subject['name']}, {subject['parameters']:,} trained parameters"),
        ("Weights", ", ".join(subject["weights"])),
        (
            "Examples",
            f"{subject['examples']} of {subject['of']}: {subject['kind']}, {shapes}",
        ),
        ("Clients send", settings["local"] or "one gradient"),
        ("Defense", ", ".join(settings["defenses"])),
        ("Attacker", f"{settings['threat']}, {settings['threat_name']}"),
        ("Labels", labels),
    ]
    notes = "".join(f"<li>{_text(note)}</li>" for note in subject["notes"])
    return (
        "<h2>What was audited</h2>\n<dl>"
        + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in rows)
        + "</dl>"
        + (f"<ul>{notes}</ul>" if notes else "")
    )


def _layers(report: Report) -> str:
    """Which parameters leak, and why."""
    rows = []
    for case in report.audited:
        for found in case.findings:
            if found.group == EXACT and found.is_done and found.parameter:
                rows.append(
                    [
                        _code(found.parameter),
                        _text(found.gives),
                        _share(found.certified),
                        _share(found.recovered),
                        _text(_HOW.get(found.attack, found.attack)),
                        _text(case.name),
                    ]
                )
    silent = {n: None for c in report.audited for n in c.health.get("silent", ())}
    body = "<p>No parameter's gradient is one of its input's, as far as was seen.</p>"
    if rows:
        head = ("Parameter", "It gives", "Proven", "Right", "Why", "Case")
        body = _table(head, rows, "Parameters whose gradients were read off")
    if silent:
        names = ", ".join(map(_code, list(silent)[:12]))
        more = f" and {len(silent) - 12} more" if len(silent) > 12 else ""
        body += (
            f"<p>{len(silent)} parameters sent nothing but zeros: {names}{more}. Other "
            "weights may send more.</p>"
        )
    return f"<h2>Which layers leak, and why</h2>\n{body}"


def _case(report: Report, number: int) -> str:
    case = report.cases[number]
    role = "Control: " if case.is_control else ""
    figures = case.figures
    parts = [
        f"<h2>{_text(role + case.name)}</h2>",
        f"<p>{case.clients} clients with {case.batch} each. "
        f"{_counts(case)}{_labels(figures['labels'])}</p>",
        *(f"<p>{_text(sentence)}</p>" for sentence in remarks(report, case)),
        _attacks(case),
        _overlap(case),
        _clients(report, case),
    ]
    return "\n".join(part for part in parts if part)


def _counts(case: CaseReport) -> str:
    """How many examples came back, and which rates that leaves open."""
    if case.interval is None:
        return "No attack ran that could have brought an example back."
    figures, (low, high) = case.figures, case.interval
    return (
        f"<b>{figures['recovered']} of {case.examples}</b> examples came back (rates "
        f"of {low:.0%} to {high:.0%} are not excluded, 95 %), {figures['certified']} "
        "of them with proof."
    )


def _labels(share: float | None) -> str:
    return "" if share is None else f" {share:.0%} of the labels were read off."


def remarks(report: Report, case: CaseReport) -> list[str]:
    """What controls and oracles say of this case, and what is proven."""
    said = []
    twin = _control_of(report, case)
    if twin is not None:
        back = twin.figures["recovered"]
        weak = ": too weak an attack to say anything for the defense."
        said.append(
            f"With the defense switched off {back} of {twin.examples} came back"
            + ("." if back else weak)
        )
    for found in case.findings:
        if found.group == ORACLE and found.is_done:
            said.append(_oracle(found, case))
    if case.advice:
        said.append(f"Of this defense: {case.advice}.")
    said += [f"{name}: {value}." for name, value in case.promise.items()]
    return said


def _oracle(found: Finding, case: CaseReport) -> str:
    """What an attacker with the secret finds, and what that says of those without."""
    back = sum(found.recovered)
    told = f"An oracle that is told what the model drew finds {back} of {case.examples}"
    if back < case.examples:
        return f"{told}: what hides the others is not the noise."
    if case.figures["recovered"] < case.examples:
        return f"{told}: the noise is all that stands in the way."
    return f"{told}, and attackers without it as many."


def _control_of(report: Report, case: CaseReport) -> CaseReport | None:
    if case.is_control:
        return None
    for other in report.cases:
        if other.is_control and case.name.startswith(other.name):
            return other
    return None


def _attacks(case: CaseReport) -> str:
    """What ran, as a table; what did not apply, folded below it."""
    tried = [f for f in case.findings if f.state not in (REFUSED, UNKNOWING)]
    others = [f for f in case.findings if f.state in (REFUSED, UNKNOWING)]
    head = ("Attack", "State", "Right", "Proven", "Best SSIM", "Steps")
    table = _table(head, [_row(f) for f in tried], "What was tried", numbers=(4, 5))
    if not others:
        return table
    items = "".join(
        f"<li>{_text(f.attack)}: {_text(f.state)}; {_text(f.why)}</li>" for f in others
    )
    return (
        f"{table}<details><summary>{len(others)} attacks that were not for this "
        f"case</summary><ul>{items}</ul></details>"
    )


def _row(found: Finding) -> list[str]:
    alike = [s for s in found.ssim if s is not None]
    why = f"<br><small>{_text(found.why)}</small>" if found.why else ""
    where = f" of {_code(found.parameter)}" if found.parameter else ""
    return [
        _text(found.attack) + where + why,
        _text(found.state),
        _share(found.recovered) if found.recovered else _part(found),
        _share(found.certified),
        f"{max(alike):.2f}" if alike else "",
        f"{found.steps:,}" if found.steps else "",
    ]


def _part(found: Finding) -> str:
    if found.share is None:
        return ""
    what = "labels" if found.group == LABEL else found.gives
    return f"{found.share:.0%} of the {_text(what)}"


def _share(flags: Sequence[bool]) -> str:
    if not flags:
        return ""
    count = sum(flags)
    tone = ' class="yes"' if count else ""
    return f"<span{tone}>{count} of {len(flags)}</span>"


def _overlap(case: CaseReport) -> str:
    """Which attack found whose example; only where several found some."""
    found = [f for f in case.returned if any(f.recovered)]
    if len(found) < 2:
        return ""
    most = min(case.examples, 24)
    rows = [
        [_text(f.attack), *(_sign(each) for each in f.recovered[:most])] for f in found
    ]
    head = ("Attack", *(str(i + 1) for i in range(most)))
    return _table(head, rows, "Who was found by which attack")


def _sign(is_found: bool) -> str:
    if is_found:
        return '<span class="yes" role="img" aria-label="came back">✓</span>'
    return '<span role="img" aria-label="did not">·</span>'


def _clients(report: Report, case: CaseReport) -> str:
    """What was sent beside the nearest that came back."""
    shown = [(i, _best(case, i)) for i in range(min(case.examples, _MOST_SHOWN))]
    shown = [(index, best) for index, best in shown if best is not None]
    if not shown:
        return ""
    title = "Example by example: what was sent, and the nearest that came back"
    if report.sent is None:
        rows = [
            [str(i + 1), _text(report.said[i]), _text(best.told[i]), _nearness(best, i)]
            for i, best in shown
        ]
        return _table(("Example", "Sent", "Back", "By"), rows, title)
    items = "".join(_pair(report.sent[i], best, i) for i, best in shown)
    return f'<h3>{title}</h3>\n<ul class="clients">{items}</ul>'


def _nearness(best: Finding, index: int) -> str:
    """By which attack, how near, and whether that is proven."""
    proven = " (proven)" if best.certified and best.certified[index] else ""
    error = best.error[index] if best.error else None
    off = "" if error is None else f", error {error:.2g}"
    return _text(f"{best.attack}{proven}{off}")


def _best(case: CaseReport, index: int) -> Finding | None:
    """The attack that came nearest to this example: by proof, SSIM, then error."""
    candidates = [f for f in case.returned if f.shown is not None or f.told]

    def nearness(found: Finding) -> tuple:
        alike = found.ssim[index] if found.ssim else None
        error = found.error[index] if found.error else None
        alike = -1.0 if alike is None else alike
        return found.recovered[index], alike, -(1e9 if error is None else error)

    return max(candidates, key=nearness, default=None)


def _pair(sent: Tensor, best: Finding, index: int) -> str:
    alike = best.ssim[index]
    how = "proven" if best.certified and best.certified[index] else best.attack
    nearness = "" if alike is None else f"SSIM {alike:.2f}, "
    return (
        '<li><div class="pair">'
        f'<figure><img alt="example {index + 1} as it was sent" src="{_png(sent)}">'
        "<figcaption>sent</figcaption></figure>"
        f'<figure><img alt="what came back of example {index + 1}" '
        f'src="{_png(best.shown[index])}"><figcaption>back</figcaption></figure></div>'
        f"<small>{index + 1}: {nearness}{_text(how)}</small></li>"
    )


def _png(pixels: Tensor) -> str:
    """(C, H, W) in [0, 1] as an address that needs no file."""
    step = max(1, max(pixels.shape[-2:]) // _SHOWN_SIDE)
    small = pixels[..., ::step, ::step].float()
    if len(small) not in (1, 3):
        small = small[:1]
    return f"data:image/png;base64,{png_base64(small)}"


def _cost(report: Report) -> str:
    cost = report.cost
    if not cost:
        return ""
    title = "<h2>What the defense costs</h2>\n"
    if not cost["measured"]:
        return f"{title}<p>Not measured: {_text(cost['why'])}.</p>"
    rows = [
        [_text(name), f"{a['accuracy']:.0%}", "{:.0%} to {:.0%}".format(*a["interval"])]
        for name, a in cost["accuracies"].items()
    ]
    what = (
        f"Accuracy on {cost['test']} examples after {cost['epochs']} epochs on "
        f"{cost['train']}: which way the defense pulls, not how far"
    )
    return title + _table(("Defense", "Accuracy", "95 %"), rows, what)


def _not_tried(report: Report) -> str:
    items = "".join(f"<li>{_text(each)}</li>" for each in report.not_tried())
    return (
        "<h2>What was not tried</h2>\n<p>An audit can find a leak; it cannot find that "
        f"there is none.</p><ul>{items}</ul>"
    )


def _again(report: Report) -> str:
    rows = [(k.replace("_", " "), v) for k, v in report.settings.items() if v != ""]
    rows += list(report.versions.items())
    return (
        "<h2>How to repeat it</h2>\n<dl>"
        + "".join(f"<dt>{_text(k)}</dt><dd>{_text(_plain(v))}</dd>" for k, v in rows)
        + "</dl>"
    )


def _plain(value: object) -> object:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else value


def _code(name: str) -> str:
    return f"<code>{_text(name)}</code>"


def _table(
    head: Iterable[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    *,
    numbers: Sequence[int] = (),
) -> str:
    """Cells are markup already; the head and the caption are text."""

    names = list(head)

    def cell(tag: str, column: int, inner: str) -> str:
        kind = ' class="number"' if column in numbers else ""
        if tag == "th":
            return f'<th scope="col"{kind}>{inner}</th>'
        inside = f"<div>{inner}</div>" if inner else ""
        return f'<td data-head="{_text(names[column])}"{kind}>{inside}</td>'

    top = "".join(cell("th", i, _text(name)) for i, name in enumerate(names))
    body = "\n".join(
        "<tr>" + "".join(cell("td", i, each) for i, each in enumerate(row)) + "</tr>"
        for row in rows
    )
    stacks = "" if len(names) > 8 else ' class="stacks"'
    return (
        f'<div class="wide" role="region" aria-label="{_text(caption)}" tabindex="0">'
        f"<table{stacks}><caption>{_text(caption)}</caption>"
        f"<thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )

"""Names by strangers: what of them may be shown, and which of them look alike."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

# Of the characters without a shape of their own these are part of words: joiners (in
# Persian, in emoji), the break between Khmer words, and signs that enclose numbers.
_PARTS = {*"\u200b\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2"}
# A black flag, the letters of a region, and their end are one emoji.
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]+\U000e007f")
_UNSEEN = re.compile("[\u200b-\u200d\ufe00-\ufe0f\u00ad\u034f\u115f\u1160\u3164\u2800]")
# Cyrillic and Greek letters that are drawn as Latin ones.
_TWINS = str.maketrans(
    "аеіорсухѕјһԁԛԝАВЕІЈКМНОРСТУХЅҮΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ",
    "aeiopcyxsjhdqwABEIJKMHOPCTYXSYABEZHIKMNOPTYXovp",
)


def printable(text: str) -> str:
    """The text in one line, without what a terminal or a browser would obey."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    shown, end = [], 0
    for flag in _FLAG.finditer(text):
        shown += [*map(_shown, text[end : flag.start()]), flag.group()]
        end = flag.end()
    return "".join([*shown, *map(_shown, text[end:])])


def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    if kind[0] != "C" and kind not in ("Zl", "Zp"):
        return character
    return character if character in _PARTS or _is_new(character) else "\ufffd"


def _is_new(character: str) -> bool:
    """Whether it may be an emoji or ideograph that this Python is too old to know."""
    code = ord(character)
    is_unassigned = unicodedata.category(character) == "Cn"
    return is_unassigned and 0x10000 <= code < 0x40000 and code & 0xFFFE != 0xFFFE


def alphabetical(text: str) -> tuple[str, str]:
    """A key to sort by as people do: neither capitals nor accents come first."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in letters if not unicodedata.combining(c)), text


def natural(text: str) -> list[tuple[int, str]]:
    """A key to sort by in which 10 comes after 9."""
    # Digits of other scripts than int() knows are letters here; huge numbers, too.
    parts = re.split(r"([0-9]{1,18})", text)
    return [(int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)]


def look(text: str) -> str:
    """What is the same for two names that a reader would take for one."""
    plain = unicodedata.normalize("NFKC", printable(text)).translate(_TWINS)
    return " ".join(_UNSEEN.sub("", plain).split())


def escaped(text: str) -> str:
    """The text in ASCII, different for all different texts."""
    return text.encode("unicode_escape").decode("ascii")


def told_apart(names: Iterable[str]) -> dict[str, str]:
    """How to show each of these different names: none empty, and no two alike.

    A name that looks like another is shown with its characters spelled out behind it.
    """
    names = sorted({*names})
    looks = Counter(map(look, names))
    looks[""] = 2  # nothing to be seen is never clear
    shown: dict[str, str] = {}
    taken: set[str] = set()
    # The clear ones first, so that nobody takes a name by spelling one out.
    for name in sorted(names, key=lambda name: looks[look(name)] > 1):
        text = printable(name)
        if looks[look(name)] > 1:
            text = f"{text} [{escaped(name)}]"
        while look(text) in taken:
            text += f" [{len(taken)}]"
        taken.add(look(text))
        shown[name] = text
    return shown


def alike(names: Iterable[str]) -> list[Collection[str]]:
    """Groups of different names that look alike."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[look(name)].add(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]

"""What an attacker is assumed to know: the letters of Carletti et al. 2025.

Each passive attacker, A to E, knows all that the one before knows. F to H change the
model or choose the clients: no audit plays them, and a report says it. What they can do
is shown by `precode_lib.attacks.cheating`.
"""

from dataclasses import dataclass

# What an attack may need beside the gradient and the model.
BOX = "the range of values, and that pictures are smooth"
LABELS = "the labels"
TRAINING = "the clients' local steps, their rate and their batches"
PUBLIC = "examples of the same kind that are nobody's secret"
STATISTICS = "how the clients' data are distributed"


@dataclass(frozen=True)
class Threat:
    """One of the letters.

    Args:
        knows: what of the above this attacker has, the labels aside: those are given
            or not.
    """

    letter: str
    name: str
    knows: frozenset[str]

    def lacks(self, needs: frozenset[str]) -> list[str]:
        """What of these the attacker has not, in the order above."""
        order = (BOX, LABELS, TRAINING, PUBLIC, STATISTICS)
        return [each for each in order if each in needs - self.knows]


THREATS = {
    letter: Threat(letter, name, frozenset(knows))
    for letter, name, knows in (
        ("A", "eavesdropper", ()),
        ("B", "informed eavesdropper", (BOX,)),
        ("C", "parameter-aware eavesdropper", (BOX, TRAINING)),
        ("D", "data-enhanced eavesdropper", (BOX, TRAINING, PUBLIC)),
        ("E", "statistics-informed eavesdropper", (BOX, TRAINING, PUBLIC, STATISTICS)),
    )
}
ACTIVE = {
    "F": "active manipulator",
    "G": "data-enhanced manipulator",
    "H": "active client manipulator",
}


def threat(letter: str) -> Threat:
    """The threat of this letter; refuses those who act, for nothing here plays them."""
    asked = str(letter).upper()
    if asked in ACTIVE:
        raise ValueError(
            f"{asked} is the {ACTIVE[asked]}, who changes what the server sends or "
            "chooses its clients: no attack here does that, so an audit against it "
            "would say nothing. Choose one of A, B, C, D, E."
        )
    if asked not in THREATS:
        raise ValueError(
            f"a threat is one of {', '.join(THREATS)} (Carletti et al. 2025), got "
            f"{letter!r}."
        )
    return THREATS[asked]

"""What adapted networks' methods are called, and what their names tell."""

import re
from collections.abc import Sequence
from typing import NamedTuple

BACKGROUND_SET = "background set"
GAIN_AND_OFFSET = "gain and offset"
QUADRATIC = "quadratic_regression"
AS_TRAINED = "as trained"
WITH_REFERENCES = re.compile(r"(.+) \+ (0|[1-9][0-9]{0,5})", re.DOTALL)  # what adapted_name makes


def adapted_name(method: str, n_references: int) -> str:
    """Such as tsf + 2."""
    return f"{method} + {n_references}"


def families_of(method: str) -> tuple[str, str, str]:
    """What is adapted by the same references: a network's method itself, and its rivals."""
    return method, f"{method}, {GAIN_AND_OFFSET}", QUADRATIC


class AdaptedMethod(NamedTuple):
    """A method `name` of an adapted network, whose own method is called `plain`.

    `family`: its name without the number of `references`, which is None as trained.
    """

    name: str
    plain: str
    family: str
    references: int | None

    @property
    def adapted_by(self) -> str:
        """The number of references in words."""
        return AS_TRAINED if self.references is None else str(self.references)


def adapted_methods(methods: Sequence[str]) -> list[AdaptedMethod]:
    """The plain methods of networks that were adapted, each followed by all that they became.

    In the order of `families_of`, each by rising number; empty where none was adapted. A name such
    as `my + 3` is an adapted method's where `my` is a method, too, and `my + 3` wasn't adapted.
    """
    parted = {
        name: parts.groups() for name in methods if (parts := WITH_REFERENCES.fullmatch(name))
    }
    bases = {family for family, _ in parted.values()}
    parted = {name: own for name, own in parted.items() if name not in bases}
    bases = {family for family, _ in parted.values()} - {QUADRATIC}
    numbers = sorted({int(number) for _, number in parted.values()})
    found = dict[str, AdaptedMethod]()
    for plain in (name for name in methods if name in bases):
        as_trained = (plain, f"{plain}, {BACKGROUND_SET}")
        own = [AdaptedMethod(name, plain, name, None) for name in as_trained if name in methods]
        own += [
            AdaptedMethod(name, plain, family, n)
            for family in families_of(plain)
            for n in numbers
            if (name := adapted_name(family, n)) in parted
        ]
        found |= {one.name: one for one in own if one.name not in found}
    return list(found.values())

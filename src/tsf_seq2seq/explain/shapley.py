"""Shapley values: what each player of a game brings, from the values of all coalitions."""

from collections.abc import Mapping
from itertools import combinations
from math import factorial
from typing import TypeVar

import numpy as np

Player = TypeVar("Player", int, str)
# Every coalition, the empty one too → values of one shape: a number a subject, an image, …
Game = Mapping[frozenset[Player], np.ndarray]


def coalitions(players: frozenset[Player]) -> list[frozenset[Player]]:
    """All 2^n sets of the players, the empty one included, by size."""
    ordered = sorted(players)
    return [
        frozenset(members)
        for size in range(len(ordered) + 1)
        for members in combinations(ordered, size)
    ]


def shapley_values(game: Game[Player]) -> dict[Player, np.ndarray]:
    """φ_i = Σ_A |A|! (n − |A| − 1)! / n! · (v(A ∪ i) − v(A)) over the sets A of others.

    Shapley 1953; exact. Player → values; they add up to v(all) − v(empty).
    """
    players = max(game, key=len)
    n = len(players)
    values = {}
    for player in players:
        terms = [
            factorial(len(others)) * factorial(n - len(others) - 1) / factorial(n)
            * (game[others | {player}] - game[others])
            for others in coalitions(players - {player})
        ]  # fmt: skip
        values[player] = np.sum(terms, axis=0)
    return values


def leave_one_out(game: Game[Player]) -> dict[Player, np.ndarray]:
    """v(all) − v(all but i): what is lost when only player i is missing."""
    players = max(game, key=len)
    return {player: game[players] - game[players - {player}] for player in players}

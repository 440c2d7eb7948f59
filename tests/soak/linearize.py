"""A small linearizability checker in the manner of Wing and Gong, with Lowe's memory of what was tried.

It looks for an order of the operations in which each takes effect at one moment between its start and its end, and
tells what the model says. Operations that change nothing are put in place as soon as they fit: to do so never spoils a
solution. The others are tried in the order of their hints, so that a history that is right is seen to be right at once;
the search tries all of them before it says that there is no order.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

State = TypeVar("State")

STEPS_MAX = 300_000


@dataclass(frozen=True)
class Operation(Generic[State]):
    """Something that happened at one moment between `start` and `end`; `apply` gives None where it cannot be then.

    `changes` is False for what leaves the state alone.
    """

    start: float
    end: float
    apply: Callable[[State], State | None]
    changes: bool
    label: str
    hint: float = 0.0


class Verdict(enum.Enum):
    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


class Result(NamedTuple):
    """The verdict; where it is wrong, the longest order that was found, and what could not follow it."""

    verdict: Verdict
    steps: int
    done: list[str]
    stuck: list[str]


class _Node(NamedTuple, Generic[State]):
    state: State
    done: int  # a bit for each operation that has its place
    path: tuple[int, object] | None  # the operation before, and its own path


def check(operations: list[Operation[State]], initial: State, steps_max: int = STEPS_MAX) -> Result:
    """Look for an order; UNDECIDED after so many steps."""
    search = _Search(sorted(operations, key=lambda each: each.start))
    return search.run(initial, steps_max)


class _Search(Generic[State]):
    def __init__(self, operations: list[Operation[State]]) -> None:
        self._operations = operations
        self._tried: set[tuple[int, State]] = set()
        self._longest: tuple[int, _Node[State] | None] = (-1, None)

    def run(self, initial: State, steps_max: int) -> Result:
        everything = (1 << len(self._operations)) - 1
        stack = [_Node(initial, 0, None)]
        for step in range(steps_max):
            if not stack:
                return self._result(Verdict.WRONG, step)
            node = self._settle(stack.pop())
            if (node.done, node.state) in self._tried:
                continue
            self._tried.add((node.done, node.state))
            if node.done == everything:
                return Result(Verdict.RIGHT, step, [], [])
            count = node.done.bit_count()
            if count > self._longest[0]:
                self._longest = (count, node)
            stack.extend(self._successors(node))
        return self._result(Verdict.UNDECIDED, steps_max)

    def _candidates(self, done: int) -> list[int]:
        """Find what may come next: whatever began before the first end of all that has no place yet."""
        found: list[int] = []
        first_end = float("inf")
        # The lowest bit that is not set: all before it are done.
        at = (~done & (done + 1)).bit_length() - 1
        while at < len(self._operations) and self._operations[at].start <= first_end:
            if not done >> at & 1:
                found.append(at)
                first_end = min(first_end, self._operations[at].end)
            at += 1
        return [each for each in found if self._operations[each].start <= first_end]

    def _settle(self, node: _Node[State]) -> _Node[State]:
        """Give its place to whatever fits and changes nothing."""
        fitted = True
        while fitted:
            fitted = False
            for each in self._candidates(node.done):
                operation = self._operations[each]
                if not operation.changes and operation.apply(node.state) is not None:
                    node = _Node(node.state, node.done | 1 << each, (each, node.path))
                    fitted = True
        return node

    def _successors(self, node: _Node[State]) -> list[_Node[State]]:
        """Take each change that fits; the one with the least hint comes last, and so is tried first."""
        found = []
        changes = [each for each in self._candidates(node.done) if self._operations[each].changes]
        for each in sorted(changes, key=lambda each: self._operations[each].hint, reverse=True):
            state = self._operations[each].apply(node.state)
            if state is not None:
                found.append(_Node(state, node.done | 1 << each, (each, node.path)))
        return found

    def _result(self, verdict: Verdict, steps: int) -> Result:
        node = self._longest[1]
        if node is None:
            return Result(verdict, steps, [], [])
        order: list[str] = []
        path = node.path
        while path is not None:
            order.append(self._operations[path[0]].label)
            path = path[1]  # type: ignore[assignment]
        stuck = [self._operations[each].label for each in self._candidates(node.done)]
        return Result(verdict, steps, [*reversed(order), f"then the state is {node.state}"], stuck)

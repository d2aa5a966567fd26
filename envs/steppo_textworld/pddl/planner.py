"""A way to the goal from any state: greedy search by the FF heuristic.

The heuristic is the length of a plan that forgets what actions undo (Hoffmann and Nebel 2001, *The FF
planning system*, JAIR 14, section 3), extracted along cheapest supporters; the search follows the
actions that start such a plan, its "helpful actions", and opens all others only when those lead
nowhere. Plans are good, not shortest. Fast Downward's own search would do, but it takes 1.5 s a plan,
keeps its state in globals of a library of 33 MB, and brings the process down when it is unloaded.
"""

from collections import defaultdict
from dataclasses import dataclass
from heapq import heappop, heappush

from steppo_textworld.pddl.sas import Fact, Operator, SasTask, State

__all__ = ["Planner"]

MAX_EXPANSIONS = 1000
"""States that one search looks at before it gives up; ALFWorld needs a few dozen."""


@dataclass(frozen=True, slots=True)
class _Unary:
    """One effect of an operator or axiom. `operator` is its place among the operators, or None."""

    precondition: tuple[Fact, ...]
    effect: Fact
    cost: int
    operator: int | None


class Planner:
    """Finds plans for one task."""

    def __init__(self, task: SasTask) -> None:
        self._task = task
        read = frozenset(task.read_variables)
        self._unary: list[_Unary] = []
        for place, operator in enumerate(task.operators):
            for conditions, variable, value in operator.effects:
                if variable in read:
                    facts = tuple(dict.fromkeys((*operator.precondition, *conditions)))
                    self._unary.append(_Unary(facts, (variable, value), 1, place))
        for axiom in task.axioms:
            facts = tuple(dict.fromkeys(axiom.conditions))
            self._unary.append(_Unary(facts, (axiom.variable, axiom.value), 0, None))
        self._waiting: dict[Fact, list[int]] = defaultdict(list)
        for place, unary in enumerate(self._unary):
            for fact in unary.precondition:
                self._waiting[fact].append(place)

    def plan(self, state: State) -> tuple[Operator, ...] | None:
        """Return operators that lead from a state to the goal, or None when none were found."""
        for is_wide in (False, True):
            plan = self._search(state, is_wide)
            if plan is not None:
                return plan
        return None

    def _search(self, start: State, is_wide: bool) -> tuple[Operator, ...] | None:
        count = 0
        waiting: list[tuple[int, int, State, tuple[Operator, ...]]] = [(0, 0, start, ())]
        seen = {self._key(start)}
        for _ in range(MAX_EXPANSIONS):
            if not waiting:
                return None
            _, _, state, plan = heappop(waiting)
            if self._task.is_goal(state):
                return plan
            relaxed = self._relaxed_plan(state)
            if relaxed is None:
                continue
            for operator in self._task.applicable(state):
                if not is_wide and operator not in relaxed:
                    continue
                after = self._task.apply(operator, state)
                key = self._key(after)
                if key not in seen:
                    seen.add(key)
                    count += 1
                    heappush(waiting, (len(relaxed), count, after, (*plan, operator)))
        return None

    def _key(self, state: State) -> tuple[int, ...]:
        return tuple(state[variable] for variable in self._task.read_variables)

    def _relaxed_plan(self, state: State) -> frozenset[Operator] | None:
        """Return the operators of a plan in which nothing is undone; None when there is none."""
        supporters = self._supporters(state)
        if supporters is None:
            return None
        chosen: set[int] = set()
        needed = [*self._task.goal]
        met: set[Fact] = set()
        while needed:
            fact = needed.pop()
            if fact in met or state[fact[0]] == fact[1]:
                continue
            met.add(fact)
            unary = self._unary[supporters[fact]]
            if unary.operator is not None:
                chosen.add(unary.operator)
            needed += unary.precondition
        return frozenset(self._task.operators[place] for place in chosen)

    def _supporters(self, state: State) -> dict[Fact, int] | None:
        """Return the cheapest way to each fact, up to the goal, by the sum of its conditions."""
        left = [len(unary.precondition) for unary in self._unary]
        costs = [unary.cost for unary in self._unary]
        best: dict[Fact, int] = {}
        supporters: dict[Fact, int] = {}
        queue: list[tuple[int, Fact]] = []
        for variable in self._task.read_variables:
            fact = (variable, state[variable])
            best[fact] = 0
            heappush(queue, (0, fact))
        for place, unary in enumerate(self._unary):
            if not unary.precondition:
                self._offer(place, costs[place], best, supporters, queue)
        goal = set(self._task.goal)
        while queue:
            cost, fact = heappop(queue)
            if cost > best[fact]:
                continue
            goal.discard(fact)
            if not goal:
                return supporters
            for place in self._waiting.get(fact, ()):
                left[place] -= 1
                costs[place] += cost
                if left[place] == 0:
                    self._offer(place, costs[place], best, supporters, queue)
        return None

    def _offer(
        self,
        place: int,
        cost: int,
        best: dict[Fact, int],
        supporters: dict[Fact, int],
        queue: list[tuple[int, Fact]],
    ) -> None:
        fact = self._unary[place].effect
        if cost < best.get(fact, cost + 1):
            best[fact] = cost
            supporters[fact] = place
            heappush(queue, (cost, fact))

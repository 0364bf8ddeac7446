"""The verb `reproduce`: a paper's run as a whole, with what was published beside what came out."""

from tagmask.api.reproduce.measure import Outcome, run_plan
from tagmask.api.reproduce.plan import Plan, make_plan
from tagmask.api.reproduce.rows import EXPERIMENTS

__all__ = ["EXPERIMENTS", "Outcome", "Plan", "make_plan", "run_plan"]

"""The search: which program over passes to measure next, and what was learnt from those measured."""

from diffopt.search.budget import Budget
from diffopt.search.engine import Engine, Settings
from diffopt.search.executors.local import Executor, LocalExecutor
from diffopt.search.goals import LEVELS, TIERS, Constraints, Level, winners
from diffopt.search.loop import search
from diffopt.search.presets import RuleProposer
from diffopt.search.records import Attempt, Candidate, Proposal, Proposer, Trial
from diffopt.search.store import Store, TrialStore

__all__ = [
    "LEVELS",
    "TIERS",
    "Attempt",
    "Budget",
    "Candidate",
    "Constraints",
    "Engine",
    "Executor",
    "Level",
    "LocalExecutor",
    "Proposal",
    "Proposer",
    "RuleProposer",
    "Settings",
    "Store",
    "Trial",
    "TrialStore",
    "search",
    "winners",
]

"""Bound what the language model may cost: calls, tokens, money. Reserved before a call, settled after it."""

from dataclasses import dataclass
from typing import Self

from diffopt.ir.errors import DiffoptError


@dataclass(frozen=True)
class Price:
    """What the caller says a token costs."""

    prompt_per_million: float
    completion_per_million: float
    currency: str = "USD"

    def of(self, usage: "Usage") -> float:
        """Return the cost of `usage`, in `currency`."""
        prompt = usage.prompt_tokens * self.prompt_per_million
        return (prompt + usage.completion_tokens * self.completion_per_million) / 1_000_000


@dataclass(frozen=True)
class Usage:
    """Tokens of one call or of many."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Self) -> "Usage":
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


@dataclass(frozen=True)
class Budget:
    """Upper bounds for one run; `money` is in the currency of `price`."""

    calls: int = 24
    tokens: int = 400_000
    money: float | None = None
    price: Price | None = None

    def __post_init__(self) -> None:
        if self.calls < 0 or self.tokens < 0 or (self.money is not None and self.money < 0):
            raise DiffoptError("an LLM budget cannot be negative")
        if self.money is not None and self.price is None:
            raise DiffoptError("a money budget for the LLM needs a price", hint="give the price of a million tokens")


@dataclass(frozen=True)
class Spent:
    """What a run has used. `money` is None when no price is known."""

    calls: int
    usage: Usage
    money: float | None


class Ledger:
    """The account of one client. Not thread-safe: one thread asks."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._calls = 0
        self._usage = Usage()
        self._reserved = Usage()

    @property
    def spent(self) -> Spent:
        """What is settled so far."""
        price = self.budget.price
        return Spent(self._calls, self._usage, price.of(self._usage) if price is not None else None)

    def reserve(self, usage: Usage) -> str:
        """Set `usage` aside for one call. Return "" when it fits, else the line that says which bound it breaks."""
        budget, total = self.budget, self._usage + self._reserved + usage
        if self._calls >= budget.calls:
            return f"budget of {budget.calls} calls is used up"
        if total.tokens > budget.tokens:
            return f"budget of {budget.tokens} tokens: {self._usage.tokens} used, this call may take {usage.tokens}"
        if budget.money is not None and budget.price is not None and budget.price.of(total) > budget.money:
            used = f"{budget.price.of(self._usage):.4f}"
            return f"budget of {budget.money:g} {budget.price.currency}: {used} used, this call may go beyond it"
        self._calls += 1
        self._reserved = self._reserved + usage
        return ""

    def charge(self, used: Usage) -> None:
        """Add a call that was made before."""
        self._calls += 1
        self._usage = self._usage + used

    def settle(self, reserved: Usage, used: Usage) -> None:
        """Replace what was set aside by what was used."""
        self._reserved = Usage(
            self._reserved.prompt_tokens - reserved.prompt_tokens,
            self._reserved.completion_tokens - reserved.completion_tokens,
        )
        self._usage = self._usage + used

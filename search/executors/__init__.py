"""Where candidates are measured: one file an executor."""

from diffopt.search.executors.local import Executor, LocalExecutor

__all__ = ["Executor", "LocalExecutor"]

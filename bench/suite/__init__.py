"""DiffBench: tasks that ask for accelerated pipelines, the gates that judge the answers, and the arms that give them."""

from diffopt.bench.suite.generate import tasks
from diffopt.bench.suite.task import VERSION, Method, Target, Task

__all__ = ["VERSION", "Method", "Target", "Task", "tasks"]

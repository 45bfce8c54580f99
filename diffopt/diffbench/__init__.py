"""DiffBench's levels with a target: searches that set the targets, and arms that search at equal measured budgets."""

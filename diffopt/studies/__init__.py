"""Studies of what the compiler says about its own results: each a command that writes to bench/results/."""

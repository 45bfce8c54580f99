"""Studies of the measuring itself: each a command that writes its results to bench/results/."""

"""Train the built-in models against the clock: `python -m diffopt.bench.models.train`."""

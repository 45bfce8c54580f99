"""One script that builds, checks and measures everything that needs a GPU: `python -m diffopt.bench.gpu.run`."""

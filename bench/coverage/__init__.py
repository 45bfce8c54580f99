"""Which transformer and UNet classes of the installed diffusers become engines: `python -m diffopt.bench.coverage`."""

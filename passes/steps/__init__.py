"""Fewer or better steps of the sampler."""

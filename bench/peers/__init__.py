"""What others make of the same pipelines: one file a peer in `recipes`, each in an environment of its own; `make peers`."""

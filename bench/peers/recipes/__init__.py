"""One file a peer: its PEER, and a `load` whose text is the program that is measured."""

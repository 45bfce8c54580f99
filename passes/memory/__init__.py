"""Where weights lie, and how wide they are stored."""

"""The measuring room: programs run in processes of their own, and what they give is compared with the baseline."""

"""The captures in pcaps/: what they show, and how the lab makes them. Run by tools/captures."""

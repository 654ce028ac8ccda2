"""tools/bench: what natfix costs, next to its peers in the same run."""

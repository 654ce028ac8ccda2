"""The scenarios of real calls: each file is one, placed in the lab (see tests/lab/README.md)."""

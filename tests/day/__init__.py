"""A day in the life of a gateway, compressed into a minute."""

"""Floods and broken messages against the real daemon: what they cost others, and what they leave behind."""

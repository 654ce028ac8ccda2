"""Hundreds of calls at once through the real daemon, from one light program that plays both sides."""

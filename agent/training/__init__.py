"""Loops that train, and what one update does."""

"""Atari games (ale-py, GPL-2.0, an extra): the environment, published scores, and sets of games."""

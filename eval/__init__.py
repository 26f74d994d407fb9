"""Tools that read a run: each is `python -m eval.NAME`."""

"""A web page on which a person acts in a world model: `python -m eval.play RUN [RUN ...]`

`server` serves the page, `session` is one visitor's, `simulator` the world model that imagines for them, `real` the
environment beside it, `models` the runs, `actions` their keys.
"""

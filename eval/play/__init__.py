"""A web page on which a person walks through a learned simulator: `python -m eval.play RUN [RUN ...]`

`server` hands out the page and talks to it, `session` is one visitor's, `simulator` the world model that dreams for
them, `real` the environment beside it, `models` the runs, `actions` their keys.
"""

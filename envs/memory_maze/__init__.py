"""Memory Maze (Pasukonis et al., arXiv 2210.13383), over the package of its authors.

`env` is the environment, `package` imports theirs without old `gym`, `speed` and `textures` make it faster and smaller.
"""

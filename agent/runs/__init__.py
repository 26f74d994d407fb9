"""A run: its configuration, its folder and its checkpoints."""

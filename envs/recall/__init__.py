"""Environments that measure memory: `env` has the episodes, `drawing` the images and their classification."""

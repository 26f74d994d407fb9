"""Tools that read a run: each is `python -m eval.NAME`."""

import os

# as train_agent.py does, before torch is imported: threads that wait for long hold up whatever runs beside them
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

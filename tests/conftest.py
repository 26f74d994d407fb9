"""One thread for each test process: small tensors gain nothing from more, and lose much on a busy machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start

import torch  # noqa: E402

torch.set_num_threads(1)

"""Mixers under one contract: what a backbone layer is made of."""

from worldmodel.mixers.base import Mixer
from worldmodel.mixers.block_ssm import BlockSSM
from worldmodel.mixers.full_attention import FullAttention
from worldmodel.mixers.local_attention import LocalAttention

__all__ = ["BlockSSM", "FullAttention", "LocalAttention", "Mixer"]

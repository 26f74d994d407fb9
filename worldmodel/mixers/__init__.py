"""Mixers under one contract: what a backbone layer is made of."""

from worldmodel.mixers.base import Mixer
from worldmodel.mixers.block_ssm import BlockSSM
from worldmodel.mixers.causal_conv import CausalConv
from worldmodel.mixers.delta_memory import DeltaMemory
from worldmodel.mixers.global_attention import GlobalAttention
from worldmodel.mixers.gru import GRU
from worldmodel.mixers.local_attention import LocalAttention
from worldmodel.mixers.s5 import S5

__all__ = ["GRU", "S5", "BlockSSM", "CausalConv", "DeltaMemory", "GlobalAttention", "LocalAttention", "Mixer"]

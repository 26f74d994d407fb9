"""Widths of DreamerV3's world models (Hafner et al. 2023, arXiv 2301.04104): one number gives them all."""

from dataclasses import dataclass

SIZES = {"1M": 64, "12M": 256, "25M": 384, "50M": 512, "100M": 768, "200M": 1024}
"""Units of a hidden layer by the size's name, which counts the parameters of a whole agent, about."""

CATEGORICALS = 32
"""Categorical variables of a frame's latent, at every size."""


@dataclass(frozen=True)
class Widths:
    """Every width of a model whose hidden layers have `hidden` units, in the proportions of all published sizes."""

    hidden: int

    @property
    def deter(self) -> int:
        """Width of the recurrent state: h."""
        return 8 * self.hidden

    @property
    def classes(self) -> int:
        """Classes of each categorical; not fewer than the smallest published size has."""
        return max(4, round(self.hidden / 16))

    @property
    def depth(self) -> int:
        """Channels that the convolutions' are multiples of; not fewer than the smallest published size has."""
        return max(4, round(self.hidden / 16))

    @property
    def latent(self) -> int:
        """Width of a latent, one-hot: z."""
        return CATEGORICALS * self.classes

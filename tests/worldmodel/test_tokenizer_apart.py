"""A tokenizer taught apart from memory: frames come from latents alone, and what memory reads teaches them nothing."""

import pytest
import torch

from tests.worldmodel.small import ACTIONS, SHAPES, random_batch, shake
from worldmodel import make
from worldmodel.lssvwm import LSSVWM, LSSVWMConfig


@pytest.fixture(params=["image", "vector"])
def model(request):
    torch.manual_seed(0)
    config = LSSVWMConfig(
        d_model=32, tokenizer_width=32, num_categoricals=16, num_classes=8, state_interval=4, hidden=16, free_nats=0.0,
        detach_latents=True,
    )  # fmt: skip
    made = make(config, SHAPES[request.param], ACTIONS)
    shake(made, 0.1)
    made.kind = request.param
    return made


def test_decoding_reads_the_latents_alone(model: LSSVWM):
    feature = torch.rand(2, 3, model.tokens, model.feature_width)
    other = feature.clone()
    other[..., : model.config.width] = 0
    assert torch.equal(model.decode(feature), model.decode(other))
    other[..., model.config.width :] = 0
    assert not torch.allclose(model.decode(feature), model.decode(other))


TAUGHT = {
    "reconstruction": {"tokenizer"},
    "perceptual": {"tokenizer"},
    "dynamics": {"backbone"},
    "overshoot": {"backbone"},
    "representation": {"tokenizer"},
    "reward": {"tokenizer", "backbone"},  # by the latents in the feature
    "ahead": {"backbone"},
    "continue": {"tokenizer", "backbone"},
    "state": {"backbone"},
}


def test_what_each_loss_teaches(model: LSSVWM):
    rows = random_batch(model.kind, 2, 8)
    losses, _, _ = model.loss(rows, model.initial(2))
    parts = {
        "tokenizer": [*model.tokenizer.encoder.parameters(), *model.posterior.parameters()],
        "backbone": list(model.backbone.parameters()),
    }
    assert losses.keys() == TAUGHT.keys()
    for name, loss in losses.items():
        if loss.requires_grad:  # vectors have no perceptual loss
            assert {part for part, parameters in parts.items() if moved(loss, parameters)} == TAUGHT[name], name


def moved(loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> bool:
    """Whether any of these has a gradient."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)

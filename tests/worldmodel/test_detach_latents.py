"""detach_latents: frames are decoded from latents alone, and memory passes no gradient to the tokenizer."""

import pytest
import torch

from tests.worldmodel.small import ACTIONS, SHAPES, random_batch, shake
from worldmodel import make
from worldmodel.lssvwm import LSSVWM
from worldmodel.lssvwm_config import LSSVWMConfig


@pytest.fixture(params=["image", "vector"])
def model(request):
    torch.manual_seed(0)
    config = LSSVWMConfig(
        d_model=32, tokenizer_width=32, num_categoricals=16, num_classes=8, state_interval=4, hidden=16, free_nats=0.0,
        detach_latents=True, next_reward=True,
    )  # fmt: skip
    made = make(config, SHAPES[request.param], ACTIONS)
    shake(made, 0.1)
    made.kind = request.param
    return made


def test_decoding_reads_the_latents_alone(model: LSSVWM):
    feature = torch.rand(2, 3, model.tokens, model.feature_width)
    other = feature.clone()
    other[..., : model.config.d_model] = 0
    assert torch.equal(model.decode(feature), model.decode(other))
    other[..., model.config.d_model :] = 0
    assert not torch.allclose(model.decode(feature), model.decode(other))


TRAINED = {
    "reconstruction": {"tokenizer"},
    "perceptual": {"tokenizer"},
    "dynamics": {"backbone"},
    "next_latent": {"backbone"},
    "representation": {"tokenizer"},
    "reward": {"tokenizer", "backbone"},  # by the latents in the feature
    "next_reward": {"backbone"},
    "continue": {"tokenizer", "backbone"},
    "state_kl": {"backbone"},
}


def test_what_each_loss_trains(model: LSSVWM):
    rows = random_batch(model.kind, 2, 8)
    losses, _, _ = model.loss(rows, model.initial(2))
    parts = {
        "tokenizer": [*model.tokenizer.encoder.parameters(), *model.posterior.parameters()],
        "backbone": list(model.backbone.parameters()),
    }
    assert losses.keys() == TRAINED.keys()
    for name, loss in losses.items():
        if loss.requires_grad:  # vectors have no perceptual loss
            assert {part for part, parameters in parts.items() if moved(loss, parameters)} == TRAINED[name], name


def moved(loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> bool:
    """Whether any of these has a gradient."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)

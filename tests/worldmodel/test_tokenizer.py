"""Frames to tokens and back: shapes, which token is where, the similarity measure, normalisation."""

from functools import partial

import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.worldmodel.small import shake
from worldmodel.norm import RunningNorm
from worldmodel.reconstruction import reconstruction_losses, ssim
from worldmodel.rssm_networks import ImageCoder, Widths
from worldmodel.tokenizer import ImageTokenizer, MixerLayer, VectorTokenizer

FEATURES = 10


def image_tokenizer(height: int = 32, width: int = 32, colours: int = 3, layers: int = 1) -> ImageTokenizer:
    """A small image tokenizer; shaken, since it decodes gray at first."""
    torch.manual_seed(0)
    tokenizer = ImageTokenizer((height, width, colours), 16, layers, FEATURES)
    shake(tokenizer, 0.05)
    return tokenizer


def test_the_first_image_is_gray() -> None:
    tokenizer = ImageTokenizer((16, 16, 3), 16, 1, FEATURES)
    assert (tokenizer.decode(torch.randn(2, 16, FEATURES)) == 0.5).all()


def images(*lead: int, size: int = 32, colours: int = 3, seed: int = 0) -> Tensor:
    """(..., size, size, colours) uint8"""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*lead, size, size, colours), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(16, 16, 1), (64, 64, 3), (32, 64, 3), (84, 84, 1), (8, 12, 4)])
def test_shapes_of_images(shape: tuple[int, int, int]) -> None:
    tokenizer = image_tokenizer(*shape)
    frames = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    tokens = tokenizer.encode(frames)
    assert tokens.shape == (2, 3, 16, tokenizer.width)
    feature = torch.randn(2, 3, 16, FEATURES)
    assert tokenizer.decode(feature).shape == frames.shape
    torch.testing.assert_close(tokenizer.encode(frames[1]), tokens[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(tokenizer.decode(feature)[1], tokenizer.decode(feature[1]), atol=1e-5, rtol=0)
    tokenizer.update(frames)


@pytest.mark.parametrize("shape", [(50, 48, 3), (64, 33, 3), (4, 8, 3), (84, 4, 1)])
def test_sizes_that_do_not_cut_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"{shape[0]}x{shape[1]}"):
        image_tokenizer(*shape)


def test_tokens_are_patches_row_by_row() -> None:
    """Top right is token 3, bottom left token 12, going in and coming out; no more and no less than their patches."""
    tokenizer = image_tokenizer(32, 48, layers=0)
    patches = {3: np.s_[:8, 36:], 12: np.s_[24:, :12]}
    frame, feature = torch.randint(0, 256, (32, 48, 3), dtype=torch.uint8), torch.randn(16, FEATURES)
    for token, patch in patches.items():
        other = frame.clone()
        other[patch] = 255 - other[patch]
        changed = (tokenizer.encode(other) != tokenizer.encode(frame)).any(-1)
        assert changed.nonzero().flatten().tolist() == [token]
        moved = feature.clone()
        moved[token] += 1
        repainted = (tokenizer.decode(moved) != tokenizer.decode(feature)).all(-1)
        assert repainted[patch].all() and repainted.sum() == 8 * 12


def test_frames_stay_as_they_are() -> None:
    """Of floats too, which no conversion copies."""
    frames = images(2, 3).float()
    before = frames.clone()
    tokenizer, coder = image_tokenizer(), ImageCoder((32, 32, 3), Widths(16))
    tokenizer.encode(frames)
    coder.encode(frames)
    tokenizer.losses(torch.randn(2, 3, 16, FEATURES), frames)
    coder.loss(torch.randn(2, 3, 128), torch.randn(2, 3, 128), frames)
    assert torch.equal(frames, before)


def test_layers_let_every_token_see_the_whole_frame() -> None:
    tokenizer = image_tokenizer()
    frame, feature = images(), torch.randn(16, FEATURES)
    other = frame.clone()
    other[:8, :8] = 255 - other[:8, :8]
    assert ((tokenizer.encode(other) - tokenizer.encode(frame)).abs().amax(-1) > 1e-5).all()
    moved = feature.clone()
    moved[0] += 1
    patches = (tokenizer.decode(moved) - tokenizer.decode(feature)).abs().reshape(4, 8, 4, 8, 3).amax((1, 3, 4))
    assert (patches > 1e-5).all()


def test_a_layer_by_hand() -> None:
    """x + token_mlp, then + channel_mlp: float64 products written out."""
    torch.manual_seed(0)
    layer = MixerLayer(3, 4).double()
    shake(layer, 0.3)
    x = torch.randn(3, 4, dtype=torch.float64)

    def norm(y: Tensor, which: int) -> Tensor:
        return y / (y.square().mean(1, keepdim=True) + 1e-5).sqrt() * layer.norms[which].weight

    def mlp(y: Tensor, part: nn.Sequential) -> Tensor:
        hidden = y @ part[0].weight.T + part[0].bias
        return (hidden / (1 + (-hidden).exp())) @ part[2].weight.T + part[2].bias

    middle = x + mlp(norm(x, 0).T, layer.token_mlp).T
    torch.testing.assert_close(layer(x), middle + mlp(norm(middle, 1), layer.channel_mlp))


def test_losses_of_images() -> None:
    tokenizer = image_tokenizer()
    frames, feature = images(2, 3), torch.randn(2, 3, 16, FEATURES)
    squared, unlike = tokenizer.losses(feature, frames)
    gap = tokenizer.decode(feature).detach().numpy() - frames.numpy() / 255
    np.testing.assert_allclose(squared.item(), (gap**2).sum() / 6, rtol=1e-4)
    decoded = tokenizer.decode(feature)
    torch.testing.assert_close(unlike, 1 - ssim(decoded, frames / 255))
    assert 0 < unlike < 2


@settings(max_examples=10)
@given(
    frames=st.sampled_from([1, 5, 32, 40]),  # compared 32 at a time
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    patch=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    colours=st.sampled_from([1, 3]),
)
def test_losses_of_patches_are_those_of_images(
    frames: int, grid: tuple[int, int], patch: tuple[int, int], colours: int
) -> None:
    """Values and gradients in float64."""
    torch.manual_seed(0)
    h, w, p, q = *grid, 4 * patch[0], 4 * patch[1]
    truth = torch.randint(0, 256, (frames, h * w, p * q * colours), dtype=torch.uint8)
    decoded = torch.rand(truth.shape, dtype=torch.float64).requires_grad_()
    whole = partial(rearrange, pattern="f (h w) (p q c) -> f (h p) (w q) c", h=h, w=w, p=p, q=q)
    image, true = whole(decoded), whole(truth.double() / 255)
    want = (image - true).square().sum() / frames, 1 - ssim(image, true)
    got = reconstruction_losses(decoded, truth, {"h": h, "w": w, "p": p, "q": q})
    torch.testing.assert_close(got, want)
    for weights in ((1.0, 0.0), (0.3, 2.0)):
        gradients = [
            torch.autograd.grad(weights[0] * a + weights[1] * b, decoded, retain_graph=True)[0] for a, b in (got, want)
        ]
        torch.testing.assert_close(*gradients)


def test_an_image_can_be_trained() -> None:
    """Decoder and losses agree on scale and layout: one frame is soon decoded from its features."""
    tokenizer = image_tokenizer(16, 16)
    frame = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    frame[:, :8, :, 0] = 255
    frame[:, :, 4:, 1] = 128
    feature = torch.randn(1, 16, FEATURES)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=2e-2)
    for _ in range(40):
        squared, unlike = tokenizer.losses(feature, frame)
        optimizer.zero_grad()
        (squared / frame.numel() + 0.1 * unlike).backward()
        optimizer.step()
    assert (tokenizer.decode(feature) - frame / 255).abs().mean() < 0.1


def naive_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """One window at a time (Wang et al. 2004, equation 13)."""
    values = []
    for x, y in zip(a.mean(-1), b.mean(-1), strict=True):
        for i in range(0, x.shape[0] - 7, 4):
            for j in range(0, x.shape[1] - 7, 4):
                p, q = x[i : i + 8, j : j + 8], y[i : i + 8, j : j + 8]
                covariance = ((p - p.mean()) * (q - q.mean())).mean()
                top = (2 * p.mean() * q.mean() + 1e-4) * (2 * covariance + 9e-4)
                values.append(top / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4)))
    return float(np.mean(values))


def test_ssim_against_windows_by_hand() -> None:
    a = images(3, size=24).double() / 255
    b = (a + images(3, size=24, seed=1) / 255) / 2
    np.testing.assert_allclose(ssim(a, b).item(), naive_ssim(a.numpy(), b.numpy()), rtol=1e-9)


def test_ssim_of_plain_images() -> None:
    a = images(2, size=16).double() / 255
    assert ssim(a, a).item() == pytest.approx(1.0)
    dark, light = torch.full((1, 8, 8, 1), 0.2), torch.full((1, 8, 8, 1), 0.6)
    assert ssim(dark, light).item() == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), rel=1e-3)
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    board = board.reshape(1, 8, 8, 1).double()  # mean 1/2, variance 1/4: its negative has covariance -1/4
    assert ssim(board, 1 - board).item() == pytest.approx((-0.5 + 9e-4) / (0.5 + 9e-4))


def test_shapes_of_vectors() -> None:
    tokenizer = VectorTokenizer((5,), 16, FEATURES)
    x = torch.randn(2, 3, 5)
    assert tokenizer.encode(x).shape == (2, 3, 1, tokenizer.width)
    feature = torch.randn(2, 3, 1, FEATURES)
    assert tokenizer.decode(feature).shape == (2, 3, 5)
    squared, nothing = tokenizer.losses(feature, x)
    assert squared.shape == () and squared > 0 and nothing == 0


def test_vectors_are_decoded_in_their_own_units() -> None:
    torch.manual_seed(0)
    tokenizer = VectorTokenizer((2,), 16, FEATURES)
    shake(tokenizer, 0.1)
    far = torch.tensor([1e4, -3.0]) + torch.randn(500, 2) * torch.tensor([100.0, 0.01])
    tokenizer.update(far)
    feature = torch.randn(500, 1, FEATURES)
    decoded = tokenizer.decode(feature)
    # the training error is zero just where the decoded vector is the observed one
    assert tokenizer.losses(feature, decoded.detach())[0] < 1e-4
    assert tokenizer.losses(feature, far)[0] > 0.1
    assert ((decoded.mean(0) - torch.tensor([1e4, -3.0])).abs() < torch.tensor([300.0, 0.03])).all()
    assert tokenizer.encode(far).abs().max() < 100


@settings(max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(-100, 100), st.integers(0, 1000))
def test_running_moments_are_those_of_all_that_was_seen(sizes: list[int], offset: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = (random.normal(size=(sum(sizes), 3)) * [0.5, 5, 50] + [0, offset, 7]).astype(np.float32)
    norm = RunningNorm(3)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        norm.update(torch.from_numpy(part))
    assert norm.count == len(x)
    np.testing.assert_allclose(norm.mean.numpy(), x.mean(0, dtype=np.float64), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(norm.square.sqrt().numpy(), x.std(0, dtype=np.float64), rtol=1e-3, atol=1e-4)
    if len(x) > 1:
        normal = (x - x.mean(0)) / x.std(0).clip(1e-6)
        np.testing.assert_allclose(norm(torch.from_numpy(x)).numpy(), normal, rtol=1e-2, atol=1e-2)
        there_and_back = norm.inverse(norm(torch.from_numpy(x))).numpy()
        np.testing.assert_allclose(there_and_back, x, rtol=1e-4, atol=1e-3)


def test_normalisation_before_any_data_and_of_constants() -> None:
    norm = RunningNorm(2)
    x = torch.randn(4, 2)
    torch.testing.assert_close(norm(x), x)
    norm.update(torch.full((2, 3, 2), 7.0))  # any leading axes
    assert norm.count == 6 and torch.equal(norm(torch.full((2,), 7.0)), torch.zeros(2))
    assert norm(x).isfinite().all()


def test_what_is_not_a_number_is_no_part_of_the_normalisation() -> None:
    norm, same = RunningNorm(2), RunningNorm(2)
    x = torch.randn(3, 4, 2)
    norm.update(x)
    same.update(x)
    norm.update(torch.tensor([[torch.nan, 1.0], [2.0, torch.inf]]))  # no row is left
    norm.update(torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [3.0, 5.0]]))
    same.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert norm.count == 14
    for got, want in zip(norm.buffers(), same.buffers(), strict=True):
        assert torch.equal(got, want)

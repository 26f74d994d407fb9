"""The reward that each action would bring."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worldmodel.foresight import NextReward
from worldmodel.n_heads import symlog


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 3))
def test_likeness_is_of_each_token_to_the_likest_expected(tokens: int, latents: int, seed: int) -> None:
    torch.manual_seed(seed)
    head = NextReward(tokens, 3, latents, 2, 8)
    z, expected = torch.randn(2, tokens, latents), torch.randn(2, tokens, latents)
    got = head.likeness(z, expected)
    part = head.WIDTH // head.HEADS
    for k in range(head.HEADS):
        weight = head.embed.weight[k * part : (k + 1) * part]
        for i in range(tokens):
            pairs = [torch.cosine_similarity(z[:, i] @ weight.T, expected[:, j] @ weight.T) for j in range(tokens)]
            torch.testing.assert_close(got[:, i, k], torch.stack(pairs).amax(0))
    same = head.likeness(z, z.flip(1))
    torch.testing.assert_close(same, torch.ones_like(same))


def test_what_was_shown_is_told_among_four_from_the_reward_of_one_action() -> None:
    """Colours as one-hot latents; memory expects one of them anywhere, four patches show four; 100 batches of 16."""
    torch.manual_seed(0)
    colours, patches = 8, 4
    head = NextReward(patches + 1, 2, colours, patches, 64)
    optimizer = torch.optim.Adam(head.parameters(), 1e-3)

    def told(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        offered = torch.rand(batch, colours).argsort(-1)[:, :patches]
        right, place, rows = torch.randint(patches, (batch,)), torch.randint(patches + 1, (batch,)), torch.arange(batch)
        eye = torch.eye(colours)
        z, expected = torch.zeros(2, batch, patches + 1, colours)
        z[:, :patches], expected[rows, place] = eye[offered], eye[offered[rows, right]]
        return head(torch.zeros(batch, patches + 1, 2), z, expected), right

    for _ in range(100):
        found, right = told(16)
        taken = torch.randint(patches, (16,))
        reward = symlog((taken == right).float())
        loss = (head.after(found, torch.eye(patches)[taken]) - reward).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found, right = told(500)
    assert (found[:, 1:].argmax(-1) == right).float().mean() > 0.9


def test_rows_in_which_nothing_is_foreseen_hardly_count_and_do_not_bias() -> None:
    head = NextReward(1, 2, 3, 2, 8)
    told = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])  # two rows: the second action may earn 0.5, nothing may
    action = torch.eye(2)[[0, 1]]
    reward = torch.tensor([1.0, 2.0])
    loss = head.loss(told, action, reward, torch.ones(2))
    torch.testing.assert_close(loss, torch.tensor((0.51 * 1 + 0.01 * 4) / 0.52))
    torch.testing.assert_close(head.loss(told, action, reward, torch.tensor([0.0, 1.0])), torch.tensor(4.0))
    assert head.loss(told, action, reward, torch.zeros(2)) == 0
    # a reward of 1 in one of four: the least error is at its mean
    told = torch.full((4, 3), 0.25, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        head.loss(told * torch.tensor([1.0, 0, 0]), action[[0, 0, 0, 0]], torch.tensor([1.0, 0, 0, 0]), torch.ones(4)),
        told,
    )
    torch.testing.assert_close(gradient.sum(), torch.tensor(0.0))

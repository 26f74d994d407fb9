"""The reward that each action would bring."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.heads import symexp, symlog
from worldmodel.next_reward import CosineSimilarity, NextReward, next_reward_loss, reward_after


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 3))
def test_similarity_is_of_each_token_with_the_most_similar_expected_one(tokens: int, latents: int, seed: int) -> None:
    torch.manual_seed(seed)
    similarity = CosineSimilarity(latents)
    z, expected = torch.randn(2, tokens, latents), torch.randn(2, tokens, latents)
    got = similarity(z, expected)
    part = similarity.WIDTH // similarity.HEADS
    for k in range(similarity.HEADS):
        weight = similarity.embed.weight[k * part : (k + 1) * part]
        for i in range(tokens):
            pairs = [torch.cosine_similarity(z[:, i] @ weight.T, expected[:, j] @ weight.T) for j in range(tokens)]
            torch.testing.assert_close(got[:, i, k], torch.stack(pairs).amax(0))
    same = similarity(z, z.flip(1))
    torch.testing.assert_close(same, torch.ones_like(same))


def test_cosines_find_the_expected_colour_among_four_from_the_reward_of_one_action() -> None:
    """Colours as one-hot latents; memory expects one of them anywhere, four patches show four; 100 batches of 16."""
    torch.manual_seed(0)
    colours, patches = 8, 4
    head = NextReward(patches + 1, 2, colours, patches, 64, cosine_similarity=True)
    optimizer = torch.optim.Adam(head.parameters(), 1e-3)

    def predicted(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        offered = torch.rand(batch, colours).argsort(-1)[:, :patches]
        right, place, rows = torch.randint(patches, (batch,)), torch.randint(patches + 1, (batch,)), torch.arange(batch)
        eye = torch.eye(colours)
        z, expected = torch.zeros(2, batch, patches + 1, colours)
        z[:, :patches], expected[rows, place] = eye[offered], eye[offered[rows, right]]
        return head(torch.zeros(batch, patches + 1, 2), z, expected), right

    for _ in range(100):
        found, right = predicted(16)
        taken = torch.randint(patches, (16,))
        reward = symlog((taken == right).float())
        loss = (reward_after(found, torch.eye(patches)[taken]) - reward).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found, right = predicted(500)
    assert (found[:, 1:].argmax(-1) == right).float().mean() > 0.9


def test_rows_without_a_predicted_reward_hardly_count_and_do_not_bias() -> None:
    rewards = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])  # two rows: the second action may earn 0.5, nothing may
    action = torch.eye(2)[[0, 1]]
    reward = symexp(torch.tensor([1.0, 2.0]))
    loss = next_reward_loss(rewards, action, reward, torch.ones(2))
    torch.testing.assert_close(loss, torch.tensor((0.51 * 1 + 0.01 * 4) / 0.52))
    torch.testing.assert_close(next_reward_loss(rewards, action, reward, torch.tensor([0.0, 1.0])), torch.tensor(4.0))
    assert next_reward_loss(rewards, action, reward, torch.zeros(2)) == 0
    # a reward in one of four: the least error is at its mean
    rewards = torch.full((4, 3), 0.25, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        next_reward_loss(
            rewards * torch.tensor([1.0, 0, 0]),
            action[[0, 0, 0, 0]],
            symexp(torch.tensor([1.0, 0, 0, 0])),
            torch.ones(4),
        ),
        rewards,
    )
    torch.testing.assert_close(gradient.sum(), torch.tensor(0.0))

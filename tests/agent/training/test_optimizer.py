"""LaProp and adaptive clipping against their formulas."""

from copy import deepcopy

import torch

from agent.training.optimizer import LaProp, clip_each


def test_laprop_is_its_formula():
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(3, dtype=torch.float64))
    optimizer = LaProp([parameter], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    want, m, v = parameter.detach().clone(), torch.zeros(3).double(), torch.zeros(3).double()
    for t in range(1, 6):
        gradient = torch.randn(3, dtype=torch.float64)
        parameter.grad = gradient.clone()
        optimizer.step()
        v = 0.99 * v + 0.01 * gradient**2
        m = 0.9 * m + 0.1 * gradient / ((v / (1 - 0.99**t)).sqrt() + 1e-8)
        want = want - 0.1 * m / (1 - 0.9**t)
        torch.testing.assert_close(parameter.detach(), want)


def test_a_restored_laprop_goes_on():
    def made() -> tuple[torch.nn.Parameter, LaProp]:
        parameter = torch.nn.Parameter(torch.ones(2))
        return parameter, LaProp([parameter], lr=0.1)

    def step(parameter: torch.nn.Parameter, optimizer: LaProp, gradient: float) -> None:
        parameter.grad = torch.full((2,), gradient)
        optimizer.step()

    first, optimizer = made()
    step(first, optimizer, 1.0)
    second, other = made()
    second.data.copy_(first.data)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    for parameter, stepped in ((first, optimizer), (second, other)):
        step(parameter, stepped, -3.0)
    torch.testing.assert_close(first, second)


def test_each_gradient_is_clipped_by_its_own_parameter():
    large, small, zero = (torch.nn.Parameter(torch.tensor(x)) for x in ([30.0, 40.0], [3.0, 4.0], [0.0, 0.0]))
    for parameter in (large, small, zero):
        parameter.grad = torch.tensor([3.0, 4.0])
    clip_each([large, small, zero], 0.3)
    torch.testing.assert_close(large.grad, torch.tensor([3.0, 4.0]))  # 5 of 15 that are allowed
    torch.testing.assert_close(small.grad, torch.tensor([0.9, 1.2]))  # 1.5
    torch.testing.assert_close(zero.grad, torch.tensor([0.6, 0.8]) * 3e-4)

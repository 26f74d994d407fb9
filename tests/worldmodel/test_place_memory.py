"""The memory of places: its path integration and its reads against loops by hand, and what its search finds."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel import place_search
from worldmodel.place_memory import Integrator, PlaceMemory, integrate
from worldmodel.place_search import search, teach_places
from worldmodel.pretraining import LatentWindows

TOKENS, WIDTH, ACTIONS = 2, 4, 3


def memory(heads: int = 2, values: int = 8, d_k: int = 32) -> PlaceMemory:
    """In float64, its integrator shaken so that past actions matter."""
    torch.manual_seed(0)
    places = PlaceMemory(TOKENS, WIDTH, ACTIONS, heads, d_k, values).double()
    torch.nn.init.normal_(places.integrator.out.weight, std=0.1)
    torch.nn.init.normal_(places.beta.weight, std=0.3)
    torch.nn.init.normal_(places.mix, std=0.5)
    torch.nn.init.normal_(places.correction[-1].weight, std=0.3)
    return places


def one_hot(indices: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(indices), ACTIONS).double()


def test_poses_are_summed_along_the_heading_before_each_turn() -> None:
    torch.manual_seed(0)
    motion, start = torch.randn(2, 9, 3).double(), torch.randn(2, 3).double()
    first = torch.zeros(2, 9, dtype=torch.bool)
    first[0, 4] = first[1, 0] = first[1, 7] = True
    found = integrate(motion, start, first)
    for b in range(2):
        x, y, heading = start[b].tolist()
        for t in range(9):
            forward, sideways, turn = motion[b, t].tolist()
            if first[b, t]:
                x = y = heading = 0.0
            else:
                x += forward * math.cos(heading) - sideways * math.sin(heading)
                y += forward * math.sin(heading) + sideways * math.cos(heading)
                heading += turn
            np.testing.assert_allclose(found[b, t].numpy(), [x, y, heading], atol=1e-12)


def test_what_is_read_is_that_of_a_loop_by_hand() -> None:
    places = memory()
    T, reset_at, hidden = 12, 5, {3, 8}
    z = torch.randn(1, T, TOKENS, WIDTH).double()
    for t in (0, reset_at, *hidden):
        z[:, t] = 0
    action = one_hot(np.random.default_rng(0).integers(ACTIONS, size=T).tolist()).unsqueeze(0)
    reset = torch.zeros(1, T, dtype=torch.bool)
    reset[0, 0] = reset[0, reset_at] = True
    action[reset] = 0
    with torch.no_grad():
        found, expected, memories = places(z, action, places.initial(1), reset, T)

        window = places.integrator.window
        S, pose = torch.zeros(places.heads, places.d_k, places.values + 1).double(), torch.zeros(3).double()
        past, total, count = torch.zeros(window, ACTIONS).double(), torch.zeros(places.frame).double(), 0
        for t in range(T):
            frame = z[0, t].flatten()
            if reset[0, t]:
                S, pose, total, count = torch.zeros_like(S), torch.zeros_like(pose), torch.zeros_like(total), 0
                past = torch.zeros_like(past)
            if frame.any():  # written at the pose of the frame before
                total, count = total + frame, count + 1
                beta = places.beta(frame).sigmoid()
                value = torch.cat([places.value(frame), torch.ones(1).double()])
                for h, key in enumerate(unit(places.keys(pose[None, None])[0, 0])):
                    S[h] += beta[h] * torch.outer(key, value - S[h].T @ key)
            past = torch.cat([past[1:], action[0, t : t + 1]])
            if not reset[0, t]:
                forward, sideways, turn = places.integrator(past[None])[0, 0]
                cos, sin = pose[2].cos(), pose[2].sin()
                x, y = pose[0] + forward * cos - sideways * sin, pose[1] + forward * sin + sideways * cos
                pose = torch.stack([x, y, pose[2] + turn])
            mean = total / max(count, 1)
            reads, ones, guess = [], [], torch.zeros(places.values).double()
            for h, query in enumerate(unit(places.keys(pose[None, None])[0, 0])):
                read = S[h].T @ query
                reads.append(read[:-1] - read[-1] * places.value(mean))
                ones.append(read[-1:])
                guess += places.mix[h] * reads[h]
                torch.testing.assert_close(found[0, t, 0, -2 - places.heads + h], read[-1])
            heading = torch.stack([pose[2].cos(), pose[2].sin()])
            guess += places.correction(torch.cat([*reads, *ones, places.value(mean), heading]))
            torch.testing.assert_close(expected[0, t].flatten(), mean + places.unvalue(guess))
            torch.testing.assert_close(found[0, t, 1, (places.heads + 1) * WIDTH : -2 - places.heads], mean[WIDTH:])
    torch.testing.assert_close(memories["pose"][0, 0], pose)
    torch.testing.assert_close(memories["fast_weights"][0, 0], S)


def unit(keys: Tensor) -> Tensor:
    return torch.nn.functional.normalize(keys, dim=-1)


def test_a_place_come_back_to_reads_what_was_written_there() -> None:
    """Forward, back, at full strength: the frame of the start is expected again, and the mean where nothing was."""
    places = memory(heads=1, values=TOKENS * WIDTH, d_k=256)
    with torch.no_grad():
        places.integrator.out.weight.zero_()
        places.integrator.linear.weight.copy_(torch.tensor([[4.0, -4.0, 60.0], [0, 0, 0], [0, 0, 0]]))
        places.beta.weight.zero_()
        places.beta.bias.fill_(50.0)
        places.mix.fill_(1.0)
        places.correction[-1].weight.zero_()
        z = torch.randn(1, 4, TOKENS, WIDTH).double()
        z[:, 0] = 0
        action = torch.cat([torch.zeros(1, ACTIONS).double(), one_hot([0, 1, 2])]).unsqueeze(0)
        reset = torch.tensor([[True, False, False, False]])
        expected = places(z, action, places.initial(1), reset, 4)[1]
        torch.testing.assert_close(expected[0, 2], z[0, 1], atol=0.3, rtol=0)  # at the start again
        mean = z[0, 1:4].mean(0)  # far away
        assert (expected[0, 3] - mean).square().mean() < 0.1 * mean.square().mean()


def world(sequences: int, rows: int, turn: float) -> LatentWindows:
    """Frames that show where one stands and looks: random Fourier features of a pose that actions move."""
    rng = np.random.default_rng(0)
    taken = np.repeat(rng.choice(3, p=[0.1, 0.45, 0.45], size=(sequences, rows)), 2, axis=1)[:, :rows]
    motion = np.array([[0.25, 0, 0], [0, 0, turn], [0, 0, -turn]])[taken]
    motion[:, 0] = 0
    first = torch.zeros(sequences, rows, dtype=torch.bool)
    first[:, 0] = True
    pose = integrate(torch.tensor(motion).float(), torch.zeros(sequences, 3), first)
    u = torch.cat([pose[..., :2] * 1.5, pose[..., 2:].cos() * 2, pose[..., 2:].sin() * 2], -1)
    weight = torch.tensor(rng.standard_normal((4, 16))).float()
    z = (u @ weight + torch.tensor(rng.uniform(0, 6, (sequences, 1, 16))).float()).cos()
    action = torch.nn.functional.one_hot(torch.tensor(taken), 3).float()
    action[:, 0] = 0
    return LatentWindows(z, action, first)


def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer hypotheses, windows and updates."""
    monkeypatch.setattr(place_search, "HYPOTHESES", 8)
    monkeypatch.setattr(place_search, "ROWS", 512)
    monkeypatch.setattr(place_search, "STAGES", ((32, 8, 1.0, 80), (64, 2, 0.7, 60)))


def test_the_search_finds_how_far_an_action_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    windows = world(16, 128, turn=0.35)
    quicker(monkeypatch)
    components = place_search.principal_components(windows.z, 16)
    lines: list[str] = []
    weights = search(windows, components, Integrator(3), lines.append)
    integrator = Integrator(3)
    integrator.load_state_dict(weights)
    held = torch.eye(3).repeat_interleave(6, 0).view(3, 6, 3)
    forward, left, right = integrator(held)[:, 0]
    assert len(lines) == 2
    np.testing.assert_allclose([abs(left[2].item()), abs(right[2].item())], 0.35, rtol=0.15)
    assert left[2] * right[2] < 0
    assert abs(forward[2]) < 0.1


def test_a_place_memory_taught_alone_expects_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    windows = world(16, 128, turn=0.35)
    quicker(monkeypatch)
    monkeypatch.setattr(place_search, "GROWTH", ((64, 1.0),))
    monkeypatch.setattr(place_search, "TOGETHER_ROWS", 1024)
    places = PlaceMemory(4, 4, 3, heads=2, d_k=64, values=16)
    teach_places(places, windows, 100, lambda line: None)
    with torch.no_grad():
        error, _ = place_search.prediction_error(places, *windows.draw(64, 64))
    assert error < 0.8 * float(windows.z.var())  # the context's mean alone leaves nearly all of it


def test_episodes_too_short_for_the_search_leave_the_memory_as_it_was() -> None:
    windows = world(4, 40, turn=0.35)
    places = PlaceMemory(4, 4, 3, heads=2, d_k=16, values=16)
    before = {name: p.clone() for name, p in places.state_dict().items()}
    lines: list[str] = []
    teach_places(places, windows, 10, lines.append)
    assert len(lines) == 1 and "no episode has 64 frames" in lines[0]
    for name, p in places.state_dict().items():
        torch.testing.assert_close(p, before[name], atol=0, rtol=0)


def test_windows_hold_one_episode_each() -> None:
    first = torch.zeros(2, 20, dtype=torch.bool)
    first[0, 0] = first[0, 7] = first[1, 12] = True
    episode = first.cumsum(1) + torch.tensor([[0], [10]])
    windows = LatentWindows(episode.float().unsqueeze(-1), torch.ones(2, 20, 1), first)
    assert [windows.count(n) for n in (20, 13, 12, 1)] == [0, 1, 3, 40]
    for frames in (1, 5, 12):
        z, action = windows.draw(50, frames)
        assert (z == z[:, :1]).all()
        assert not action[:, 0].any() and action[:, 1:].all()

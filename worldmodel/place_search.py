"""How a place memory finds its integrator: by a search over hypotheses on short windows, then together with its keys.

What a memory retrieves tells how well an integrator sums motion: frames of the first half of a window are stored at
their poses, and those of the second half are read at theirs. As a function of the scale of turns this error has many
minima in long windows, and one wide basin in short ones: so hypotheses that differ in that scale are trained side by
side on short windows, the best go on to longer ones, and the best of all is the integrator that gradients then improve.

Letters: M hypotheses, B sequences, T rows, C of them stored, F numbers of a frame, V of its principal components, d_k
width of a key.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, stack_module_state

from worldmodel.place_memory import Integrator, PlaceKeys, PlaceMemory, integrate
from worldmodel.pretraining import LatentWindows, Report

HYPOTHESES = 16
TURNS = 0.1, 0.6
"""Scale of turns, in radians a step, that hypotheses begin with: the smallest, the largest."""
STEP = 0.2
"""Scale of their steps; it has no truth, since keys have length scales of their own."""
STAGES = ((32, 16, 1.0, 250), (64, 16, 1.0, 250), (128, 4, 0.7, 300), (256, 2, 0.2, 400), (512, 2, 0.05, 400))
"""Frames of a window, hypotheses kept, factor of the learning rate, updates."""
ROWS = 1024
"""Rows of a batch of one hypothesis, with all of them."""
CANDIDATES = 4
"""Windows drawn for each that is used, in the search: those whose second half most resembles frames of the first."""
CHECKS = 8
"""Batches on which hypotheses before and after a stage are compared."""
COMPONENTS = 32
"""Principal components of frames that are stored in the search."""
BETA = 0.9
"""Strength of writes in the search."""

GROWTH = ((128, 0.2), (256, 0.2), (512, 0.6))
"""Frames of windows after the search, and their share of updates."""
TOGETHER_ROWS = 8192
NOISE = 0.05
"""Deviation of the noise on latents that are stored."""


def teach_places(places: PlaceMemory, windows: LatentWindows, updates: int, report: Report) -> None:
    """The search, then `updates` of the whole place memory; leaves it as it was where no window is long enough.

    Its parameters need no gradient before nor after: a step of an optimiser that goes on for long moves each weight by
    about its learning rate, and errors of 0.001 rad in each turn add up to half a radian in 500.
    """
    if not windows.count(2 * STAGES[0][0]):
        report(f"places: no episode has {2 * STAGES[0][0]} frames, so no search for an integrator")
        return
    components = principal_components(windows.z, places.values)
    with torch.no_grad():
        places.value.weight.copy_(components.T)
        places.unvalue.weight.copy_(components)
    with torch.autocast(windows.z.device.type, enabled=False):
        integrator = search(windows, components[:, :COMPONENTS], places.integrator, report)
        places.integrator.load_state_dict(integrator)
        places.requires_grad_(True)
        fit(places, windows, updates, report)
        places.requires_grad_(False)


def principal_components(z: Tensor, count: int) -> Tensor:
    """(S, L, F) -> (F, count), those of largest variance first."""
    flat = z.flatten(0, 1)[:: max(1, z.shape[0] * z.shape[1] // 8192)].float()
    flat = flat - flat.mean(0)
    return torch.linalg.eigh(flat.T @ flat / len(flat))[1].flip(1)[:, :count].contiguous()


def search(windows: LatentWindows, components: Tensor, like: Integrator, report: Report) -> dict[str, Tensor]:
    """The weights of the best integrator found; `like` is one of the same sizes."""
    actions = windows.action.shape[-1]
    device = components.device
    bank = [Integrator(actions, like.window, like.hidden.out_features).to(device) for _ in range(HYPOTHESES)]
    turns = torch.logspace(math.log10(TURNS[0]), math.log10(TURNS[1]), HYPOTHESES)
    for integrator, turn in zip(bank, turns, strict=True):
        with torch.no_grad():
            weight = integrator.linear.weight
            weight.normal_()
            weight.div_(weight.square().mean(1, keepdim=True).sqrt())
            weight.mul_(torch.tensor([[STEP], [STEP], [float(turn)]], device=device))
    weights = stack_module_state(bank)[0]
    keys = PlaceKeys(1, 64).to(device).requires_grad_(False)
    error = torch.zeros(HYPOTHESES)
    for frames, kept, factor, updates in STAGES:
        if not windows.count(frames):
            break
        best = error.argsort()[:kept]
        begun = {name: w.detach()[best] for name, w in weights.items()}
        weights = {name: w.clone().requires_grad_(True) for name, w in begun.items()}
        optimizer = torch.optim.Adam(
            [
                {"params": [w for name, w in weights.items() if name.startswith("linear")], "lr": 1e-2},
                {"params": [w for name, w in weights.items() if not name.startswith("linear")], "lr": 2e-3},
            ],
            betas=(0.9, 0.98),
        )
        rates = [group["lr"] * factor for group in optimizer.param_groups]

        def draw(frames: int = frames, kept: int = kept) -> tuple[Tensor, Tensor]:
            z, action = returning(windows, components, ROWS * HYPOTHESES // kept // frames, frames)
            return z @ components, action

        for update in range(updates):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - 0.9 * update / updates)
            found, speed = _retrieval_errors(bank[0], weights, keys, *draw())
            optimizer.zero_grad()
            (found + 0.02 * speed).sum().backward()
            for w in weights.values():  # each hypothesis as if it were alone
                assert w.grad is not None
                norm = w.grad.flatten(1).norm(dim=1).clamp_min(1.0)
                w.grad.div_(norm.view(-1, *[1] * (w.ndim - 1)))
            optimizer.step()

        with torch.no_grad():  # one that a stage has made worse goes on as it was: long windows have cliffs
            held = [draw() for _ in range(CHECKS)]
            before, after = (
                torch.stack([_retrieval_errors(bank[0], w, keys, *batch)[0] for batch in held]).mean(0)
                for w in (begun, weights)
            )
            better = after < before
            weights = {n: torch.where(better.view(-1, *[1] * (w.ndim - 1)), w, begun[n]) for n, w in weights.items()}
            error = torch.minimum(before, after).cpu()
        named = " ".join(f"{e:.3f}" for e in error.sort().values.tolist())
        report(f"places: search at {frames} frames, errors of {kept} hypotheses: {named}")
    winner = int(error.argmin())
    return {name: w[winner] for name, w in weights.items()}


def returning(windows: LatentWindows, components: Tensor, sequences: int, frames: int) -> tuple[Tensor, Tensor]:
    """z (sequences, frames, F) and actions (sequences, frames, A) of windows in which what was seen comes again.

    Of `CANDIDATES` times as many, those whose frames of the second half are nearest to frames of the first, relative
    to their distance from its mean.
    """
    z, action = windows.draw(CANDIDATES * sequences, frames)
    early, late = (z @ components).split([frames // 2, frames - frames // 2], 1)
    nearest = torch.cdist(late, early).amin(-1).square().mean(-1)
    spread = (late - early.mean(1, keepdim=True)).square().sum(-1).mean(-1)
    best = (nearest / spread.clamp_min(1e-8)).argsort()[:sequences]
    return z[best], action[best]


def _retrieval_errors(
    like: Integrator, weights: dict[str, Tensor], keys: PlaceKeys, z: Tensor, action: Tensor
) -> tuple[Tensor, Tensor]:
    """Of each hypothesis (M,): the error of reading the second half of z (B, T, V), and the mean square of its steps.

    Reads are linear, least squares over what was stored, as the delta rule has it.
    """
    padded = _padded(action, like)
    motion = torch.vmap(lambda w: functional_call(like, w, (padded,)))(weights)  # (M, B, T, 3)
    M, B, T = motion.shape[:3]
    first = torch.zeros(M * B, T, dtype=torch.bool, device=z.device)
    first[:, 0] = True
    pose = integrate(motion.flatten(0, 1), motion.new_zeros(M * B, 3), first)
    key = F.normalize(keys(pose).squeeze(2), dim=-1).unflatten(0, (M, B))  # (M, B, T, d_k)
    C = T // 2
    stored, queries = key[:, :, :C], key[:, :, C:]
    mean = z[:, :C].mean(1, keepdim=True)
    system = torch.tril(BETA * (stored @ stored.mT), -1) + torch.eye(C, device=z.device)
    values = (BETA * (z[:, :C] - mean)).expand(M, -1, -1, -1)
    written = torch.linalg.solve_triangular(system, values, upper=False, unitriangular=True)
    read = mean + queries @ (stored.mT @ written)
    return (read - z[:, C:]).square().mean((1, 2, 3)), motion[..., :2].square().sum(-1).mean((1, 2))


def fit(places: PlaceMemory, windows: LatentWindows, updates: int, report: Report) -> None:
    """Trains integrator, keys, values and read-out together, on frames that follow a prefix of each window unseen."""
    keys, integrator = list(places.keys.parameters()), list(places.integrator.parameters())
    apart = {id(p) for p in [*keys, *integrator]}
    rest = [p for p in places.parameters() if id(p) not in apart]
    groups = [{"params": rest, "lr": 1e-3}, {"params": keys, "lr": 3e-3}, {"params": integrator, "lr": 5e-4}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    rates = [float(str(group["lr"])) for group in groups]
    lengths = [frames for frames, share in GROWTH for _ in range(round(share * updates)) if windows.count(frames)]
    errors: list[float] = []
    for update, frames in enumerate(lengths):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1, (update + 1) / 30) * (1 - 0.95 * update / len(lengths))
        loss, speed = prediction_error(places, *windows.draw(TOGETHER_ROWS // frames, frames))
        optimizer.zero_grad()
        (loss + 0.003 * speed).backward()
        for group in optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 0.3)
        optimizer.step()
        errors.append(loss.item())
        if update + 1 == len(lengths) or lengths[update + 1] != frames:
            recent = errors[-30:]
            report(f"places: {update + 1} updates, windows of {frames}, error {sum(recent) / len(recent):.4f}")
    for parameter in places.parameters():
        parameter.grad = None


def prediction_error(places: PlaceMemory, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of the frames after a random prefix, z (B, T, F), and the mean square of steps."""
    B, T, _ = z.shape
    prefix = int(torch.randint(T // 4, 3 * T // 4 + 1, ()))
    reset = torch.zeros(B, T, dtype=torch.bool, device=z.device)
    reset[:, 0] = True
    seen = z + NOISE * torch.randn_like(z)
    seen[:, prefix:] = 0
    before = F.pad(seen[:, :-1], (0, 0, 1, 0)).unflatten(-1, (places.tokens, -1))
    expected = places(before, action, places.initial(B), reset, T)[1].flatten(-2)
    motion = places.integrator(_padded(action, places.integrator))
    return (expected - z)[:, prefix:].square().mean(), motion[..., :2].square().sum(-1).mean()


def _padded(action: Tensor, integrator: Integrator) -> Tensor:
    """Actions (B, T, A) behind those that no episode has: (B, W - 1 + T, A)"""
    return F.pad(action, (0, 0, integrator.window - 1, 0))

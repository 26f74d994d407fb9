"""A tour of the toolkit, cell by cell (`# %%`: VS Code, Spyder and jupytext run them one at a time; Python runs all).

    python examples/quick_tour.py
    UPDATES=2000 python examples/quick_tour.py     # minutes, and sharper pictures

It takes about half a minute on one core. Everything is small, so that what is learnt is a beginning: beside each size
stands what to raise. The commands of the README do the same at full length, with evaluation, resuming and videos.
"""

# %% [markdown]
# An environment is a name. In this one a coloured square is shown, is gone for some frames, and comes back where it
# was; before it does, choosing the patch of its colour gives reward 1. To predict either takes memory. Options follow
# the colon; any other environment with pictures, `MemoryMaze` say, would do in its place.

# %%
import os
import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch

import envs
import worldmodel
from agent.actor_critic import ActorCritic, ActorCriticConfig
from agent.runs import checkpoint
from replay import Episode, EpisodeBuilder, Replay, SequenceSampler
from worldmodel import ObserveOutput, SequenceBatch, WorldModel
from worldmodel.rollout import dream

torch.manual_seed(0)
folder = Path("runs/quick-tour")
environment = envs.make("ObjectRecall-Choice:size=32,delay=4")  # for a real test of memory: delay=4..50
shape, actions = environment.observation_space.shape, int(environment.action_space.n)
print(f"frames {shape}, {actions} actions")

# %% [markdown]
# Experience: episodes of random actions. A row is an action and all that came of it, so row 0, the reset's, has none.
# (`python -m replay.collect` does this in several processes.)


# %%
def play_randomly(seed: int) -> Episode:
    builder = EpisodeBuilder(actions)
    builder.first(environment.reset(seed=seed)[0])
    random, over = np.random.default_rng(seed), False
    while not over:
        action = int(random.integers(actions))
        frame, reward, terminated, truncated, _ = environment.step(action)
        builder.add(action, frame, float(reward), terminated)
        over = terminated or truncated
    return builder.finish()


shutil.rmtree(folder / "episodes", ignore_errors=True)  # an earlier tour's, perhaps of another environment
replay = Replay(folder / "episodes", capacity_steps=10_000)
for seed in range(40):  # thousands, where nothing but learning is wanted of them
    replay.add(play_randomly(seed))
print(f"{len(replay)} episodes of {len(replay.get(replay.names()[0]))} rows")

# %% [markdown]
# A world model: a name and its options (on the command line `--worldmodel.d_model 32`). All have one interface, the ten
# methods in `worldmodel/base.py`, whatever memory is inside.

# %%
SIZES: dict[str, float] = dict(width=32, layers=2, latents=64, classes=8, units=32, state=16, state_interval=4)
SIZES |= dict(tokenizer_width=64, tokenizer_layers=1, detach_latents=True)  # preset cpu: 128 wide, 4 layers
SIZES |= dict(reconstruction_scale=30.0, dynamics_scale=3.0)


def make(name: str, **options: float) -> WorldModel:
    return worldmodel.make(worldmodel.find(name)[1](**options), shape, actions)


model = make("lssvwm", **SIZES)
print(f"lssvwm: {sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# It learns from windows. Eight walkers go through the episodes, and the State in which one window ends is where the
# next begins: memory reaches further back than a window does. Gradients stop between the two.


# %%
def rows_of(arrays: dict[str, np.ndarray]) -> SequenceBatch:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return SequenceBatch(**tensors, batch_size=tensors["reward"].shape)


def train_offline(model: WorldModel, updates: int) -> tuple[SequenceBatch, ObserveOutput]:
    """The last window, and its output: a feature of each frame, and States that dreams can start from."""
    walkers, state = SequenceSampler(replay, batch=8, seed=0), model.initial(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)  # 4e-4 for longer training
    for update in range(1, updates + 1):
        window = rows_of(walkers.next(frames=12))
        losses, output, _ = model.loss(window, state)
        optimizer.zero_grad()
        worldmodel.total(losses, model.loss_scales()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1_000)
        optimizer.step()
        state = output.last_state.detach()
        if update % 30 == 0 or update == updates:
            some = ("reconstruction", "dynamics", "reward")
            print(f"update {update:4d}  " + "  ".join(f"{name} {losses[name].item():.3f}" for name in some))
    return window, output


UPDATES = int(os.environ.get("UPDATES", 150))  # tens of thousands
window, output = train_offline(model, UPDATES)

# %% [markdown]
# Observing an episode that it was not taught. Memory is in the State and nowhere else: in two parts, the State handed
# on, frames have the features that they have in one go.

# %%
model.eval()
episode = play_randomly(seed=1_000)
columns = ("observation", "action", "reward", "terminated")
arrays = {name: getattr(episode, name)[None] for name in columns}  # (1, L, ...): a batch of one
rows = rows_of(arrays | {"is_first": np.arange(len(episode))[None] == 0})
SEEN = 7  # six with the object, one without it

with torch.no_grad():
    whole = model.observe(rows, model.initial(1), sample=False)  # mode: the most likely latents, not a sample
    seen = model.observe(rows[:, :SEEN], model.initial(1), sample=False)
    rest = model.observe(rows[:, SEEN:], seen.last_state, sample=False)
    apart = (torch.cat([seen.feature, rest.feature], 1) - whole.feature).abs().max()
    print(f"features in two parts and in one are {apart:.0e} apart")
    nats = model.kl(rows, model.initial(1))[0]  # how little memory knew of each frame
    print("surprise by frame, nats: " + " ".join(f"{value:.0f}" for value in nats))

# %% [markdown]
# Dreaming: from the State after the frames seen, under the actions that were taken, with no more frames coming in. A
# State is never changed in place, so that many dreams can begin in one. So early the square is seen, but not yet
# remembered: docs/results/memory.md shows what 1,800 updates of a larger model come to.

# %%
with torch.no_grad():
    state, imagined = seen.last_state, []
    for t in range(SEEN, len(episode)):
        state = model.dream(state, rows.action[:, t], sample=False)
        imagined.append(model.decode(model.feature(state))[0])
        print(f"frame {t}: reward {model.reward(model.feature(state)).item():+.2f}, it was {episode.reward[t]:+.0f}")
    told = model.decode(seen.feature)[0]  # what it makes of frames that it sees

truth = rows.observation[0].float() / 255
strip = torch.cat([torch.cat(list(frames), 1) for frames in (truth, torch.cat([told, torch.stack(imagined)]))])
picture = (strip.clamp(0, 1) * 255).byte().numpy().repeat(3, 0).repeat(3, 1)
imageio.imwrite(folder / "dream.png", picture)
print(f"{folder / 'dream.png'}: above the truth, below {SEEN} frames seen and {len(imagined)} imagined")

# %% [markdown]
# An agent learns in dreams: from States all over the last window its policy acts in the model for some frames, and
# learns from the rewards predicted there. (`agent.training.learner.Learner.update` is this and `teach`, one after the other.)

# %%
agent = ActorCritic(ActorCriticConfig(hidden=32, layers=1), model.tokens, model.feature_width, actions)
optimizer = torch.optim.AdamW(agent.parameters(), lr=3e-4)
starts = output.start_states.detach().reshape(-1)  # 8 walkers x 3 States
alive = torch.ones(len(starts), dtype=torch.bool)
for _ in range(5):  # one for each of the model's updates
    dreams = dream(model, agent.act, starts, alive, horizon=5)  # 15
    losses, figures = agent.loss(dreams, output.feature.detach(), window)
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    agent.update_slow_critic()
print(f"{len(starts)} dreams of 5 frames: mean return {figures['return']:.3f}, entropy {figures['entropy']:.2f} nats")

# %% [markdown]
# Acting in the real environment: the world model takes each frame into its State, the policy reads the feature.

# %%
frame, _ = environment.reset(seed=2_000)
state, action, is_first, total, over = model.initial(1), torch.zeros(1, actions), True, 0.0, False
while not over:
    arrays = {
        "observation": frame[None, None],
        "action": action[:, None].numpy(),
        "reward": np.zeros((1, 1), np.float32),
        "is_first": np.array([[is_first]]),
        "terminated": np.array([[False]]),
    }
    with torch.no_grad():
        now = model.observe(rows_of(arrays), state)
        state, action, is_first = now.final, agent.act(now.feature[:, 0]), False
    frame, reward, terminated, truncated, _ = environment.step(int(action.argmax()))
    total, over = total + float(reward), terminated or truncated
print(f"one real episode: return {total:.0f}")

# %% [markdown]
# Another world model is another name, and nothing else changes. These have memories of other kinds: one scan over all
# tokens (Mamba-2), attention, DreamerV3's GRU. `python -m eval.ablate` trains and compares them in earnest.

# %%
for name, options in {"mamba": SIZES, "transformer": SIZES, "rssm": dict(hidden=16, state_interval=4)}.items():
    print(name)
    train_offline(make(name, **options), updates=2)

# %% [markdown]
# Saving and loading: safetensors and JSON, in which no code hides. `agent.runs.load.load_run(folder)` loads a whole run.

# %%
checkpoint.save(folder / "checkpoints", UPDATES, dict(model.state_dict()), {"sizes": SIZES}, keep=1)
found = checkpoint.load_latest(folder / "checkpoints")
assert found is not None
update, tensors, meta = found
again = make("lssvwm", **meta["sizes"]).eval()
again.load_state_dict(tensors)
with torch.no_grad():
    same = torch.equal(again.observe(rows, again.initial(1), sample=False).feature, whole.feature)
print(f"loaded from update {update}: the same features, {same}")

# %% [markdown]
# From here: `python train_agent.py --env MemoryMaze` trains both at length (README), `python -m eval.play RUN` lets you
# walk through what the model dreams, docs/how_it_works.md tells what is inside.

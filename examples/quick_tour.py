"""A tour of the toolkit, cell by cell (`# %%`: VS Code, Spyder and jupytext run them one at a time; Python runs all).

    python examples/quick_tour.py
    UPDATES=2000 python examples/quick_tour.py     # minutes, and sharper images

It takes about half a minute on one core. Everything is small: comments beside sizes say what to raise. The commands of
the README do the same at full length, with evaluation, resuming and videos.
"""

# %% [markdown]
# An environment is a name. In this one a coloured square is shown, disappears for some frames, and comes back where it
# was; before it does, choosing the patch of its colour gives reward 1. Predicting either takes memory. Options follow
# the colon; any other environment with images and discrete actions, such as `MemoryMaze`, works too.

# %%
import os
import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch

import envs
import worldmodel
from agent.actor import WorldModelPolicy
from agent.actor_critic import ActorCritic, ActorCriticConfig
from agent.runs import checkpoint
from envs.policies import RandomPolicy
from replay import Replay, SequenceSampler
from replay.env_loop import EnvLoop
from worldmodel import ObserveOutput, SequenceBatch, WorldModel
from worldmodel.rollout import imagine, observe_episode

torch.manual_seed(0)
folder = Path("runs/quick-tour")
environments = envs.make_vector("ObjectRecall-Choice:size=32,delay=4", 4)  # a test of memory: delay=4..50
shape, actions = environments.single_observation_space.shape, int(environments.single_action_space.n)
print(f"frames {shape}, {actions} actions")

# %% [markdown]
# Experience: episodes of random actions. A row is an action and what followed it, so row 0, the reset's, has none.
# (`python -m replay.collect` does this in several processes.)

# %%
shutil.rmtree(folder / "episodes", ignore_errors=True)  # of an earlier tour, perhaps in another environment
replay = Replay(folder / "episodes", capacity_steps=10_000)
random = RandomPolicy(actions, seed=0)
for ended in EnvLoop(environments, actions, seed=0, record=True).episodes(random, 40):  # thousands
    replay.add(ended.episode)
print(f"{len(replay)} episodes of {len(replay.get(replay.names()[0]))} rows")

# %% [markdown]
# A world model: a name and its options (on the command line `--worldmodel.d-model 32`). All have one interface,
# `worldmodel/base.py`, whatever memory is inside.

# %%
SIZES = dict(d_model=32, layers=2, num_categoricals=64, num_classes=8, hidden=32, d_state=16, state_interval=4)
SIZES |= dict(tokenizer_width=64, tokenizer_layers=1, detach_latents=True)  # preset cpu: 128 wide, 2 layers
SCALES = dict(reconstruction_scale=30.0, dynamics_scale=3.0)


def make(name: str, **options: float) -> WorldModel:
    return worldmodel.make(worldmodel.find(name)[1](**options), shape, actions)


model = make("lssvwm", **SIZES, **SCALES)
print(f"lssvwm: {sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# Training. Eight sequences go through the episodes window by window, and the State after one window is the State before
# the next: memory reaches further back than a window. Gradients stop between the two.


# %%
def to_batch(arrays: dict[str, np.ndarray]) -> SequenceBatch:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return SequenceBatch(**tensors, batch_size=tensors["reward"].shape)


def train(model: WorldModel, updates: int) -> tuple[SequenceBatch, ObserveOutput]:
    """The last batch, and its output: a feature of each frame, and States that imagination can start from."""
    sampler = SequenceSampler(replay, batch=8, seed=0, initial=model.initial)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)  # 4e-4 for longer training
    for update in range(1, updates + 1):
        arrays, state = sampler.next(frames=12)
        batch = to_batch(arrays)
        losses, output, _ = model.loss(batch, state)
        optimizer.zero_grad()
        worldmodel.total(losses, model.loss_scales()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1_000)
        optimizer.step()
        sampler.carry(output.last_state.detach())
        if update % 30 == 0 or update == updates:
            some = ("reconstruction", "dynamics", "reward")
            print(f"update {update:4d}  " + "  ".join(f"{name} {losses[name].item():.3f}" for name in some))
    return batch, output


UPDATES = int(os.environ.get("UPDATES", 150))  # tens of thousands
batch, output = train(model, UPDATES)

# %% [markdown]
# Observing an episode that was not trained on. Memory is in the State and nowhere else: in windows, the State carried
# from one to the next, frames have the same features as in one go.

# %%
model.eval()
[ended] = EnvLoop(environments, actions, seed=1_000, record=True).episodes(random, 1)
episode = ended.episode
columns = ("observation", "action", "reward", "terminated")
arrays = {name: getattr(episode, name)[None] for name in columns}  # (1, T, ...): a batch of one
sequence = to_batch(arrays | {"is_first": np.arange(len(episode))[None] == 0})
SEEN = 7  # six frames with the object, one without it

with torch.no_grad():
    whole = model.observe(sequence, model.initial(1), sample=False)  # the most likely latents
    windows = observe_episode(model, sequence, model.initial(1), window=5, sample=False)
    print(f"features in windows and in one go are {(windows.feature - whole.feature).abs().max():.0e} apart")
    nats = model.kl(sequence, model.initial(1))[0]  # high where memory did not predict the frame
    print("KL by frame, nats: " + " ".join(f"{value:.0f}" for value in nats))

# %% [markdown]
# Imagination: from the State after the frames seen, under the episode's actions, without further frames. A State is
# never changed in place, so many rollouts can start from one. After so little training the square is reproduced but not
# yet remembered: docs/results/memory.md shows longer training.

# %%
with torch.no_grad():
    seen = model.observe(sequence[:, :SEEN], model.initial(1), sample=False)
    future = sequence.action[:, SEEN:].transpose(0, 1)  # (H, 1, A)
    imagined = imagine(model, seen.last_state, future, len(future), sample=False, decode=True)
    reconstructed = model.decode(seen.feature)[0]
for t, reward in enumerate(imagined.reward[:, 0].tolist(), SEEN):
    print(f"frame {t}: reward {reward:+.2f}, it was {episode.reward[t]:+.0f}")

truth = sequence.observation[0].float() / 255
rows = (truth, torch.cat([reconstructed, imagined.observation[:, 0]]))
strip = torch.cat([torch.cat(list(frames), 1) for frames in rows])
image = (strip.clamp(0, 1) * 255).byte().numpy().repeat(3, 0).repeat(3, 1)
imageio.imwrite(folder / "dream.png", image)
print(f"{folder / 'dream.png'}: above the truth, below {SEEN} frames reconstructed and {len(future)} imagined")

# %% [markdown]
# An agent trains in imagination: its policy acts in the model for some frames from each State of the last batch, and is
# updated on the rewards predicted there. `agent.training.learner.Learner.update` is this and the model's update.

# %%
agent = ActorCritic(ActorCriticConfig(hidden=32, layers=1), model.tokens, model.feature_width, actions)
optimizer = torch.optim.AdamW(agent.parameters(), lr=3e-4)
starts = output.start_states.detach().reshape(-1)  # 8 sequences x 3 States
frame = output.start_index.repeat(8)
origin = torch.arange(8).repeat_interleave(len(output.start_index))
alive = ~batch.terminated[origin, frame]
for _ in range(5):  # one for each of the model's updates
    rollouts = imagine(model, starts, agent.act, horizon=5)  # 15
    losses, metrics = agent.loss(rollouts, alive, output.feature.detach(), batch, (frame, origin))
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    agent.update_slow_critic()
print(f"{len(starts)} rollouts of 5 frames: mean return {metrics['return']:.3f}, entropy {metrics['entropy']:.2f} nats")

# %% [markdown]
# Acting in real environments: the world model takes each frame into its State, the policy reads the feature.

# %%
for ended in EnvLoop(environments, seed=2_000).episodes(WorldModelPolicy(model, agent, 4), 4):
    print(f"one real episode: return {ended.stats.ret:.0f}")
environments.close()

# %% [markdown]
# Another world model is another name. These have memories of other kinds: one scan over all tokens (Mamba-2),
# attention, DreamerV3's GRU. `python -m eval.ablate` trains and compares them in earnest.

# %%
for name, options in {"mamba": SIZES, "transformer": SIZES, "rssm": dict(hidden=16, state_interval=4)}.items():
    print(name)
    train(make(name, **options), updates=2)

# %% [markdown]
# Saving and loading: safetensors and JSON, which hold no code. `agent.training.load.load_run(folder)` loads a run.

# %%
options = SIZES | SCALES
checkpoint.save(folder / "checkpoints", UPDATES, dict(model.state_dict()), {"options": options}, keep=1)
found = checkpoint.load_latest(folder / "checkpoints")
assert found is not None
update, tensors, meta = found
again = make("lssvwm", **meta["options"]).eval()
again.load_state_dict(tensors)
with torch.no_grad():
    same = torch.equal(again.observe(sequence, again.initial(1), sample=False).feature, whole.feature)
print(f"loaded from update {update}: the same features, {same}")

# %% [markdown]
# From here: `python train_agent.py --env MemoryMaze` trains both at length (README), `python -m eval.play RUN` lets you
# act in what the model imagines, docs/how_it_works.md explains the parts.

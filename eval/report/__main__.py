"""One HTML file about a run, or several side by side: `python -m eval.report RUN [RUN ...]`

Returns with intervals, losses, speed, memory's states, retention, configuration, and videos: open-loop prediction,
and a dream made from each run's newest checkpoint. The file stands alone: figures and videos lie in it, it needs no
network and runs no script. What a run does not have is left out, with the command that makes it.

    python -m eval.report runs/MemoryMaze-lssvwm-s0
    python -m eval.report runs/retention/lssvwm-s0 runs/retention/local-s0 --out compared.html
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import envs
from agent.logging.plots import BANDS, RUNNING, SHARE
from agent.runs.cli import one_line_errors
from agent.runs.fields import fields, format_blocks
from eval.report import figures
from eval.report.html import figure, missing, page, paragraph, picture, section, table, text, video
from eval.report.run import ACTIVITIES, Run, read_runs, seconds
from eval.report.videos import NoDream, dreamed
from eval.retention import HIDING
from replay.atomic import write_text_atomically
from replay.progress import track

ACTIVITY_COLOURS = {"act": "#56B4E9", "learn": "#0072B2", "wait": "#E69F00", "evaluate": "#009E73"}


def main(argv: Sequence[str]) -> None:
    """Write the report and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, runs/<name>")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="(default: RUN/report.html of a single run, else report.html)"
    )
    given = parser.parse_args(argv)
    out = given.out or (given.runs[0] / "report.html" if len(given.runs) == 1 else Path("report.html"))
    with one_line_errors():
        try:
            report(given.runs, out)
        except OSError as error:
            print(f"{out} cannot be written: {error.strerror}", file=sys.stderr)
            raise SystemExit(2) from None
    print(out)


def report(folders: Sequence[Path], out: Path) -> None:
    """Write the report of these run folders to `out`, in one step. Run folders are read alone.

    Raises ConfigError where a folder holds no run; OSError where `out` cannot be written.
    """
    runs = read_runs(folders)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    sections = {
        "returns": ("Returns", list(_returns(runs))),
        "losses": ("Losses", list(_losses(runs))),
        "speed": ("Speed", list(_speed(runs))),
        "states": ("Memory: norms of states", list(_states(runs))),
        "retention": ("Memory: retention", list(_retention(runs))),
        "videos": ("Prediction and dreams", list(_videos(runs))),
        "configuration": ("Configuration", list(_configuration(runs))),
    }
    links = " ".join(f'<a href="#{name}">{text(heading)}</a>' for name, (heading, _) in sections.items())
    body = [f"<h1>{text(title)}</h1>", _legend(runs), _summary(runs), f"<nav>{links}</nav>"]
    body += [section(name, heading, parts) for name, (heading, parts) in sections.items()]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(out, page(title, body))


def _legend(runs: Sequence[Run]) -> str:
    """The colour of each run."""
    items = [
        f'<div><span style="border-color: {figures.colour(i)}; border-top-style: '
        f'{"solid" if figures.line(i) == "-" else "dashed"}"></span>{text(run.name)}</div>'
        for i, run in enumerate(runs)
    ]
    return f'<div class="runs">{"".join(items)}</div>'


def _summary(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        last, score = run.last("eval/return"), run.score
        steps = run.rows[-1]["step"] if run.rows else 0
        interval = "{mean:.2f} [{mean_interval[0]:.2f}, {mean_interval[1]:.2f}]".format(**score) if score else ""
        surprise = run.last("model/kl")
        rows.append([
            run.name, run.config.env, run.taught, run.config.seed, f"{steps:,} {run.unit}",
            "" if last is None else f"{last:.2f}", interval, "" if surprise is None else f"{surprise:.2f}",
        ])  # fmt: skip
    head = [
        "run",
        "environment",
        "world model or agent",
        "seed",
        "length",
        "last evaluation",
        "checkpoint, 95 %",
        "surprise (nats)",
    ]
    return table(head, rows)


def _returns(runs: Sequence[Run]) -> Iterator[str]:
    if any(run.last("episode/return") is not None or run.last("eval/return") is not None for run in runs):
        yield figure(
            lambda small: figures.returns(runs, small), f"Episode returns by environment step of {_names(runs)}"
        )
        yield paragraph(
            f"Dots are training episodes, thin lines the mean of the last {RUNNING} (in a long run of the last "
            f"{SHARE}th of its episodes), lines with circles the evaluations while training, with a band of one "
            f"standard deviation where no more than {BANDS} runs share the axes; a diamond is the checkpoint with the "
            "95 % bootstrap interval of its mean."
        )
    else:
        yield missing("No agent acted: a world model taught from episodes on disk has no returns")
        return
    rows = [
        [
            run.name,
            e["step"],
            e.get("episodes", len(e["returns"])),
            e.get("actions", ""),
            _wiped(e),
            e["mean"],
            *e["mean_interval"],
        ]
        for run in runs
        for e in run.evaluations
    ]
    if rows:
        head = ["run", "step", "episodes", "actions", "memory", "mean return", "95 % from", "to"]
        yield "<h3>Checkpoints evaluated</h3>" + table(head, rows)
    for run in runs:
        if run.score is None and run.saved and run.unit == "environment steps":
            yield missing(f"{run.name} has no evaluation of its checkpoint", f"python -m eval.returns {run.folder}")


def _wiped(evaluation: dict[str, object]) -> str:
    frame = evaluation.get("forget")
    return "kept" if frame is None else f"wiped at frame {frame}"


def _losses(runs: Sequence[Run]) -> Iterator[str]:
    model, agent = figures.names(runs, figures.MODEL), figures.names(runs, figures.AGENT)
    if not model:
        yield missing("Nothing was learnt yet: metrics.jsonl has no losses")
    if model:
        beside = {key: key.replace("model/", "val/", 1) for key in model}
        words = f"Losses of the world model by step of {_names(runs)}"
        yield "<h3>World model</h3>" + figure(lambda small: figures.curves(runs, model, small, beside), words)
        if any(run.last(key) is not None for run in runs for key in beside.values()):
            yield paragraph("Dotted: on episodes held out.")
    if agent:
        words = f"Losses and figures of the actor-critic by step of {_names(runs)}"
        yield "<h3>Actor-critic</h3>" + figure(lambda small: figures.curves(runs, agent, small), words)


def _speed(runs: Sequence[Run]) -> Iterator[str]:
    timed = [run for run in runs if sum(seconds(run.rows).values()) > 0]
    if not timed:
        yield missing("No times were logged: train_agent.py logs them, teaching from episodes on disk does not")
        return
    yield figure(lambda small: figures.speeds(runs, small), f"Replayed frames a second of {_names(timed)}")
    rows = []
    for run in timed:
        spent = seconds(run.rows)
        total = sum(spent.values())
        updates = run.last("updates") or 0
        frames = updates * run.config.replay.batch_size * run.config.replay.batch_length
        steps = max(row["step"] for row in run.rows)
        shares = [f"{spent[name] / total:.0%}" for name in ACTIVITIES]
        rows.append([run.name, f"{total / 60:.1f}", *shares, f"{frames / total:,.0f}", f"{steps / total:,.1f}"])
    yield table(["run", "minutes", *ACTIVITIES, "replayed frames/s", "steps/s"], rows)
    for run in timed:
        yield _share(run)
    key = "".join(f'<div><span style="border-color: {c}"></span>{text(n)}</div>' for n, c in ACTIVITY_COLOURS.items())
    yield f'<div class="runs key">{key}</div>'


def _share(run: Run) -> str:
    """A bar of where the time went."""
    spent = seconds(run.rows)
    total = sum(spent.values())
    words = ", ".join(f"{name} {spent[name] / total:.0%}" for name in ACTIVITIES)
    parts = "".join(
        f'<div style="width: {100 * spent[name] / total:.2f}%; background: {ACTIVITY_COLOURS[name]}"></div>'
        for name in ACTIVITIES
    )
    return f'<div>{text(run.name)}</div><div class="share" role="img" aria-label="{text(words)}">{parts}</div>'


def _states(runs: Sequence[Run]) -> Iterator[str]:
    keys = figures.names(runs, figures.NORM)
    if keys:
        yield paragraph("Mean norm of a layer's scan state, all heads together, at the ends of blocks.")
        yield figure(
            lambda small: figures.curves(runs, keys, small), f"Norms of scan states by layer of {_names(runs)}"
        )
    for run in runs:
        if not figures.names([run], figures.NORM):
            yield missing(f"{run.name} logs no scan states: {run.taught} has none, or nothing was learnt yet")


def _retention(runs: Sequence[Run]) -> Iterator[str]:
    with_delays = [run for run in runs if run.retention and "retention" in run.retention]
    mazes = [run for run in runs if run.retention and "views" in run.retention]
    if with_delays:
        shown = [run if run in with_delays else _without(run) for run in runs]
        yield figure(lambda small: figures.retention(shown, small), f"What {_names(with_delays)} remember, by delay")
        yield paragraph("What the model expects of a hidden thing when it comes back. Dotted: memory wiped meanwhile.")
        for run in with_delays:
            yield f"<h3>{text(run.name)}: share right, by frames since it was seen</h3>" + _accuracy(run)
    for run in mazes:
        yield f"<h3>{text(run.name)}: PSNR (dB) and SSIM of dreamed frames</h3>" + _maze(run)
    for run in runs:
        if run.retention is None:
            yield _unmeasured(run)


def _unmeasured(run: Run) -> str:
    """Why there is no retention, and the command where it would work."""
    if run.config.env.partition(":")[0] not in HIDING and not run.config.env.startswith("MemoryMaze"):
        return missing(f"{run.name}: nothing is hidden in {run.config.env}, retention is not measured there")
    if run.baseline:
        return missing(f"{run.name}: {run.taught} has no world model, whose retention could be measured")
    if not run.saved:
        return missing(f"{run.name} was not measured: it has no checkpoint yet")
    return missing(f"{run.name} was not measured", f"python -m eval.retention {run.folder}")


def _without(run: Run) -> Run:
    return Run(run.folder, run.name, run.config, run.rows, run.evaluations, None)


def _accuracy(run: Run) -> str:
    assert run.retention is not None
    delays, found = run.retention["delays"], run.retention["retention"]
    figure_name = "accuracy" if "accuracy" in found[str(delays[0])]["return"] else "psnr"
    rows = [
        [label, *(f"{found[str(delay)][moment][figure_name]:.2f}" for delay in delays)]
        for label, moment in (("at the return", "return"), ("just seen", "just_seen"), ("memory wiped", "reset"))
    ]
    return table([figure_name, *delays], rows)


def _maze(run: Run) -> str:
    assert run.retention is not None
    parts = {
        f"{task}, {who}": run.retention[task][who] for task in ("retrieval", "reasoning") for who in run.retention[task]
    }
    parts |= {
        f"seen {age} steps ago" if age != "never" else "never seen": s for age, s in run.retention["views"].items()
    }
    rows = [[name, f"{score['psnr']:.1f}", f"{score['ssim']:.3f}", score["frames"]] for name, score in parts.items()]
    return table(["frames", "PSNR", "SSIM", "number"], rows)


def _videos(runs: Sequence[Run]) -> Iterator[str]:
    yield paragraph("Under a green bar the model saw the frames, under an orange one it imagines them.")
    for run in track(runs, "dreams", "report"):
        yield f"<h3>{text(run.name)}</h3>"
        if any(run.folder.glob("videos/*.mp4")) or _kind(run) == "image":
            yield from _clips(run)
        else:
            yield missing(f"{run.config.env} has no frames to predict")


def _kind(run: Run) -> str:
    """image or vector; what cannot be said here has its reason told by the dream."""
    try:
        return envs.obs_type(run.config.env)
    except (envs.UnknownEnvironment, ValueError, RuntimeError):
        return "image"


def _clips(run: Run) -> Iterator[str]:
    """What a run with frames has to show."""
    openloop, heldout = run.folder / "videos/openloop.mp4", run.folder / "videos/heldout.mp4"
    if openloop.is_file():
        yield video(openloop, "Open loop, on the newest training episode then: truth, prediction, error")
    if heldout.is_file():
        yield video(heldout, "Open loop, on an episode held out: truth, prediction, error")
    strip = run.folder / "plots/openloop.png"
    if strip.is_file():
        yield picture(
            strip, "One window held out: the last frame seen, then every second one; truth, prediction, error"
        )
    if not heldout.is_file() and not run.baseline and run.saved:  # of the others the dream tells why
        yield _unpredicted(run)
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield video(dreamed(run, Path(folder) / "dream.mp4"), _dream_words(run))
        except NoDream as reason:
            yield missing(f"No dream: {reason}")


def _unpredicted(run: Run) -> str:
    """That there is no prediction, and the command where it would work: it compares with the mean training frame."""
    what = "No open-loop prediction of held-out episodes"
    if not run.recorded:
        return missing(f"{what}: eval.openloop needs episodes of training, and {run.name} keeps none")
    return missing(what, f"python -m eval.openloop {run.folder}")


def _dream_words(run: Run) -> str:
    policy = "the policy" if run.unit == "environment steps" else "a policy that was not taught"
    return f"Four dreams of one beginning: {policy} acts in the world model alone; latents and actions are drawn"


def _configuration(runs: Sequence[Run]) -> Iterator[str]:
    spelt = [
        {
            name: format_blocks(f.value) if isinstance(f.value, tuple) else str(f.value)
            for name, f in fields(run.config).items()
        }
        for run in runs
    ]
    names = [name for name in dict.fromkeys(name for values in spelt for name in values) if name != "run_dir"]
    rows = [[name, *(values.get(name, "\N{EM DASH}") for values in spelt)] for name in names]
    differs = [len(set(row[1:])) > 1 for row in rows]
    head = ["option", *(run.name for run in runs)]
    if len(runs) > 1:
        found = [row for row, differ in zip(rows, differs, strict=True) if differ]
        yield "<h3>Where the runs differ</h3>" + (
            table(head, found, [True] * len(found)) if found else paragraph("Nowhere.")
        )
    state = " open" if len(runs) == 1 else ""
    yield f"<details{state}><summary>Everything</summary>{table(head, rows, differs)}</details>"


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs)


if __name__ == "__main__":
    main(sys.argv[1:])

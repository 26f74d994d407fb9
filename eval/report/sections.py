"""The sections of a report: what each shows of the runs, and what it says where there is nothing."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import envs
from agent.logging.plots import BANDS, RUNNING, SHARE, colour, line
from agent.runs.fields import fields, format_blocks
from eval.learning_curves import ACTIVITIES
from eval.report import charts
from eval.report.dream import NoDream, imagined
from eval.report.html import figure, image, legend, missing, page, paragraph, section, share, table, text, video
from eval.report.reported_run import ReportedRun, read_runs
from eval.retention import HIDING
from replay.atomic import write_text_atomically
from replay.progress import track

Runs = Sequence[ReportedRun]

COLOURS = dict(zip(ACTIVITIES, ("#56B4E9", "#0072B2", "#E69F00", "#009E73"), strict=True))
"""Of what a run's time goes to."""


def report(folders: Sequence[Path], out: Path) -> None:
    """Writes the report of these run folders to `out`, in one step. Run folders are only read.

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
        "videos": ("Prediction and imagination", list(_videos(runs))),
        "configuration": ("Configuration", list(_configuration(runs))),
    }
    links = " ".join(f'<a href="#{name}">{text(heading)}</a>' for name, (heading, _) in sections.items())
    colours = [(run.name, colour(i), "solid" if line(i) == "-" else "dashed") for i, run in enumerate(runs)]
    body = [f"<h1>{text(title)}</h1>", legend(colours), _summary(runs), f"<nav>{links}</nav>"]
    body += [section(name, heading, parts) for name, (heading, parts) in sections.items()]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(out, page(title, body))


def _summary(runs: Runs) -> str:
    rows = []
    for run in runs:
        last, kl = run.last("eval/return"), run.last("model/kl")
        interval = (
            "{mean:.2f} [{mean_interval[0]:.2f}, {mean_interval[1]:.2f}]".format(**run.score) if run.score else ""
        )
        length = f"{run.rows[-1]['step'] if run.rows else 0:,} {run.unit}"
        metrics = ["" if last is None else f"{last:.2f}", interval, "" if kl is None else f"{kl:.2f}"]
        rows.append([run.name, run.config.env, run.trained, run.config.seed, length, *metrics])
    head = "run,environment,world model or agent,seed,length,last evaluation,checkpoint / 95 %,KL (nats)"
    return table(head.split(","), rows)


def _returns(runs: Runs) -> Iterator[str]:
    if all(run.last("episode/return") is None and run.last("eval/return") is None for run in runs):
        yield missing("No agent acted: a world model trained on episodes on disk has no returns")
        return
    yield figure(lambda small: charts.returns(runs, small), f"Episode returns by environment step of {_names(runs)}")
    yield paragraph(
        f"Dots are training episodes, thin lines the mean of the last {RUNNING} (in a long run of the last {SHARE}th "
        "of its episodes), lines with circles the evaluations while training, with a band of one standard deviation "
        f"where no more than {BANDS} runs share the axes; a diamond is the checkpoint with the 95 % bootstrap interval "
        "of its mean."
    )
    rows: list[list[Any]] = []
    for run in runs:
        for e in run.evaluations:
            at = e.get("reset_memory_at")
            memory = "kept" if at is None else f"reset at frame {at}"
            episodes = e.get("episodes", len(e["returns"]))
            rows.append([run.name, e["step"], episodes, e.get("actions", ""), memory, e["mean"], *e["mean_interval"]])
    if rows:
        head = ["run", "step", "episodes", "actions", "memory", "mean return", "95 % from", "to"]
        yield "<h3>Checkpoints evaluated</h3>" + table(head, rows)
    for run in runs:
        if run.score is None and run.saved and run.acts:
            yield missing(f"{run.name} has no evaluation of its checkpoint", f"python -m eval.returns {run.folder}")


def _losses(runs: Runs) -> Iterator[str]:
    model, agent = charts.names(runs, charts.MODEL), charts.names(runs, charts.AGENT)
    if not model:
        yield missing("No update yet: metrics.jsonl has no losses")
    else:
        val = {key: key.replace("model/", "val/", 1) for key in model}
        words = f"Losses of the world model by step of {_names(runs)}"
        yield "<h3>World model</h3>" + figure(lambda small: charts.curves(runs, model, small, val), words)
        if any(run.last(key) is not None for run in runs for key in val.values()):
            yield paragraph("Dotted: on validation episodes.")
    if agent:
        words = f"Losses and metrics of the actor-critic by step of {_names(runs)}"
        yield "<h3>Actor-critic</h3>" + figure(lambda small: charts.curves(runs, agent, small), words)


def _speed(runs: Runs) -> Iterator[str]:
    timed = [run for run in runs if sum(run.seconds.values()) > 0]
    if not timed:
        yield missing("No times were logged: train_agent.py logs them, training on episodes on disk does not")
        return
    yield figure(lambda small: charts.speeds(runs, small), f"Replayed frames a second of {_names(timed)}")
    rows, bars = [], []
    for run in timed:
        total = sum(run.seconds.values())
        shares = {name: seconds / total for name, seconds in run.seconds.items()}
        frames, steps = (run.last("updates") or 0) * run.frames_per_update, max(row["step"] for row in run.rows)
        percents = [f"{value:.0%}" for value in shares.values()]
        rows.append([run.name, f"{total / 60:.1f}", *percents, f"{frames / total:,.0f}", f"{steps / total:,.1f}"])
        bars.append(share(run.name, shares, COLOURS))
    yield table(["run", "minutes", *ACTIVITIES, "replayed frames/s", "steps/s"], rows)
    yield from bars
    yield legend([(name, shade, "solid") for name, shade in COLOURS.items()])


def _states(runs: Runs) -> Iterator[str]:
    keys = charts.names(runs, charts.NORM)
    if keys:
        yield paragraph("Mean norm of a layer's scan state, all heads together, at block boundaries.")
        words = f"Norms of scan states by layer of {_names(runs)}"
        yield figure(lambda small: charts.curves(runs, keys, small), words)
    for run in runs:
        if not charts.names([run], charts.NORM):
            yield missing(f"{run.name} logs no scan states: {run.trained} has none, or there was no update yet")


def _retention(runs: Runs) -> Iterator[str]:
    by_delay = [run for run in runs if run.retention and "retention" in run.retention]
    if by_delay:
        words = f"What {_names(by_delay)} remember, by delay"
        yield figure(lambda small: charts.retention(runs, small), words)
        yield paragraph("What the model expects of a hidden thing when it comes back. Dotted: memory reset meanwhile.")
    for run in runs:
        found = run.retention
        if found is None:
            yield _unmeasured(run)
        elif "retention" in found:
            yield f"<h3>{text(run.name)}: by frames since it was seen</h3>" + _by_delay(found)
        elif "views" in found:
            yield f"<h3>{text(run.name)}: PSNR (dB) and SSIM of imagined frames</h3>" + _by_view(found)


def _unmeasured(run: ReportedRun) -> str:
    """Why there is no retention, and the command where it would work."""
    if run.config.env.partition(":")[0] not in HIDING and not run.config.env.startswith("MemoryMaze"):
        return missing(f"{run.name}: nothing is hidden in {run.config.env}, retention is not measured there")
    if run.baseline:
        return missing(f"{run.name}: {run.trained} has no world model, whose retention could be measured")
    if not run.saved:
        return missing(f"{run.name} was not measured: it has no checkpoint yet")
    return missing(f"{run.name} was not measured", f"python -m eval.retention {run.folder}")


def _by_delay(result: dict[str, Any]) -> str:
    delays, found = result["delays"], result["retention"]
    metric = "accuracy" if "accuracy" in found[str(delays[0])]["return"] else "psnr"
    moments = {"at the return": "return", "just seen": "just_seen", "memory reset": "reset"}
    rows = [[label, *(f"{found[str(d)][moment][metric]:.2f}" for d in delays)] for label, moment in moments.items()]
    return table([metric, *delays], rows)


def _by_view(result: dict[str, Any]) -> str:
    tasks = [task for task in ("retrieval", "loop_revisit", "reasoning") if task in result]
    parts = {f"{task}, {name}": s for task in tasks for name, s in result[task].items() if "ssim" in s}
    ages = {age: "never seen" if age == "never" else f"seen {age} steps ago" for age in result["views"]}
    parts |= {ages[age]: score for age, score in result["views"].items()}
    rows = [[name, f"{score['psnr']:.1f}", f"{score['ssim']:.3f}", score["frames"]] for name, score in parts.items()]
    return table(["frames", "PSNR", "SSIM", "number"], rows)


def _videos(runs: Runs) -> Iterator[str]:
    yield paragraph("Under a green bar the model observes the frames, under an orange one it imagines them.")
    for run in track(runs, "runs", "imagination"):
        yield f"<h3>{text(run.name)}</h3>"
        if any(run.folder.glob("videos/*.mp4")) or _has_images(run):
            yield from _clips(run)
        else:
            yield missing(f"{run.config.env} has no frames to predict")


def _has_images(run: ReportedRun) -> bool:
    """True too where the environment cannot be made: the attempt to imagine gives the reason."""
    try:
        return envs.obs_type(run.config.env) == "image"
    except (envs.UnknownEnvironment, ValueError, RuntimeError):
        return True


def _clips(run: ReportedRun) -> Iterator[str]:
    """What a run with frames has to show."""
    heldout, strip = run.folder / "videos/heldout.mp4", run.folder / "plots/openloop.png"
    for path, episode in ((run.folder / "videos/openloop.mp4", "the newest training episode then"),
                          (heldout, "a held-out episode")):  # fmt: skip
        if path.is_file():
            yield video(path, f"Open loop, on {episode}: truth, prediction, error")
    if strip.is_file():
        words = "One held-out window: the last frame observed, then every second one; truth, prediction, error"
        yield image(strip, words)
    if not heldout.is_file() and not run.baseline and run.saved:  # elsewhere imagination says why
        what = "No open-loop prediction of held-out episodes"
        if run.recorded:
            yield missing(what, f"python -m eval.openloop {run.folder}")
        else:  # it compares with the mean training frame
            yield missing(f"{what}: eval.openloop needs episodes of training, and {run.name} keeps none")
    policy = "the policy" if run.acts else "an untrained policy"
    words = f"Four rollouts from one beginning: {policy} acts in the world model alone; latents and actions are sampled"
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield video(imagined(run, Path(folder) / "dream.mp4"), words)
        except NoDream as reason:
            yield missing(f"No imagination: {reason}")


def _configuration(runs: Runs) -> Iterator[str]:
    spelt = [
        {name: format_blocks(f.value) if isinstance(f.value, tuple) else str(f.value) for name, f in found.items()}
        for found in (fields(run.config) for run in runs)
    ]
    names = [name for name in dict.fromkeys(name for values in spelt for name in values) if name != "run_dir"]
    rows = [[name, *(values.get(name, "\N{EM DASH}") for values in spelt)] for name in names]
    differs = [len(set(row[1:])) > 1 for row in rows]
    head = ["option", *(run.name for run in runs)]
    if len(runs) > 1:
        found = [row for row, differ in zip(rows, differs, strict=True) if differ]
        differences = table(head, found, [True] * len(found)) if found else paragraph("Nowhere.")
        yield "<h3>Where the runs differ</h3>" + differences
    state = " open" if len(runs) == 1 else ""
    yield f"<details{state}><summary>Everything</summary>{table(head, rows, differs)}</details>"


def _names(runs: Runs) -> str:
    return ", ".join(run.name for run in runs)

"""The report stands alone, shows what the runs hold, marks where they differ, and escapes what it is given."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import imageio.v3 as imageio
import numpy as np
import pytest

import envs
from agent.baselines.ppo import PPOConfig
from agent.logging.plots import BANDS, PALETTE, RUNNING, SHARE
from agent.runs import checkpoint, presets
from agent.runs.config import Config, save_config
from agent.runs.folder import open_run
from agent.training.learner import Learner, spaces
from eval.report import charts
from eval.report.__main__ import main
from eval.report.reported_run import read_runs, with_interval
from eval.report.sections import report
from replay import Episode, Replay

ENV = "ObjectRecall:size=32"


class Page(HTMLParser):
    """What stands in a page: elements with their attributes, and text; tags must be closed in order."""

    VOID = {"meta", "img", "source", "br"}

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def content(uri: str) -> tuple[str, bytes]:
    kind, _, data = uri.partition(";base64,")
    return kind.removeprefix("data:"), base64.b64decode(data)


def made(folder: Path, env: str = ENV, rows: int = 5, **options: object) -> Path:
    """A run with metrics of `rows` reports, a checkpoint and, where it has frames, an episode of 30 rows."""
    kind = "image" if env == ENV else "vector"
    config = presets.apply("debug", kind, Config(env=env, run_dir=str(folder)))
    config.train.device = "cpu"
    for name, value in options.items():
        setattr(config.worldmodel if hasattr(config.worldmodel, name) else config, name, value)
    open_run(config)
    with (folder / "metrics.jsonl").open("w") as file:
        for i in range(1, rows + 1):
            losses = {
                "model/loss": 9.0 / i,
                "model/loss/dynamics": 3.0 / i,
                "model/kl": 2.5,
                "agent/entropy": 1.1,
            }
            state = {"model/state/0/norm": 0.1 * i, "model/state/1/norm": 0.2 * i}
            time = {"time/act": 1.0 * i, "time/learn": 6.0 * i, "time/wait": 0.0, "time/evaluate": 3.0 * i}
            row = {"step": 100 * i, "updates": 10.0 * i, **losses, **state, **time}
            file.write(json.dumps(row) + "\n" + json.dumps({"step": 100 * i, "episode/return": i / 2}) + "\n")
    environment = envs.make(env)
    learner = Learner(config, *spaces(environment.observation_space, environment.action_space))
    environment.close()
    checkpoint.save(folder / "checkpoints", 500, *learner.snapshot(), 1)
    if kind == "image":
        shape = environment.observation_space.shape
        random = np.random.default_rng(0)
        action = np.eye(learner.model.actions, dtype=np.float32)[random.integers(learner.model.actions, size=30)]
        action[0] = 0
        frames = random.integers(0, 255, (30, *shape)).astype(np.uint8)
        Replay(folder / "episodes", 10_000).add(Episode(frames, action, np.zeros(30, np.float32), np.zeros(30, bool)))
    return folder


def bare(folder: Path, env: str, **evaluation: object) -> Path:
    """A run that acted and was evaluated, without networks."""
    open_run(presets.apply("debug", "vector", Config(env=env, run_dir=str(folder))))
    rows = [{"step": 100 * i, "episode/return": i, "eval/return": i, "eval/return_std": 1.0} for i in range(1, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "eval.json").write_text(json.dumps({"step": 500, "returns": [3.0, 4.0], **evaluation}))
    return folder


def shown(run: Path, out: Path) -> Page:
    """The page of a run."""
    report([run], out)
    return Page(out)


def retention(right: float) -> dict:
    moment = {"kl": 4.0, "psnr": 20.0, "copy_psnr": 9.0, "accuracy": right, "copy_accuracy": 0.0}
    moments = {"return": moment, "just_seen": moment | {"accuracy": 1.0}, "reset": moment | {"accuracy": 0.0}}
    return {"delays": [5, 50], "retention": {"5": moments, "50": moments}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Page, list[Path], str]:
    """The page of two runs: the first has everything."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [made(folder / "a<b>&'x\"", seed=0), made(folder / "gru", seed=1, pretrained="<img src=x>")]
    (runs[0] / "eval.json").write_text(json.dumps({"step": 500, "returns": [1.0, 2.0, 6.0], "actions": "greedy"}))
    (runs[0] / "eval-reset-memory-at-7.json").write_text(
        json.dumps({"step": 500, "returns": [0.0, 0.0], "reset_memory_at": 7})
    )
    (runs[0] / "retention.json").write_text(json.dumps(retention(0.75)))
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")}
    report(runs, folder / "out" / "page.html")
    assert before == {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")}
    page = folder / "out" / "page.html"
    return Page(page), runs, page.read_text(encoding="utf-8")


def test_it_stands_alone(pair):
    page, _, source = pair
    assert not page.all("script") and not page.all("link")
    addresses = [a[name] for _, a in page.elements for name in ("src", "srcset", "href") if name in a]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"base64,[^\"]*", "", source))
    anchors = {a["href"][1:] for a in page.all("a")}
    assert anchors == {a["id"] for a in page.all("section")}


def test_figures_are_drawn_for_both_widths_and_described(pair):
    page, _, _ = pair
    wide, narrow = page.all("img"), page.all("source")
    assert len(wide) == len(narrow) == 6 and all(image["alt"] for image in wide)
    sizes = []
    for image in [image["src"] for image in wide] + [image["srcset"] for image in narrow]:
        kind, data = content(image)
        assert kind == "image/svg+xml"
        sizes.append(float(ElementTree.fromstring(data).attrib["width"].removesuffix("pt")))
    assert min(sizes[:6]) > 600 and max(sizes[6:]) < 300


def test_imagination_is_in_it(pair):
    page, _, _ = pair
    films = [content(video["src"]) for video in page.all("video")]
    assert len(films) == 2 and all(kind == "video/mp4" for kind, _ in films)
    for _, data in films:
        frames = imageio.imread(data, plugin="pyav")
        # of 30 rows the model observes a third, then 60 are imagined; four rollouts side by side, three times enlarged
        assert len(frames) == 10 + 60 and frames.shape[2] == 4 * 32 * 3
        green, orange = frames[0, 2].mean(0), frames[-1, 2].mean(0)
        assert green[1] > green[0] + 40 and orange[0] > orange[1] + 40
        first = frames[0, 8:].reshape(-1, 4, 96, 3).astype(int)  # the past is one for all four
        assert np.abs(first - first[:, :1]).mean() < 8


def test_what_it_is_given_is_escaped(pair):
    _, runs, source = pair
    assert "a<b>" not in source and "<img src=x>" not in source
    assert "a&lt;b&gt;&amp;&#x27;x&quot;" in source and "&lt;img src=x&gt;" in source
    assert f"python -m eval.retention {runs[1]}" in source


def test_differences_are_marked(pair):
    page, _, source = pair
    marked = set(re.findall(r'<tr class="differs"><th scope="row">([^<]*)', source))
    assert marked == {"seed", "worldmodel.pretrained"}
    assert source.count('<th scope="row">train.replay_ratio') == 1  # it is the same: in the whole table alone


def test_figures_in_tables(pair):
    page, _, source = pair
    row = re.search(r'<th scope="row">[^<]*</th><td class="number">500</td><td class="number">3</td>.*?</tr>', source)
    assert (
        row and "greedy" in row[0] and ">kept<" in row[0] and '<td class="number">3</td><td class="number">1' in row[0]
    )
    assert "reset at frame 7" in page.text
    assert ">0.75<" in source
    # 50 seconds: 5 acting, 30 learning, 15 evaluating
    assert re.search(r"<td>0\.8</td><td>10%</td><td>60%</td><td>0%</td><td>30%</td>", source)


def test_what_is_missing_names_its_command(tmp_path):
    run = made(tmp_path / "cart", "gym:CartPole-v1", rows=0)
    report([run], tmp_path / "page.html")
    words = Page(tmp_path / "page.html").text
    for expected in ("No update yet", "has no frames", "nothing is hidden in gym:CartPole-v1", "No times"):
        assert expected in words
    assert not Page(tmp_path / "page.html").all("video")


def test_a_broken_checkpoint_is_said_on_the_page(tmp_path):
    run = made(tmp_path / "run")
    for file in (run / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"short")
    with pytest.warns(UserWarning, match="damaged"):
        report([run], tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "No imagination:" in page.text and "checkpoint" in page.text and not page.all("video")


def test_the_command(tmp_path, capsys):
    run = made(tmp_path / "run", "gym:CartPole-v1")
    main([str(run)])
    assert capsys.readouterr().out == f"{run / 'report.html'}\n" and (run / "report.html").is_file()
    with pytest.raises(SystemExit) as stopped:
        main([str(run), str(tmp_path)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error == f"{tmp_path} holds no run (no config.yaml)\n"


def test_an_evaluation_without_intervals_gets_them():
    found = with_interval({"returns": [2.0, 2.0, 2.0]})
    assert found["mean"] == 2.0 and tuple(found["mean_interval"]) == (2.0, 2.0)
    assert with_interval({"returns": [1.0], "mean": 1.0, "mean_interval": [0.5, 1.5]})["mean_interval"] == [0.5, 1.5]


def test_a_baseline_is_called_by_its_agent(tmp_path):
    open_run(presets.apply("debug", "vector", Config(env="gym:CartPole-v1", agent=PPOConfig(), run_dir=str(tmp_path))))
    report([tmp_path], tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    summary = f"gym:CartPole-v1 {PPOConfig().name} 0"  # environment, agent, seed
    assert summary in " ".join(page.text.split())


def test_an_evaluation_with_memory_reset_is_no_score(tmp_path):
    run, command = made(tmp_path / "run"), f"python -m eval.returns {tmp_path / 'run'}"
    (run / "eval-reset-memory-at-7.json").write_text(
        json.dumps({"step": 500, "returns": [7.25, 7.25], "reset_memory_at": 7})
    )
    words = shown(run, tmp_path / "page.html").text
    assert "reset at frame 7" in words and "7.25 [" not in words and command in words
    drawn = charts.returns(read_runs([run]), small=False)
    assert not drawn.axes[0].containers and len(drawn.legends[0].get_texts()) == 2
    (run / "eval.json").write_text(json.dumps({"step": 500, "returns": [9.5, 9.5], "reset_memory_at": None}))
    words = shown(run, tmp_path / "page.html").text
    assert "9.50 [9.50, 9.50]" in words and command not in words
    drawn = charts.returns(read_runs([run]), small=False)
    assert len(drawn.axes[0].containers) == 1 and drawn.legends[0].get_texts()[2].get_text() == "checkpoint, 95 %"


def test_retention_of_runs_that_share_not_every_figure(tmp_path):
    """SceneCut has no accuracy."""
    runs = [bare(tmp_path / name, ENV) for name in ("recall", "cut")]
    (runs[0] / "retention.json").write_text(json.dumps(retention(0.75)))
    without = retention(0.75)
    moments = {moment: {"kl": 4.0, "psnr": 20.0} for moment in without["retention"]["5"]}
    (runs[1] / "retention.json").write_text(json.dumps(without | {"retention": {"5": moments, "50": moments}}))
    for order in (runs, runs[::-1]):
        drawn = charts.retention(read_runs(order), small=False)
        assert [axes.get_title().split()[0] for axes in drawn.axes] == ["KL", "PSNR"]


def test_a_damaged_episode_is_passed_over_and_the_folder_stays_as_it_is(tmp_path):
    run = made(tmp_path / "run")
    for name in ("00000001-30.npz", ".00000002-30.npz.tmp", "public.npz"):
        (run / "episodes" / name).write_bytes(b"short")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    page = shown(run, tmp_path / "page.html")
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    frames = imageio.imread(content(page.all("video")[0]["src"])[1], plugin="pyav")
    assert len(frames) == 10 + 60  # from the whole episode of 30 rows


def test_commands_stand_where_they_would_work(tmp_path):
    run, out = made(tmp_path / "run"), tmp_path / "page.html"

    def commands() -> list[bool]:
        words = shown(run, out).text
        return [f"python -m eval.{name} {run}" in words for name in ("returns", "retention", "openloop")]

    assert commands() == [True, True, True]
    next((run / "episodes").glob("*.npz")).unlink()
    assert commands() == [True, True, False]
    save_config(Config(env=ENV, agent=PPOConfig(), run_dir=str(run)), run / "config.yaml")
    assert commands() == [True, False, False] and "ppo has no world model" in Page(out).text
    save_config(Config(env=ENV, run_dir=str(run)), run / "config.yaml")
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    assert commands() == [False, False, False] and "no whole checkpoint yet" in Page(out).text


def test_each_environment_has_a_panel_of_returns(tmp_path):
    """Under one another on a narrow screen; colours are the page's."""
    cart, pendulum = "gym:CartPole-v1", "gym:Pendulum-v1"
    low = {"mean": -1500.0, "mean_interval": [-1600.0, -1400.0]}
    folders = [bare(tmp_path / "0", cart), bare(tmp_path / "1", pendulum, **low), bare(tmp_path / "2", cart)]
    runs = read_runs(folders)
    for small in (False, True):
        drawn = charts.returns(runs, small)
        assert [axes.get_title("left") for axes in drawn.axes] == [cart, pendulum]
        colours = [{line.get_color() for line in axes.get_lines()} & set(PALETTE) for axes in drawn.axes]
        assert colours == [{PALETTE[0], PALETTE[2]}, {PALETTE[1]}]
        assert drawn.axes[1].get_ylim()[0] < -1600  # room for the diamond
        drawn.draw_without_rendering()
        first, second = (axes.get_position() for axes in drawn.axes)
        assert second.y1 < first.y0 if small else second.x0 > first.x1
    assert len(charts.returns(runs[:1], small=False).axes) == 1


def test_words_beside_the_returns_are_those_of_the_figure(tmp_path):
    words = shown(bare(tmp_path / "run", "gym:CartPole-v1"), tmp_path / "page.html").text
    assert f"the mean of the last {RUNNING} (in a long run of the last {SHARE}th of its episodes)" in words
    assert f"one standard deviation where no more than {BANDS} runs" in words


def test_an_environment_that_all_are_of_is_not_said_in_each_name(tmp_path):
    env = "ObjectRecall-Choice:delay=20,size=32"
    folders = [bare(tmp_path / f"ObjectRecall-Choice-delay-20-size-32-{name}-s0", env) for name in ("lssvwm", "local")]
    other = bare(tmp_path / "gym-CartPole-v1-lssvwm-s0", "gym:CartPole-v1")
    assert [run.name for run in read_runs(folders)] == ["lssvwm-s0", "local-s0"]
    assert read_runs(folders[:1])[0].name == folders[0].name
    assert [run.name for run in read_runs([*folders, other])] == [folder.name for folder in [*folders, other]]

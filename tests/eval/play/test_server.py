"""Who may see the page and talk to it, how errors are shown, and the command that serves it."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from eval.play.__main__ import main
from eval.play.models import Models
from eval.play.server import MOST_VISITORS, Server
from tests.eval.play_runs import made

TOKEN = "right-token"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [made(folder / "first", seed=0), made(folder / "second", seed=1)]


def serving(models: Models, talk) -> None:
    """Runs `talk(client, origin)` against a server on this machine."""

    async def run() -> None:
        server = TestServer(Server(models, TOKEN).application())
        async with TestClient(server) as client:
            await talk(client, f"http://{server.host}:{server.port}")

    asyncio.run(run())


async def enter(client: TestClient, origin: str) -> aiohttp.ClientWebSocketResponse:
    """A visitor who has got the greeting and the first frame."""
    visitor = await client.ws_connect(f"/socket?token={TOKEN}", headers={"Origin": origin})
    assert "actions" in await visitor.receive_json()
    await visitor.receive_bytes()
    return visitor


async def ask(visitor: aiohttp.ClientWebSocketResponse, **message) -> dict:
    await visitor.send_json(message)
    answer = await visitor.receive()
    if answer.type == aiohttp.WSMsgType.TEXT:
        return answer.json()
    return json.loads(answer.data[4 : 4 + int.from_bytes(answer.data[:4], "big")])


@pytest.mark.parametrize(
    "path", ["/", "/socket", "/?token=", "/?token=right-tokem", "/?token=right-token2", "/nothing"]
)
def test_without_the_token_there_is_nothing(runs, path):
    async def talk(client, origin):
        answer = await client.get(path, headers={"Origin": origin})
        assert answer.status == 403 and "address that python -m eval.play printed" in await answer.text()

    serving(Models(runs), talk)


def test_page_comes_with_the_token_and_may_ask_nothing_of_other_places(runs):
    async def talk(client, origin):
        answer = await client.get(f"/?token={TOKEN}")
        page = await answer.text()
        assert answer.status == 200 and "<canvas" in page
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "http://" not in page and "https://" not in page

    serving(Models(runs), talk)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {}])
def test_websocket_is_for_the_page_itself_alone(runs, headers):
    async def talk(client, origin):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"/socket?token={TOKEN}", headers=headers)
        assert refused.value.status == 403

    serving(Models(runs), talk)


def test_other_names_of_this_machine_are_refused(runs):
    """A page elsewhere can have its own name point here, but not change the name that the browser sends."""

    async def talk(client, origin):
        answer = await client.get(f"/?token={TOKEN}", headers={"Host": "evil.example"})
        assert answer.status == 403 and "not at evil.example" in await answer.text()
        answer = await client.get(f"/?token={TOKEN}", headers={"Host": "localhost:9999"})  # a tunnel's end
        assert answer.status == 200

    serving(Models(runs), talk)


def test_visitors_have_sessions_of_their_own_and_do_not_wait_for_each_other(runs):
    models = Models(runs)

    async def talk(client, origin):
        one, other = await enter(client, origin), await enter(client, origin)
        for _ in range(3):
            header = await ask(one, do="act", action=1)
        assert header["imagined"] == 3
        assert (await ask(other, do="look"))["imagined"] == 0
        with models._lock:  # one waits for a run that loads
            await one.send_json({"do": "newest"})
            for i in range(4):
                assert (await ask(other, do="act", action=2))["imagined"] == i + 1
        await one.receive_bytes()
        assert (await ask(one, do="look"))["imagined"] == 3

    serving(models, talk)


def test_errors_are_shown_and_the_session_goes_on(runs, tmp_path, capsys):
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]

    async def talk(client, origin):
        visitor = await enter(client, origin)
        shutil.rmtree(copies[1])
        answer = await ask(visitor, do="model", index=1)
        assert answer == {"error": f"{copies[1]} holds no run (no config.yaml)"}
        for text in ("no json", "[]", "[" * 4000, json.dumps({"do": "fly"})):
            await visitor.send_str(text)
            assert "error" in await visitor.receive_json()
        assert (await ask(visitor, do="act", action=0))["imagined"] == 1

    serving(Models(copies), talk)
    assert f"{copies[1]} holds no run" in capsys.readouterr().err


def test_one_visitor_too_many_is_refused(runs):
    async def talk(client, origin):
        visitors = [await enter(client, origin) for _ in range(MOST_VISITORS)]
        url = f"/socket?token={TOKEN}"
        more = await client.ws_connect(url, headers={"Origin": origin})
        assert f"{MOST_VISITORS} visitors" in (await more.receive_json())["error"]
        await visitors[0].close()
        while True:  # the place is free once the server has heard of it
            more = await client.ws_connect(url, headers={"Origin": origin})
            if "actions" in await more.receive_json():
                return

    serving(Models(runs), talk)


def test_command_refuses_in_one_line(runs, tmp_path, capsys):
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    cases = {
        "nowhere holds no run": [str(tmp_path / "nowhere")],
        "is no folder": [str(runs[0]), "--episodes", str(tmp_path / "nowhere")],
        f"port {port} cannot be used": [str(runs[0]), "--port", port],
    }
    for words, argv in cases.items():
        with pytest.raises(SystemExit) as refused:
            main(argv)
        error = capsys.readouterr().err
        assert refused.value.code == 2 and words in error and error.count("\n") == 1
    taken.close()


def test_command_names_the_extra_where_aiohttp_is_missing(runs):
    code = f"import sys; sys.modules['aiohttp'] = None; from eval.play.__main__ import main; main([{str(runs[0])!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "eval.play needs aiohttp: pip install 'lssvwm[play]'\n"

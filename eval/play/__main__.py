"""Act in a world model in the browser: `python -m eval.play RUN [RUN ...]`

Prints the address of a page on this machine. There the keyboard acts in what the world model imagines, beside the real
environment under the same actions where wanted; the page shows what is predicted, how long a frame takes and how large
the states in memory are. It can switch between several runs of one environment. Ctrl-C ends it.

    python -m eval.play runs/MemoryMaze-lssvwm-s0
    python -m eval.play runs/MemoryMaze-lssvwm-s0 runs/MemoryMaze-local-s0 --port 8000
"""

import asyncio
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.runs.cli import one_line_errors
from agent.runs.fields import ConfigError
from eval.arguments import parser
from eval.play.models import Models

if TYPE_CHECKING:
    from eval.play.server import Server


def main(argv: Sequence[str]) -> None:
    """Serve until Ctrl-C."""
    options = parser("play", __doc__)
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, runs/<name>")
    options.add_argument("--port", type=int, default=0, help="of the page's address (default: 0, any that is free)")
    words = "recorded episodes to start from (default: each run's own, RUN/episodes)"
    options.add_argument("--episodes", type=Path, metavar="FOLDER", help=words)
    given = options.parse_args(argv)
    if not 0 <= given.port < 65536:
        options.error("--port wants a number from 0 to 65535")
    with one_line_errors():
        server = _server(given.runs, given.episodes)
        try:
            asyncio.run(_serve(server, given.port))
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
        except OSError as error:
            raise ConfigError(f"port {given.port} cannot be used: {error.strerror}: give another --port") from None


def _server(runs: Sequence[Path], episodes: Path | None) -> "Server":
    """With the first run loaded. Raises ConfigError and CheckpointError."""
    try:
        from eval.play.server import Server
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise ConfigError("eval.play needs aiohttp: pip install 'lssvwm[play]'") from None
    if episodes is not None and not episodes.is_dir():
        raise ConfigError(f"--episodes {episodes} is no folder")
    models = Models(runs)
    models.get(0)
    return Server(models, secrets.token_urlsafe(24), episodes)


async def _serve(server: "Server", port: int) -> None:
    from aiohttp import web

    from eval.play.server import HOST

    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        print(f"http://{HOST}:{runner.addresses[0][1]}/?token={server.token}", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Serves the page and a websocket: only to this machine, only to who has the token.

Each visitor has a thread of their own, which keeps their session: two do not wait for each other, and an OpenGL
context stays in the thread that made it.
"""

import asyncio
import hmac
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

import envs
from agent.runs.checkpoint import CheckpointError
from agent.runs.fields import ConfigError
from eval.play.models import Models
from eval.play.session import Session
from replay import CorruptEpisode

HOST = "127.0.0.1"
LOCAL = {"127.0.0.1", "localhost"}
"""This machine's names in the address, also behind a tunnel from another machine."""
MOST_VISITORS = 8
LONGEST_MESSAGE = 4096

READABLE = (ConfigError, CheckpointError, CorruptEpisode, envs.UnknownEnvironment)
"""What runs, files and environments raise that the person can fix; anything else keeps its traceback."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
"""The page asks nothing of any other place, and the address with its token goes nowhere."""


class Server:
    """The page, and its visitors' sessions."""

    def __init__(self, models: Models, token: str, episodes: Path | None = None):
        self.models, self.token, self.episodes = models, token, episodes
        self.visitors: set[web.WebSocketResponse] = set()
        self.page = resources.files("eval.play").joinpath("page.html").read_text(encoding="utf-8")

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/", self._page)
        application.router.add_get("/socket", self._socket)
        application.on_shutdown.append(self._close)
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """403 without the token, or under a name that is not this machine's (DNS rebinding)."""
        given = request.query.get("token", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return _refusal("This page opens at the whole address that python -m eval.play printed, token included.")
        if _name(f"//{request.host}") not in LOCAL:
            return _refusal(f"This page is at http://{HOST} or http://localhost, not at {request.host}.")
        return await handler(request)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=self.page, content_type="text/html", headers=HEADERS)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """A visitor, from hello to leaving."""
        origin = request.headers.get("Origin", "")
        if origin != f"http://{request.host}":
            return _refusal(f"A websocket from {origin or 'no page'}: only the page itself may open one.")
        socket = web.WebSocketResponse(heartbeat=30, max_msg_size=LONGEST_MESSAGE)
        await socket.prepare(request)
        if len(self.visitors) >= MOST_VISITORS:
            await socket.send_json({"error": f"{MOST_VISITORS} visitors are here already: close a page, then reload"})
            await socket.close()
            return socket
        self.visitors.add(socket)
        thread = ThreadPoolExecutor(1, thread_name_prefix="visitor")
        try:
            await self._serve(socket, thread)
        finally:
            self.visitors.discard(socket)
            thread.shutdown(wait=False)
        return socket

    async def _serve(self, socket: web.WebSocketResponse, thread: ThreadPoolExecutor) -> None:
        """One answer to each message, in order."""
        run = asyncio.get_running_loop().run_in_executor
        try:
            session = await run(thread, Session, self.models, self.episodes)
        except Exception as error:
            await socket.send_json({"error": _readable(error), "fatal": True})
            await socket.close()
            return
        try:
            await socket.send_json(session.hello())
            await socket.send_bytes(await run(thread, session.do, {"do": "look"}))
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    continue
                try:
                    await socket.send_bytes(await run(thread, session.do, _parsed(message.data)))
                except ConnectionResetError:
                    return
                except Exception as error:
                    await socket.send_json({"error": _readable(error)})
        except ConnectionResetError:  # left in the middle of an answer
            return
        finally:
            run(thread, session.close)

    async def _close(self, application: web.Application) -> None:
        for socket in set(self.visitors):
            await socket.close(message=b"the server was stopped")


def _parsed(text: str) -> dict[str, object]:
    """A message of the page. Raises ConfigError."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ConfigError("a message is a JSON object with `do`")
    return message


def _readable(error: Exception) -> str:
    """One line for the page, said on the terminal as well."""
    if isinstance(error, OSError):
        line = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    elif isinstance(error, READABLE):
        line = str(error.args[0])
    else:
        traceback.print_exception(error)
        return f"{type(error).__name__}: the terminal has the rest"
    print(line, file=sys.stderr, flush=True)
    return line


def _refusal(words: str) -> web.Response:
    return web.Response(status=403, text=words + "\n", headers=HEADERS)


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None

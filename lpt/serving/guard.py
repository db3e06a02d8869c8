"""What stands in front of the application: size of a body, token, time and count of requests."""

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lpt.serving.limits import Limits
from lpt.serving.measures import Measures

OPEN = ("/", "/health")  # without a token


class Guard:
    """ASGI middleware.

    Args:
        app: the application.
        limits: of a request.
        token: that requests must bear; None: none.
        measures: where requests are counted.
        paths: those that are counted by their own name.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None, measures: Measures, paths: frozenset[str]):
        self.app, self.limits, self.token, self.measures, self.paths = app, limits, token, measures, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let through and count."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self.token is not None and scope["path"] not in OPEN and not self._bears_token(headers):
                await _refuse(
                    401, "this server needs its token: Authorization: Bearer <token>", scope, receive, counted
                )
            elif not _small(headers, self.limits.bytes):
                await self._too_large(scope, receive, counted)
            else:
                await self._limited(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.measures.requests.labels(path, str(status)).inc()
            self.measures.seconds.labels(path).observe(time.perf_counter() - started)

    def _bears_token(self, headers: dict[str, str]) -> bool:
        assert self.token is not None
        expected = f"Bearer {self.token}".encode()
        return hmac.compare_digest(headers.get("authorization", "").encode("latin-1"), expected)

    async def _limited(self, scope: Scope, receive: Receive, send: Callable[[Message], Awaitable[None]]) -> None:
        """Read the body as far as it may go, whatever its header says, and give it to the application."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limits.bytes:
                await self._too_large(scope, receive, send)
                return
        given = False

        async def again() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)

    async def _too_large(self, scope: Scope, receive: Receive, send: Callable[[Message], Awaitable[None]]) -> None:
        said = f"the body is larger than {self.limits.megabytes:g} MB; send fewer texts at a time"
        await _refuse(413, said, scope, receive, send)


def _small(headers: dict[str, str], most: int) -> bool:
    length = headers.get("content-length", "0")
    return not length.isdecimal() or int(length) <= most


async def _refuse(
    status: int, detail: str, scope: Scope, receive: Receive, send: Callable[[Message], Awaitable[None]]
) -> None:
    await JSONResponse({"detail": detail}, status)(scope, receive, send)

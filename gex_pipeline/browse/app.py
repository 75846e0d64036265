"""The pages and answers of ``gex shards browse``: an open index in, an ASGI application out.

Every address is one of the routes below; no part of an address is ever opened as a path. Which sample is meant stands
in the query, since browsers take ``.`` and ``..``, which keys of other people's tars hold, out of a path. Samples are
looked up in the index, so what the manifest does not name is not found. Nothing is written, and only GET and HEAD are
answered.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gex_pipeline import report
from gex_pipeline.browse import details, losses, queries
from gex_pipeline.browse.index import Index
from gex_pipeline.browse.media import CONTENT_TYPES, frame_place, iter_pieces, parse_range, place_of
from gex_pipeline.browse.posters import NoPosterError, Posters
from gex_pipeline.errors import FileMissingError, FileTooShortError, GexError
from gex_pipeline.shards.manifest import Manifest

_MAX_POSTERS = 4  # made at the same time
_NUM_COLOURS = 8  # of the report's sheet
_STATIC = Path(__file__).parent / "static"
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/browse.css": ("browse.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "dom", "filters", "frames", "grid", "losses", "sample", "state")
    },
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATUS = (
    (queries.BadRequestError, HTTPStatus.BAD_REQUEST),
    (NoPosterError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (FileMissingError, HTTPStatus.NOT_FOUND),
    (FileTooShortError, HTTPStatus.NOT_FOUND),
)


def make_app(index: Index, title: str, hosts: Sequence[str] | None) -> ASGIApp:
    """The application; requests for other `hosts` are refused, where there are any."""
    site = _Site(index, title)
    files = {"/report.css": (Path(report.__file__).parent / "style.css", "text/css; charset=utf-8")}
    files |= {address: (_STATIC / name, kind) for address, (name, kind) in _PAGES.items()}
    routes = [Route(address, _file(path.read_bytes(), kind)) for address, (path, kind) in files.items()]
    routes += [
        Route("/api/dataset", site.dataset),
        Route("/api/samples", site.samples),
        Route("/api/count", site.count),
        Route("/api/neighbours", site.neighbours),
        Route("/api/spread", site.spread),
        Route("/api/losses", site.loss_page),
        Route("/api/losses/counts", site.loss_counts),
        Route("/api/sample", site.sample),
        Route("/api/lineage", site.lineage),
        Route("/poster", site.poster),
        Route("/media", site.media),
    ]
    app = Starlette(routes=routes, exception_handlers={GexError: _refusal, 404: _unknown, 405: _unknown})
    return _Guard(app, None if hosts is None else frozenset(hosts))


def _file(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


class _Json(JSONResponse):
    """JSON of whatever metadata hold: numbers that are none are null, other types are texts."""

    def render(self, content: Any) -> bytes:
        return json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, default=str).encode()


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(name): _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


class _Site:
    """The answers. Those that ask the index run in threads, one connection each."""

    def __init__(self, index: Index, title: str) -> None:
        self._index = index
        self._title = title
        self._posters = Posters(index)
        self._turns = asyncio.Semaphore(_MAX_POSTERS)
        self._spreads: dict[tuple[str, str], dict[str, Any] | None] = {}

    def dataset(self, _: Request) -> Response:
        """What there is to choose from."""
        manifest = self._index.target.manifest
        with self._index.session() as database:
            totals = database.rows("browse_totals")
        names = list(manifest.granularity_names()) if manifest else sorted({row["granularity"] for row in totals})
        shown = [name for name in names if self._index.only in (None, name)]
        content = {
            "title": self._title,
            "name": manifest.name if manifest else self._title,
            "is_output": manifest is not None,
            "granularities": [
                {"name": name, "samples": sum(row["samples"] for row in totals if row["granularity"] == name)}
                for name in shown
            ],
            "colours": {name: number % _NUM_COLOURS for number, name in enumerate(_in_recipe(manifest) or names)},
            "snapshots": sorted({row["snapshot"] for row in totals if row["snapshot"] is not None}),
            "quantities": ["words", "duration", *(f"score.{name}" for name in self._index.scores)],
            "notes": self._index.notes,
        }
        return _Json(content)

    def samples(self, request: Request) -> Response:
        """A page of samples."""
        with self._index.session() as database:
            return _Json(queries.page(self._index, database, request.query_params))

    def count(self, request: Request) -> Response:
        """How many samples match."""
        with self._index.session() as database:
            return _Json({"num": queries.count(self._index, database, request.query_params)})

    def neighbours(self, request: Request) -> Response:
        """The samples before and after one, which ``of.granularity``, ``of.key`` and ``of.tar`` name."""
        sample_id = self._find(request, "of.")
        with self._index.session() as database:
            return _Json(queries.neighbours(self._index, database, request.query_params, sample_id))

    def spread(self, request: Request) -> Response:
        """A histogram of one quantity, for the choice of its bounds."""
        chosen = (request.query_params.get("granularity", ""), request.query_params.get("quantity", ""))
        if chosen not in self._spreads:
            with self._index.session() as database:
                found = queries.spread(self._index, database, *chosen)
            if found is not None:  # of what exists only, so that no request can fill the memory
                self._spreads[chosen] = found
        return _Json(self._spreads.get(chosen))

    def loss_counts(self, _: Request) -> Response:
        """Losses by reason."""
        with self._index.session() as database:
            return _Json({"counts": losses.loss_counts(self._index, database)})

    def loss_page(self, request: Request) -> Response:
        """A page of losses."""
        with self._index.session() as database:
            return _Json(losses.loss_page(self._index, database, request.query_params))

    def sample(self, request: Request) -> Response:
        """One sample."""
        with self._index.session() as database:
            return _Json(details.sample(self._index, database, self._find(request)))

    def lineage(self, request: Request) -> Response:
        """What a sample was made of and what was made of it."""
        with self._index.session() as database:
            return _Json(details.lineage(self._index, database, self._find(request)))

    async def poster(self, request: Request) -> Response:
        """A small picture; a few at a time, so that they never take the threads that answer everything else."""
        async with self._turns:
            made = await run_in_threadpool(lambda: self._posters.poster(self._find(request)))
        return Response(made, media_type="image/jpeg")

    def media(self, request: Request) -> Response:
        """The bytes of a video or picture, or a range of them; with ``frame=N``, of one of the sample's frames."""
        with self._index.session() as database:
            row = self._index.row(database, self._find(request))
        frame = request.query_params.get("frame")
        place = frame_place(self._index, row, queries.whole("frame", frame)) if frame else place_of(self._index, row)
        headers = {"Accept-Ranges": "bytes"}
        try:
            span = parse_range(request.headers.get("range"), place.size_bytes)
        except GexError as error:
            headers["Content-Range"] = f"bytes */{place.size_bytes}"
            return _Json({"error": str(error)}, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
        start, end = span or (0, place.size_bytes)
        if span:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{place.size_bytes}"
        headers["Content-Length"] = str(end - start)
        pieces = iter(()) if request.method == "HEAD" else iter_pieces(place, start, end)
        status = HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK
        return StreamingResponse(pieces, status, headers, CONTENT_TYPES[place.extension])

    def _find(self, request: Request, prefix: str = "") -> int:
        granularity, key, tar = (request.query_params.get(prefix + name) for name in ("granularity", "key", "tar"))
        with self._index.session() as database:
            return self._index.find(database, granularity or "", key or "", tar)


def _in_recipe(manifest: Manifest | None) -> list[str]:
    """The granularities in the order of the recipe, by which the report gives them their colours."""
    return list(manifest.snapshots[-1].recipe.get("granularity", ())) if manifest and manifest.snapshots else []


def _refusal(_: Request, error: Exception) -> Response:
    """One sentence for a person."""
    is_passing = isinstance(error, GexError) and error.transient
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_passing else HTTPStatus.INTERNAL_SERVER_ERROR
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), status)
    return _Json({"error": str(error)}, status)


def _unknown(_: Request, error: Any) -> Response:
    return _Json({"error": "there is nothing at this address"}, error.status_code, error.headers)


class _Guard:
    """Refuses requests that name another host, and says in every answer what a browser may do with it.

    A page elsewhere can have its own name lead to this machine and read everything as its own (DNS rebinding); then
    its requests carry that name. The port is not compared: through an SSH tunnel it is another one. Nor may a page
    elsewhere have this one's data asked for, though it could not read them; a link to this page is followed.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *((name, value) for name, value in message["headers"]),
                    *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        if self._hosts is not None and host_name(_headers(scope).get("host", "")) not in self._hosts:
            refused = _Json({"error": "this page answers to its own name only"}, HTTPStatus.MISDIRECTED_REQUEST)
            await refused(scope, receive, send_guarded)
            return
        if scope["path"] != "/" and _headers(scope).get("sec-fetch-site") == "cross-site":
            await _Json({"error": "asked for by another page"}, HTTPStatus.FORBIDDEN)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def _headers(scope: Scope) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def host_name(header: str) -> str:
    """The name in a ``Host`` header, without its port and an IPv6 address's brackets."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
    return name.removeprefix("[").removesuffix("]").lower()

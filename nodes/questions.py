"""Open questions to whoever sits at the browser that queued a prompt: asked by a node that runs, answered through the server.

A page says that it can answer (`/fluxir/choice/open`, which also gives it the question that is open), is told by an event that
there is something new, and answers with numbers of what it was offered. Nothing else is taken from it.
"""

import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field

import comfy.model_management
from aiohttp import web

from ..fluxir_core.flux.weight_files import parse_json
from ..fluxir_core.verify.artist import Unanswered

EVENT = "fluxir.question"
LONGEST = 16_384
"""Bytes of what a page may send."""
AWAY = 20
"""Seconds that a page may be away: as long as a reload takes at most."""
MOST_PAGES = 64
"""Pages that are remembered; a server has few at once, and those that are gone are forgotten."""


class Refused(Exception):
    """What a page sent is not taken: an HTTP status and why."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


@dataclass
class Question:
    """Asked of the page `client` of `user`: JPEG files by name, `degraded` and the candidates' numbers from 0 on, of width over height `aspect`; `rank`: several may be
    answered. `answer` is a list of numbers once there is one."""

    client: str
    user: str
    images: dict
    rank: bool
    aspect: float
    until: float
    answer: list | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    answered: threading.Event = field(default_factory=threading.Event)

    def to_json(self):
        return {
            "id": self.id,
            "candidates": sum(name != "degraded" for name in self.images),
            "degraded": "degraded" in self.images,
            "rank": self.rank,
            "aspect": self.aspect,
            "seconds": max(0, round(self.until - time.monotonic(), 1)),
        }


class Questions:
    """All that are open, and the pages that can answer: {client id: user}. Used by the server's thread and by the one that runs."""

    def __init__(self):
        self._lock, self._open, self._pages = threading.Lock(), {}, OrderedDict()

    def arrive(self, client, user):
        """A page of `user` that can answer says that it is there. Returns what is open for it, or None. Raises Refused where
        that was asked of another user."""
        with self._lock:
            asked = next((question for question in self._open.values() if question.client == client), None)
            if asked is not None and asked.user != user:
                raise Refused(403, "a question is open in this page, for another user.")
            self._pages[client] = user
            self._pages.move_to_end(client)
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return asked

    def user_of(self, client):
        """Whose page `client` is; ComfyUI's "default" where no page said so."""
        with self._lock:
            return self._pages.get(client, "default")

    def knows(self, client):
        with self._lock:
            return client in self._pages

    def image(self, question, name):
        """A JPEG file of an open question. Raises Refused."""
        with self._lock:
            images = self._open[question].images if question in self._open else {}
        if name not in images:
            raise Refused(404, "no such image is offered.")
        return images[name]

    def answer(self, client, question, ranking):
        """Takes `ranking`, numbers of candidates, the best first; an empty one leaves the choice to the verifier. Raises Refused."""
        with self._lock:
            asked = self._open.get(question) if isinstance(question, str) else None
            if asked is None or asked.client != client or asked.answered.is_set():
                raise Refused(404, "this question is not open.")
            offered = {int(name) for name in asked.images if name != "degraded"}
            numbers = isinstance(ranking, list) and all(type(number) is int for number in ranking)
            if not numbers or not {*ranking} <= offered or len({*ranking}) < len(ranking):
                raise Refused(400, "the ranking is no list of candidates that were offered.")
            if len(ranking) > 1 and not asked.rank:
                raise Refused(400, "one candidate was asked for.")
            asked.answer = ranking
            asked.answered.set()

    def ask(self, server, client, images, rank, aspect, seconds):
        """Shows `images` (see Question) in the page `client` of `server` and waits. Returns its answer.

        Raises Unanswered after `seconds`, or when the page has been away for AWAY; canceling the run ends it as it ends any node.
        """
        question = Question(client, self.user_of(client), images, rank, aspect, time.monotonic() + seconds)
        with self._lock:
            self._open[question.id] = question
        server.send_sync(EVENT, {}, client)
        try:
            last_seen = time.monotonic()
            while not question.answered.wait(0.1):
                comfy.model_management.throw_exception_if_processing_interrupted()
                now = time.monotonic()
                last_seen = now if client in server.sockets else last_seen
                if now > question.until:
                    raise Unanswered(f"Nobody chose within {seconds} s")
                if now > last_seen + AWAY:
                    raise Unanswered("The browser was closed")
            return question.answer
        finally:
            with self._lock:
                del self._open[question.id]
            server.send_sync(EVENT, {}, client)


QUESTIONS = Questions()


async def sent(request):
    """The JSON object in `request`. Raises Refused where it is none, or longer than LONGEST."""
    if request.content_length is None or request.content_length > LONGEST:
        raise Refused(413, f"send at most {LONGEST} bytes, and say how many.")
    try:
        content = parse_json(await request.text())
    except ValueError:  # also where it is no UTF-8
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("client"), str) or len(content["client"]) > 100:
        raise Refused(400, "send an object in JSON, with the page's client id.")
    return content


def answering(handler):
    """`handler` with Refused as its HTTP status."""

    async def handle(request):
        try:
            return await handler(request)
        except Refused as refused:
            return web.Response(status=refused.status, text=str(refused))

    return handle


def user_of(server, request):
    """The user who sends `request`, as ComfyUI knows them. Raises Refused for one that it does not know."""
    try:
        return server.user_manager.get_request_user_id(request)
    except KeyError:
        raise Refused(401, "the user is unknown.") from None


def add_question_routes(server):
    """The three routes of questions on ComfyUI's `server`."""

    @server.routes.post("/fluxir/choice/open")
    @answering
    async def find(request):
        content = await sent(request)
        question = QUESTIONS.arrive(content["client"], user_of(server, request))
        return web.json_response({"question": question and question.to_json()})

    @server.routes.post("/fluxir/choice/answer")
    @answering
    async def take(request):
        content = await sent(request)
        QUESTIONS.answer(content["client"], content.get("question"), content.get("ranking"))
        return web.json_response({})

    @server.routes.get("/fluxir/choice/{question}/{image}")
    @answering
    async def show(request):
        image = QUESTIONS.image(request.match_info["question"], request.match_info["image"])
        return web.Response(body=image, content_type="image/jpeg", headers={"Cache-Control": "no-store"})

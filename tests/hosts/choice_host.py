"""A page of Choose Yourself without a browser: it speaks to ComfyUI's server as `web/js/choose.js` does."""

import asyncio
import itertools
import json
import urllib.error
import urllib.request
import uuid
from contextlib import asynccontextmanager

import aiohttp

WIDTHS = itertools.count(64)
"""Every graph has images of a size of its own: ComfyUI does not run again what it has run before."""
COLORS = {"red": 0xFF0000, "green": 0x00FF00, "blue": 0x0000FF}


def call(server, path, content=None, method=None, headers=None):
    """(HTTP status, body) of what the server says to `content`: bytes, or anything as JSON."""
    data = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
    request = urllib.request.Request(
        server.url + path, data, {"Content-Type": "application/json", **(headers or {})}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def choosing(colors=COLORS, **inputs):
    """A graph (API format) in which one of single-colored images is chosen and saved; `inputs` are Choose Yourself's."""
    width = next(WIDTHS)
    graph = {
        name: {"class_type": "EmptyImage", "inputs": {"width": width, "height": 48, "batch_size": 1, "color": color}}
        for name, color in colors.items()
    }
    batch = None
    for name in colors:
        if batch is None:
            batch = [name, 0]
        else:
            graph[f"{name} too"] = {"class_type": "ImageBatch", "inputs": {"image1": batch, "image2": [name, 0]}}
            batch = [f"{name} too", 0]
    settings = {"ask_for": "the best", "seconds": 60, "keep_choices": False} | inputs
    return graph | {
        "judge": {"class_type": "FluxIRNaturalImageVerifier", "inputs": {}},
        "choose": {"class_type": "FluxIRChooseYourself", "inputs": {"verifier": ["judge", 0], **settings}},
        "score": {
            "class_type": "FluxIRScoreImages",
            "inputs": {"images": batch, "verifier": ["choose", 0], "keep": 1, "degraded": [next(iter(colors)), 0]},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["score", 0], "filename_prefix": f"chosen{width}"}},
        "text": {"class_type": "PreviewAny", "inputs": {"source": ["score", 2]}},
    }


class Page:
    """A connected page; with `script` it says that it can answer."""

    def __init__(self, server, session, events, client):
        self.server, self.session, self.events, self.client = server, session, events, client
        self.texts = []

    async def post(self, path, **content):
        async with self.session.post(f"{self.server.url}/fluxir/choice/{path}", json={"client": self.client, **content}) as answer:
            return answer.status, (await answer.json() if answer.status == 200 else await answer.text())

    async def queue(self, graph):
        async with self.session.post(f"{self.server.url}/prompt", json={"prompt": graph, "client_id": self.client}) as answer:
            return (await answer.json())["prompt_id"]

    async def question(self):
        """The question that is open for this page, once there is one."""
        for _ in range(300):
            found = (await self.post("open"))[1]["question"]
            if found:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError("no question came")

    async def image(self, question, name):
        async with self.session.get(f"{self.server.url}/fluxir/choice/{question['id']}/{name}") as answer:
            return answer.status, await answer.read()

    async def finished(self, prompt):
        """The outputs of the prompt; raises AssertionError with what went wrong, or "interrupted"."""
        async for event in self.events:
            if event.type == aiohttp.WSMsgType.BINARY and event.data[:4] == (3).to_bytes(4, "big"):
                self.texts.append(event.data[8:].decode(errors="replace"))
            if event.type != aiohttp.WSMsgType.TEXT:
                continue
            message = json.loads(event.data)
            kind, data = message["type"], message.get("data", {})
            if data.get("prompt_id") != prompt:
                continue
            assert kind != "execution_error", data["exception_message"]
            assert kind != "execution_interrupted", "interrupted"
            if kind == "executing" and data["node"] is None:
                return self.server.get(f"/history/{prompt}")[prompt]["outputs"]
        raise AssertionError("the connection was closed")


@asynccontextmanager
async def page_of(server, script=True, client=None):
    client = client or uuid.uuid4().hex
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/ws?clientId={client}", max_msg_size=0) as events,
    ):
        page = Page(server, session, events, client)
        if script:
            await page.post("open")
        yield page

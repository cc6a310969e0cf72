"""A headless ComfyUI server with this pack linked in, and running a workflow on it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180


class ComfyUIError(Exception):
    """Why the server or a workflow did not run, in one sentence."""


class ComfyUIServer:
    """Context manager: ComfyUI from `comfyui` (its folder) on 127.0.0.1:`port`, with `base` as its base directory.

    `frontend` is the folder of another frontend than its own.

    The pack is linked into `base`/custom_nodes; inputs, outputs and models live in `base`. Without a CUDA device it runs
    on the CPU. The log is `base`/comfyui.log. Raises ComfyUIError when the port is taken or the server does not come up.
    """

    def __init__(self, comfyui, base, port, frontend=None):
        self.frontend = frontend
        self.comfyui, self.base, self.port = Path(comfyui), Path(base).resolve(), port
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise ComfyUIError(f"port {self.port} is in use; stop what runs there or choose another with PORT=.")
        packs = self.base / "custom_nodes"
        packs.mkdir(parents=True, exist_ok=True)
        link = packs / "comfyui-fluxir"
        if not link.is_symlink():
            link.symlink_to(ROOT, target_is_directory=True)
        import torch

        command = [
            sys.executable,
            "main.py",
            "--port",
            str(self.port),
            "--base-directory",
            str(self.base),
            "--database-url",
            "sqlite:///:memory:",
            "--disable-api-nodes",
            "--disable-auto-launch",
            *(["--front-end-root", str(self.frontend)] if self.frontend else []),
            *([] if torch.cuda.is_available() else ["--cpu"]),
        ]
        self.log = self.base / "comfyui.log"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, cwd=self.comfyui, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _wait(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ComfyUIError(f"ComfyUI stopped while starting ({self._last_line()}); its log is {self.log}.")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        raise ComfyUIError(f"ComfyUI did not answer within {START_SECONDS} s; its log is {self.log}.")

    def _last_line(self):
        lines = self.log.read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else "no output"

    def get(self, path):
        """The JSON at `path`, such as /object_info."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def run(self, workflow, progress=None, ui=None):
        """Queues `workflow` (API format) and waits. Returns the paths of the images it saved, by node id.

        `progress(node_id, step, steps)` is called as nodes report. `ui` is the same graph in UI format, which the frontend
        sends along for the images' metadata. Raises ComfyUIError with the node's message on an error.
        """
        return asyncio.run(self._run(workflow, progress or (lambda *_: None), ui))

    async def _run(self, workflow, progress, ui):
        import aiohttp

        client = uuid.uuid4().hex
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0) as events,
        ):
            request = {"prompt": workflow, "client_id": client}
            if ui is not None:
                request["extra_data"] = {"extra_pnginfo": {"workflow": ui}}
            queued = await session.post(f"{self.url}/prompt", json=request)
            answer = await queued.json()
            if queued.status != 200:
                raise ComfyUIError(f"ComfyUI refused the workflow: {_validation_message(answer, workflow)}")
            async for event in events:
                if event.type != aiohttp.WSMsgType.TEXT:
                    continue
                message = json.loads(event.data)
                kind, data = message["type"], message.get("data", {})
                if data.get("prompt_id") != answer["prompt_id"]:
                    continue
                if kind == "progress":
                    progress(data["node"], data["value"], data["max"])
                elif kind == "execution_error":
                    raise ComfyUIError(f"{data['node_type']}: {data['exception_message'].strip()}")
                elif kind == "execution_interrupted":
                    raise ComfyUIError(f"{data['node_type']}: interrupted")
                elif kind == "executing" and data["node"] is None:  # sent when the history is written
                    return self._outputs(answer["prompt_id"])
        raise ComfyUIError(f"ComfyUI closed the connection ({self._last_line()}); its log is {self.log}.")

    def _outputs(self, prompt_id):
        outputs = self.get(f"/history/{prompt_id}")[prompt_id]["outputs"]
        return {
            node: [self.base / image["type"] / image["subfolder"] / image["filename"] for image in output.get("images", [])]
            for node, output in outputs.items()
        }


def _validation_message(answer, workflow):
    for node, errors in answer.get("node_errors", {}).items():
        for error in errors["errors"]:
            return f"{workflow[node]['class_type']}: {error['message']} ({error['details']})"
    return answer.get("error", {}).get("message", "no reason given")

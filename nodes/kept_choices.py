"""The file of an artist's choices in ComfyUI's user folder: written where a switch says so, deleted by a button."""

from pathlib import Path

import folder_paths
from aiohttp import web

from ..fluxir_core.verify.taste import Choice, choice_line, read_choices
from .questions import answering, user_of


def choices_file(user="default"):
    """Where the choices of `user`, a name that ComfyUI has checked, are kept."""
    return Path(folder_paths.get_user_directory()) / user / "fluxir" / "choices.jsonl"


def keep(user, scores, ranking):
    """Adds a choice to the file: the scores of what was offered and what was chosen, no image and no name."""
    path = choices_file(user)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(choice_line(Choice(scores, ranking)))


def kept(user="default"):
    """(Choices, number of broken lines) of `user`."""
    path = choices_file(user)
    return read_choices(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ([], 0)


def add_choices_routes(server):
    """How many choices are kept, and deleting them, on ComfyUI's `server`."""

    @server.routes.get("/fluxir/choices")
    @answering
    async def count(request):
        return web.json_response({"choices": len(kept(user_of(server, request))[0])})

    @server.routes.delete("/fluxir/choices")
    @answering
    async def delete(request):
        choices_file(user_of(server, request)).unlink(missing_ok=True)
        return web.json_response({"choices": 0})

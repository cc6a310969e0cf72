"""The node that lets whoever looks at the images be the verifier."""

import io as files
import logging
from collections import Counter

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from PIL import Image

from ..fluxir_core.verify.artist import ArtistsChoice, Unanswered
from .kept_choices import keep
from .questions import QUESTIONS
from .runtime import current_server, speaker
from .verifiers import LoadedVerifier, Verifier

NODE = "Choose Yourself"
BEST, RANKING = "the best", "a ranking"
LARGEST = 2048
"""Pixels of the longer side of what is shown."""
MISSED = Counter()
"""Questions that nobody answered, by the node's id: where one was missed, the next Run runs the node again, and so asks again."""
AGAIN = "Press Run to be asked again."


class Asking:
    """What ArtistsChoice asks with: the browser that queued the prompt. After a question that nobody answered, a run's others are
    not asked. `node` is the id by which MISSED counts."""

    def __init__(self, node, rank, seconds, keep_choices, say):
        self.node, self.rank, self.seconds, self.keep_choices, self.say = node, rank, seconds, keep_choices, say
        self._missed = None, ""

    def __call__(self, offer):
        try:
            answer = self._answer(offer)
        except Unanswered as reason:
            self.say(reason.remark("the verifier"))
            raise
        self.say(f"Chosen.{self._keep(offer.scores, answer) if self.keep_choices else ''}")
        return answer

    def _keep(self, scores, answer):
        """Writes the choice down; returns what is to be said of that."""
        try:
            keep(QUESTIONS.user_of(client()), scores, answer)
        except OSError as error:
            return f" It could not be written down for My Taste ({error.strerror or error})."
        return ""

    def _answer(self, offer):
        page, run = client(), current_run()
        if page is None:
            raise self._miss(run, "No ComfyUI page was open to ask you")
        if run is not None and self._missed[0] == run:
            raise Unanswered(self._missed[1], AGAIN)
        self.say(f"Waiting for your choice among {len(offer.images)} candidates, at most {self.seconds} s.")
        images = {str(number): _jpeg(image) for number, image in enumerate(offer.images)}
        if offer.degraded is not None:
            images["degraded"] = _jpeg(offer.degraded)
        height, width = offer.images[0].shape[1:]
        try:
            answer = QUESTIONS.ask(current_server(), page, images, self.rank, width / height, self.seconds)
        except Unanswered as reason:
            raise self._miss(run, str(reason)) from None
        if not answer:
            raise Unanswered("It was left to the verifier")
        return answer

    def _miss(self, run, reason):
        """Unanswered for `reason`, a text: an exception that is kept keeps all that its traceback reaches."""
        self._missed = run, reason
        MISSED[self.node] += 1
        return Unanswered(reason, AGAIN)


def client():
    """The page that queued what runs, if it said that it can answer; else None."""
    server = current_server()
    page = server and server.client_id
    return page if page is not None and QUESTIONS.knows(page) else None


def current_run():
    """The id of the prompt that runs, None outside one."""
    context = get_executing_context()
    return context and context.prompt_id


def _jpeg(pixels):
    """(3, H, W) uint8 as a JPEG file."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = files.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


class ChooseYourself(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRChooseYourself",
            display_name=NODE,
            category="FluxIR/search",
            description="Shows you the candidates beside the degraded image, and waits for your click. You are the judge.",
            search_aliases=["image chooser", "pick image", "select", "preview chooser", "human", "pause", "fluxir"],
            inputs=[
                Verifier.Input(
                    "verifier",
                    tooltip="Decides where you do not: after the time limit, or when no ComfyUI page is open. Its scores are what My "
                    "Taste learns from.",
                ),
                io.Combo.Input(
                    "ask_for",
                    options=[BEST, RANKING],
                    default=BEST,
                    tooltip="the best: one click chooses. a ranking: click the candidates in order, as many as you like.",
                ),
                io.Int.Input(
                    "seconds",
                    default=120,
                    min=5,
                    max=86400,
                    tooltip="How long to wait for you. After that the verifier decides this and all later rounds.",
                ),
                io.Boolean.Input(
                    "keep_choices",
                    default=False,
                    tooltip="Write down your choices with the verifier's scores, for My Taste. They stay in ComfyUI's user folder; no "
                    "image is kept.",
                ),
            ],
            outputs=[
                Verifier.Output(
                    display_name="verifier",
                    tooltip="For TTS Sampler (test-time search), or for Score Images to choose from any batch.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs):
        return MISSED[cls.hidden.unique_id]

    @classmethod
    def execute(cls, verifier, ask_for, seconds, keep_choices) -> io.NodeOutput:
        node = cls.hidden.unique_id if cls.hidden is not None else None
        asking = Asking(node, ask_for == RANKING, seconds, keep_choices, speaker(cls, logging.INFO))
        return io.NodeOutput(LoadedVerifier(ArtistsChoice(verifier.ensemble, asking, current_run), verifier.patchers))

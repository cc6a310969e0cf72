"""How Choose Yourself asks, in the ComfyUI of this process: what it keeps, what it forgives, and whom it tells what is open."""

import gc
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import torch

OFFERED = [torch.full((3, 8, 8), level, dtype=torch.uint8) for level in (10, 200)]


@pytest.fixture
def asking(comfy, monkeypatch):
    """(an Asking that says to a list, that list, nodes.choose), in a run and a page of its own."""
    from comfyui_fluxir.nodes import choose

    said = []
    monkeypatch.setattr(choose, "client", lambda: "a page")
    monkeypatch.setattr(choose, "current_run", lambda: "a run")
    monkeypatch.setattr(choose, "MISSED", type(choose.MISSED)())
    return choose.Asking("7", False, 5, True, said.append), said, choose


def offer():
    from comfyui_fluxir.fluxir_core.verify.artist import Offer

    return Offer(OFFERED, None, [{"niqe": 1.0}, {"niqe": 2.0}])


class Large:
    """Stands for the images and models of a run."""


def test_a_missed_question_keeps_nothing_of_its_run_alive(asking, monkeypatch):
    from comfyui_fluxir.fluxir_core.verify.artist import Unanswered

    ask, said, choose = asking
    asked = []

    def nobody(*_arguments):
        asked.append(1)
        raise Unanswered("Nobody chose within 5 s")

    monkeypatch.setattr(choose.QUESTIONS, "ask", nobody)

    def run():
        large = Large()
        try:
            ask(offer())
        except Unanswered as reason:
            assert str(reason) == "Nobody chose within 5 s" and reason.remedy == "Press Run to be asked again."
        return weakref.ref(large)

    kept = [run(), run()]
    gc.collect()
    assert [reference() for reference in kept] == [None, None]
    assert len(asked) == 1 and choose.MISSED["7"] == 1  # a run's further questions are not asked
    assert said[-1] == "Nobody chose within 5 s, so the verifier decided. Press Run to be asked again."


def test_a_choice_that_cannot_be_written_down_stands(asking, monkeypatch):
    ask, said, choose = asking

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(choose.QUESTIONS, "ask", lambda *_arguments: [1])
    monkeypatch.setattr(choose, "keep", full)
    assert ask(offer()) == [1]
    assert said[-1] == "Chosen. It could not be written down for My Taste (No space left on device)."


def test_an_open_question_is_told_to_nobody_but_the_user_it_was_asked_of(comfy):
    from comfyui_fluxir.nodes.questions import Questions, Refused

    questions, found = Questions(), []
    questions.arrive("a page", "ann")
    server = SimpleNamespace(send_sync=lambda *_arguments: None, sockets={"a page": None})
    asked = threading.Thread(target=lambda: found.append(questions.ask(server, "a page", {"0": b"", "1": b""}, False, 1, 30)))
    asked.start()
    while not (question := questions.arrive("a page", "ann")):
        time.sleep(0.01)
    with pytest.raises(Refused, match="a question is open in this page, for another user") as refused:
        questions.arrive("a page", "bob")
    assert refused.value.status == 403 and questions.user_of("a page") == "ann"
    questions.answer("a page", question.id, [1])
    asked.join(10)
    assert found == [[1]]
    assert questions.arrive("a page", "bob") is None and questions.user_of("a page") == "bob"

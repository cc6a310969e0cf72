"""Choose Yourself and My Taste in real ComfyUI servers: the question, the answer, and everything that must not pass."""

import asyncio
import io
import json
import uuid

import numpy as np
import pytest
from PIL import Image

from .choice_host import COLORS, call, choosing, page_of


def color_of(data):
    """The name of the one of COLORS that an image file is nearest to."""
    with Image.open(data if not isinstance(data, bytes) else io.BytesIO(data)) as image:
        pixel = np.asarray(image.convert("RGB"), int).mean((0, 1))
    return max(COLORS, key=lambda name: pixel[list(COLORS).index(name)])


def saved(server, outputs):
    (image,) = outputs["save"]["images"]
    return color_of(server.base / image["type"] / image["subfolder"] / image["filename"])


def report(outputs):
    return json.loads(outputs["text"]["text"][0])


async def offered(page, question):
    """{color: number} of what a question offers."""
    found = {}
    for number in range(question["candidates"]):
        status, data = await page.image(question, number)
        assert status == 200
        found[color_of(data)] = number
    return found


@pytest.mark.parametrize("wanted", list(COLORS))
def test_the_clicked_candidate_is_taken(server, wanted):
    async def choose():
        async with page_of(server) as page:
            prompt = await page.queue(choosing())
            question = await page.question()
            numbers = await offered(page, question)
            assert numbers.keys() == COLORS.keys() and question["degraded"] and not question["rank"]
            assert 0 < question["seconds"] <= 60
            status, degraded = await page.image(question, "degraded")
            assert status == 200 and color_of(degraded) == "red"
            assert (await page.post("answer", question=question["id"], ranking=[numbers[wanted]]))[0] == 200
            outputs = await page.finished(prompt)
            assert (await page.post("open"))[1]["question"] is None
            return saved(server, outputs)

    assert asyncio.run(choose()) == wanted


def test_a_ranking_orders_all(server):
    async def choose():
        async with page_of(server) as page:
            prompt = await page.queue(choosing(ask_for="a ranking"))
            question = await page.question()
            numbers = await offered(page, question)
            order = [numbers[name] for name in ("blue", "red", "green")]
            assert question["rank"] and (await page.post("answer", question=question["id"], ranking=order))[0] == 200
            return report(await page.finished(prompt))["values"]

    assert asyncio.run(choose()) == [0.5, 0.0, 1.0]  # of red, green and blue


@pytest.mark.parametrize("client", ["none", "a program's"])
def test_without_a_browser_the_verifier_decides_at_once_and_it_is_said(server, client):
    async def run(page, graph):
        return report(await page.finished(await page.queue(graph)))

    async def both():
        async with page_of(server, script=False) as page:
            own = choosing(seconds=600)
            alone = json.loads(json.dumps(own))
            alone["score"]["inputs"]["verifier"] = ["judge", 0]
            return await asyncio.wait_for(run(page, own), 60), await run(page, alone), page.texts

    if client == "none":
        before = (server.base / "comfyui.log").read_text(encoding="utf-8").count("No ComfyUI page was open")
        status, answer = call(server, "/prompt", {"prompt": choosing(seconds=600)})
        prompt = json.loads(answer)["prompt_id"]
        for _ in range(300):
            history = server.get(f"/history/{prompt}")
            if history:
                break
            asyncio.run(asyncio.sleep(0.1))
        assert status == 200 and history[prompt]["status"]["status_str"] == "success"
        log = (server.base / "comfyui.log").read_text(encoding="utf-8")
        assert log.count("No ComfyUI page was open to ask you, so the verifier decided. Press Run to be asked again.") == before + 1
        return
    chosen, alone, texts = asyncio.run(both())
    assert chosen["values"] == alone["values"]
    assert any(
        "No ComfyUI page was open to ask you, so the verifier decided. Press Run to be asked again." in text for text in texts
    )


def test_after_the_time_limit_the_verifier_decides(server):
    async def wait():
        async with page_of(server) as page:
            prompt = await page.queue(choosing(seconds=5))
            question = await page.question()
            outputs = await asyncio.wait_for(page.finished(prompt), 60)
            late = await page.post("answer", question=question["id"], ranking=[0])
            return outputs, late, await page.image(question, 0), page.texts

    outputs, late, image, texts = asyncio.run(wait())
    assert outputs["save"] and any(
        "Nobody chose within 5 s, so the verifier decided. Press Run to be asked again." in text for text in texts
    )
    assert late == (404, "this question is not open.") and image[0] == 404


def test_only_a_question_that_nobody_answered_is_asked_again(server):
    async def choose():
        async with page_of(server) as page:
            graph = choosing(seconds=5)
            await asyncio.wait_for(page.finished(await page.queue(graph)), 60)  # nobody is there
            prompt = await page.queue(graph)
            question = await page.question()
            numbers = await offered(page, question)
            wanted = next(name for name in COLORS if numbers[name] == 2)
            await page.post("answer", question=question["id"], ranking=[2])
            found = saved(server, await page.finished(prompt))
            again = await asyncio.wait_for(page.finished(await page.queue(graph)), 60)
            return found == wanted, page.texts, again

    chosen, texts, _ = asyncio.run(choose())
    assert chosen and sum("Waiting for your choice" in text for text in texts) == 2


def test_it_can_be_left_to_the_verifier(server):
    async def leave():
        async with page_of(server) as page:
            prompt = await page.queue(choosing())
            question = await page.question()
            await page.post("answer", question=question["id"], ranking=[])
            await page.finished(prompt)
            return page.texts

    assert any("It was left to the verifier" in text for text in asyncio.run(leave()))


def test_a_waiting_run_can_be_canceled(server):
    async def cancel():
        async with page_of(server) as page:
            prompt = await page.queue(choosing(seconds=600))
            question = await page.question()
            async with page.session.post(f"{server.url}/interrupt"):
                pass
            with pytest.raises(AssertionError, match="interrupted"):
                await asyncio.wait_for(page.finished(prompt), 30)
            return (await page.post("open"))[1]["question"], (await page.image(question, 0))[0]

    assert asyncio.run(cancel()) == (None, 404)


def test_a_page_that_is_loaded_again_finds_the_open_question(server):
    async def reload():
        async with page_of(server) as page:
            prompt = await page.queue(choosing())
            question = await page.question()
        await asyncio.sleep(1)
        async with page_of(server, client=page.client) as again:
            found = await again.question()
            assert found["id"] == question["id"]
            numbers = await offered(again, found)
            await again.post("answer", question=found["id"], ranking=[numbers["green"]])
            for _ in range(100):  # the end may have come before this connection
                history = server.get(f"/history/{prompt}")
                if history:
                    return saved(server, history[prompt]["outputs"])
                await asyncio.sleep(0.1)

    assert asyncio.run(reload()) == "green"


def test_two_browsers_and_two_prompts_do_not_get_each_others_candidates(server):
    async def two():
        async with page_of(server) as ann, page_of(server) as bob:
            graphs = [choosing() for _ in range(2)]
            first, second = await ann.queue(graphs[0]), await bob.queue(graphs[1])
            one = await ann.question()
            assert (await bob.post("open"))[1]["question"] is None
            assert (await bob.post("answer", question=one["id"], ranking=[0]))[0] == 404
            numbers = await offered(ann, one)
            await ann.post("answer", question=one["id"], ranking=[numbers["red"]])
            other = await bob.question()
            assert other["id"] != one["id"] and (await ann.post("open"))[1]["question"] is None
            # Ann's old question does not answer Bob's.
            assert (await ann.post("answer", question=one["id"], ranking=[0]))[0] == 404
            assert (await ann.post("answer", question=other["id"], ranking=[0]))[0] == 404
            await bob.post("answer", question=other["id"], ranking=[(await offered(bob, other))["blue"]])
            return saved(server, await ann.finished(first)), saved(server, await bob.finished(second))

    assert asyncio.run(two()) == ("red", "blue")


def test_only_what_was_offered_is_taken(server):
    wrong = [[3], [-1], [0, 1], [0, 0], ["0"], [True], [0.5], [[0]], "0", None, {"0": 0}, ["../../etc/passwd"], [10**30]]

    async def attack():
        async with page_of(server) as page:
            prompt = await page.queue(choosing())
            question = await page.question()
            statuses = [(await page.post("answer", question=question["id"], ranking=ranking))[0] for ranking in wrong]
            for name in ("3", "-1", "..%2f..%2fcomfyui.log", "choices.jsonl", "degraded.jpg", "00", "%00"):
                assert (await page.image(question, name))[0] == 404
            for other in ("x", uuid.uuid4().hex, None, 3, ["a"], {}):
                assert (await page.post("answer", question=other, ranking=[0]))[0] == 404
            await page.post("answer", question=question["id"], ranking=[0])
            assert (await page.post("answer", question=question["id"], ranking=[1]))[0] == 404  # it is answered
            await page.finished(prompt)
            return statuses

    assert asyncio.run(attack()) == [400] * len(wrong)


@pytest.mark.parametrize("path", ["open", "answer"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no json", 400),
        (b"[]", 400),
        (b'{"client": 3}', 400),
        (b'{"client": NaN}', 400),
        (b"\xff\xfe{}", 400),
        (b"[" * 10_000, 400),
        (json.dumps({"client": "x" * 101}).encode(), 400),
        (json.dumps({"client": "x", "ranking": [0] * 10_000}).encode(), 413),
    ],
)
def test_a_message_of_another_form_or_size_is_refused(server, path, body, status):
    assert call(server, f"/fluxir/choice/{path}", body, "POST")[0] == status


def test_a_message_that_does_not_say_its_size_is_refused(server):
    async def stream():
        async def parts():
            yield b'{"client": '
            yield b'"x"}'

        async with page_of(server) as page, page.session.post(f"{server.url}/fluxir/choice/open", data=parts()) as answer:
            return answer.status

    assert asyncio.run(stream()) == 413


def taste_graph(name):
    """Three images judged by My Taste, which is saved as `name`."""
    graph = choosing()
    graph["choose"] = {
        "class_type": "FluxIRMyTaste",
        "inputs": {"verifier": ["judge", 0], "taste": "my choices", "save_as": name},
    }
    return graph | {"report": {"class_type": "PreviewAny", "inputs": {"source": ["choose", 1]}}}


@pytest.fixture
def no_choices(server):
    call(server, "/fluxir/choices", method="DELETE")
    yield server.base / "user" / "default" / "fluxir" / "choices.jsonl"
    call(server, "/fluxir/choices", method="DELETE")


@pytest.mark.parametrize("keep", [False, True])
def test_choices_are_kept_only_where_the_switch_says_so(server, no_choices, keep):
    async def choose():
        async with page_of(server) as page:
            prompt = await page.queue(choosing(keep_choices=keep))
            question = await page.question()
            await page.post("answer", question=question["id"], ranking=[1])
            await page.finished(prompt)

    asyncio.run(choose())
    assert no_choices.exists() == keep
    assert json.loads(call(server, "/fluxir/choices")[1]) == {"choices": int(keep)}
    if keep:
        (line,) = no_choices.read_text(encoding="utf-8").splitlines()
        entry = json.loads(line)
        assert entry["ranking"] == [1] and len(entry["scores"]) == 3 and entry.keys() == {"scores", "ranking"}
        assert {"niqe", "coherent_gradient", "spectral_slope", "consistency"} <= entry["scores"][0].keys()
        assert "candidate" not in entry["scores"][0]
        assert json.loads(call(server, "/fluxir/choices", method="DELETE")[1]) == {"choices": 0} and not no_choices.exists()


def test_my_taste_knows_nothing_first_and_then_judges_as_the_choices_say(server, no_choices):
    from comfyui_fluxir.fluxir_core.verify.taste import Choice, choice_line

    async def judged(name):
        async with page_of(server) as page:
            outputs = await page.finished(await page.queue(taste_graph(name)))
            return json.loads(outputs["report"]["text"][0]), outputs["choose"]["text"]

    own, texts = asyncio.run(judged(f"taste {uuid.uuid4().hex[:8]}"))
    assert not own["knows"] and own["choices"] == 0 and own["agreement"] is None
    assert any("knows nothing about your taste yet" in text and "Nothing was saved." in text for text in texts)
    # Somebody who always takes the least natural of three.
    generator = np.random.default_rng(0)
    no_choices.parent.mkdir(parents=True, exist_ok=True)
    with no_choices.open("w", encoding="utf-8") as file:
        for _ in range(20):
            scores = [{"niqe": float(value), "coherent_gradient": 0.0} for value in generator.normal(size=3)]
            file.write(choice_line(Choice(scores, [int(np.argmin([each["niqe"] for each in scores]))])))
        file.write("broken\n")
    name = f"taste {uuid.uuid4().hex[:8]}"
    own, texts = asyncio.run(judged(name))
    assert own["knows"] and own["agreement"] == 1 and own["weights"]["niqe"] < 0 and own["choices"] == 20
    sentence = "It picks the image you preferred in 100 % of new comparisons (± 0 %)."
    assert any(sentence in text and "1 broken lines" in text for text in texts)
    shared = server.base / "models" / "fluxir_tastes" / f"{name}.json"
    assert json.loads(shared.read_text(encoding="utf-8"))["weights"] and "scores" not in shared.read_text(encoding="utf-8")
    offered_tastes = server.get("/object_info/FluxIRMyTaste")["FluxIRMyTaste"]["input"]["required"]["taste"]
    assert f"{name}.json" in json.dumps(offered_tastes)


@pytest.mark.parametrize("name", ["../outside", "a/b", "x" * 61, "C:\\x"])
def test_a_taste_is_saved_under_a_plain_name_only(server, no_choices, name):
    async def run():
        async with page_of(server) as page:
            await page.finished(await page.queue(taste_graph(name)))

    with pytest.raises(AssertionError, match="My Taste: save_as is .*; use letters, digits, spaces, - and _, at most 60"):
        asyncio.run(run())

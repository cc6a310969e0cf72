"""`fluxir study`: a page that tells nobody which method is which, and a ranking of the votes that it saves."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.studies import blind_study
from comfyui_fluxir.training.studies.blind_study import read_votes
from PIL import Image, PngImagePlugin

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for method, color in COLORS.items():
        (tmp_path / method).mkdir()
        secret = PngImagePlugin.PngInfo()
        secret.add_text("prompt", f"made by {method}")
        for name in ("one", "two"):
            Image.new("RGB", (8, 6), color).save(tmp_path / method / f"{name}.png", pnginfo=secret)
    (tmp_path / "lq").mkdir()
    Image.new("RGB", (4, 3), (9, 9, 9)).save(tmp_path / "lq" / "one.jpg")
    return tmp_path


def refused(capsys, *arguments):
    with pytest.raises(SystemExit):
        main([str(argument) for argument in arguments])
    return capsys.readouterr().err


def study_of(path):
    return json.loads(re.search(r'id="study">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)[1])


def votes_file(path, votes, voter="v", study="s", methods=("red", "green", "blue"), **changes):
    content = {"kind": "fluxir study votes", "study": study, "methods": methods, "voter": voter, "votes": votes, **changes}
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def vote(image, left, right, choice):
    return {"image": image, "left": left, "right": right, "choice": choice}


def test_the_page_holds_every_image_of_every_method_and_says_so(place, capsys):
    main(["study", "red", "green", "best one=blue", "--degraded", "lq"])
    assert "study.html: 2 images, 3 methods, 6 pairs" in capsys.readouterr().out
    study = study_of(place / "study.html")
    assert study["methods"] == ["best one", "green", "red"] and [own["name"] for own in study["images"]] == ["one", "two"]
    for own in study["images"]:
        shown = [Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) for address in own["shown"]]
        assert [image.getpixel((0, 0)) for image in shown] == [COLORS["blue"], COLORS["green"], COLORS["red"]]
        assert all(image.text == {} for image in shown)  # what a file says about its making would tell the method
    assert study["images"][0]["degraded"].startswith("data:image/png") and study["images"][1]["degraded"] is None


def test_the_page_loads_and_sends_nothing(place):
    main(["study", "red", "green"])
    page = (place / "study.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and not re.search(r"https?://|fetch\(|XMLHttp|sendBeacon|WebSocket", page)


def test_a_title_cannot_end_the_script_that_holds_it(place):
    main(["study", "red", "green", "--title", "</script><b>STUDY"])
    assert study_of(place / "study.html")["title"] == "</script><b>STUDY"


def test_a_smaller_page_holds_webp_images(place):
    main(["study", "red", "green", "--small", "--out", "small.html"])
    assert all(own.startswith("data:image/webp") for image in study_of(place / "small.html")["images"] for own in image["shown"])


def test_images_without_a_partner_are_left_out_and_counted(place, capsys):
    (place / "red" / "two.png").unlink()
    main(["study", "red", "green"])
    said = capsys.readouterr().out
    assert "study.html: 1 images, 2 methods, 1 pairs" in said and "1 images without a partner" in said
    assert [own["name"] for own in study_of(place / "study.html")["images"]] == ["one"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["red"], "FOLDER: one method alone cannot be compared; give two or more folders."),
        (["red", "red"], "FOLDER: red has no name of its own; give it as NAME=FOLDER."),
        (["red", "nowhere"], "nowhere is no folder; give one with images."),
        (["red", "lq"], "the images of one are not one of each method in one size"),
        (["red", "green", "--out", "page.txt"], "--out: page.txt is no HTML file; let it end in .html."),
        (["red", "green", "--json", "x.json"], "--json: only `fit` writes one; leave it out."),
        (["fit"], "`fit` needs votes"),
        (["fit", "none.json"], "none.json cannot be read (No such file or directory)"),
        (["fit", "red/one.png"], "red/one.png holds no votes of a study"),
        (["fit", "none.json", "--small"], "--small: `fit` makes no page; leave it out."),
        (["fit", "none.json", "--json", "none.json"], "--json and VOTES none.json are the same"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(place, capsys, arguments, sentence):
    said = refused(capsys, "study", *arguments)
    assert said.startswith(f"fluxir study: {sentence}") and said.count("\n") == 1


def test_the_votes_are_ranked(place, capsys):
    both = [
        votes_file(
            place / f"{voter}.json",
            [
                vote("one", "red", "green", "left"),
                vote("one", "blue", "red", "right"),
                vote("one", "blue", "green", second),
                vote("two", "green", "red", "right"),
                vote("two", "red", "blue", "left"),
                vote("two", "green", "blue", "tie"),
            ],
            voter,
        )
        for voter, second in (("ann", "right"), ("bob", "right"))
    ]
    main(["study", "fit", *both, "--json", "ranking.json"])
    said = capsys.readouterr().out
    assert "12 votes of 2 people on 2 images, 2 of them ties; of the others 40% went to the left side." in said
    rows = json.loads((place / "ranking.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in rows] == ["red", "green", "blue"]
    assert [row["best"] for row in rows] == [1, 0, 0] and [row["best_two"] for row in rows] == [1, 0.75, 0.25]
    assert rows[0]["low"] < rows[0]["score"] < rows[0]["high"] and "| red | +" in said and "| 100% | 100% | 8 |" in said


def test_votes_that_are_saved_twice_count_once(place):
    first = votes_file(place / "a.json", [vote("one", "red", "green", "left")])
    again = votes_file(place / "b.json", [vote("one", "green", "red", "left"), vote("two", "red", "green", "tie")])
    found = read_votes([first, again])
    assert [(own.image, own.winner) for own in found] == [("one", "green"), ("two", None)]


def test_votes_on_two_studies_are_not_mixed(place, capsys):
    votes = [vote("one", "red", "green", "left")]
    one, other = votes_file(place / "a.json", votes), votes_file(place / "b.json", votes, study="other")
    said = refused(capsys, "study", "fit", one, other)
    assert said == f"fluxir study: {one} and {other} are votes on two studies; give those of one.\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"votes": [vote("one", "red", "red", "left")]},
        {"votes": [vote("one", "red", "gold", "left")]},
        {"votes": [vote("one", "red", "green", "up")]},
        {"votes": [["one"]]},
        {"votes": 3},
        {"votes": [vote("one", "red", "green", "left")], "methods": None},
    ],
)
def test_other_files_are_refused(place, capsys, changes):
    path = votes_file(place / "a.json", **{"votes": [], **changes})
    assert "a.json holds no votes of a study; give files that the study's page saved." in refused(capsys, "study", "fit", path)


def test_no_votes_are_no_ranking(place, capsys):
    assert "there are no votes to fit" in refused(capsys, "study", "fit", votes_file(place / "a.json", []))


def test_the_projects_own_study_is_the_page_as_it_is_now():
    pack = Path(blind_study.__file__).resolve().parents[2]
    page = pack / "docs" / "study.html"
    study = study_of(page)
    assert study["methods"] == ["OpenCV", "autoencoder alone", "miniature", "original"]
    assert [own["name"] for own in study["images"]] == ["noise", "low_light", "strong"] and all(
        own["degraded"] for own in study["images"]
    )
    before, after = blind_study.TEMPLATE.read_text(encoding="utf-8").split("STUDY", 1)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(before) and text.endswith(after), "run training.studies.readme_study again"

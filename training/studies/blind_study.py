"""A blind comparison of methods by people: the page they vote on, and what their votes say."""

import base64
import hashlib
import json
import math
from pathlib import Path

from ...fluxir_core.flux.weight_files import parse_json
from ...fluxir_core.image.files import LoadedImage, image_bytes
from ...fluxir_core.verify.bradley_terry import Vote, rate

TEMPLATE = Path(__file__).with_name("study_page.html")
VOTES, LONGEST = "fluxir study votes", 20_000_000
MIME = {".png": "image/png", ".webp": "image/webp"}


def study_page(title, images, degraded=None, suffix=".png"):
    """The HTML of a page that needs no server and no network: people see pairs of methods on every image and vote.

    Args:
        title: what stands above the pairs.
        images: {name: {method: (3, H, W) in [0, 1]}}; every image has the same methods, two or more, in one size.
        degraded: {name: (3, h, w)} shown between the two, or None.
        suffix: `.png`, or `.webp` (quality 95) for a smaller page.

    Returns:
        The page's text.

    Raises:
        ValueError: methods or sizes differ.
    """
    methods = sorted({method for own in images.values() for method in own})
    if len(methods) < 2:
        raise ValueError("one method alone cannot be compared; give two or more.")
    for name, own in images.items():
        sizes = {tuple(image.shape[1:]) for image in own.values()}
        if sorted(own) != methods or len(sizes) > 1:
            raise ValueError(f"the images of {name} are not one of each method in one size; restore each at the same size.")

    def address(image):
        data = image_bytes(LoadedImage(image), suffix)[0]  # written anew: no name, date or graph of a file tells the method
        return f"data:{MIME[suffix]};base64,{base64.b64encode(data).decode()}"

    study = {
        "title": title,
        "methods": methods,
        "images": [
            {
                "name": name,
                "degraded": address(degraded[name]) if degraded and name in degraded else None,
                "shown": [address(own[method]) for method in methods],
            }
            for name, own in images.items()
        ],
    }
    study["id"] = hashlib.sha256(json.dumps(study).encode()).hexdigest()[:12]
    data = json.dumps(study).replace("<", "\\u003c")  # no text ends the script that holds it
    return TEMPLATE.read_text(encoding="utf-8").replace("STUDY", data, 1)


def read_votes(paths):
    """The Votes in the files `paths` that the page saved; a voter's last word on a pair counts.

    Raises ValueError, one sentence, for other files and for votes of two studies.
    """
    found, studies = {}, {}
    for path in map(Path, paths):
        try:
            if path.stat().st_size > LONGEST:
                raise ValueError
            content = parse_json(path.read_text(encoding="utf-8"))
            if content["kind"] != VOTES:
                raise ValueError
            studies.setdefault(str(content["study"]), path)
            for vote in content["votes"]:
                image, left, right, voter = (str(part) for part in (vote["image"], vote["left"], vote["right"], content["voter"]))
                winner = {"left": left, "right": right, "tie": None}[vote["choice"]]
                if left == right or not {left, right} <= {*content["methods"]}:
                    raise ValueError
                found[voter, image, frozenset((left, right))] = Vote(image, left, right, winner, voter)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); give files that the study's page saved.") from None
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path} holds no votes of a study; give files that the study's page saved.") from None
    if len(studies) > 1:
        one, other = list(studies.values())[:2]
        raise ValueError(f"{one} and {other} are votes on two studies; give those of one.")
    return list(found.values())


def results(votes):
    """(rows, Markdown) of `rate`: each method's score with its interval, and how often it is best and among the best two."""
    standings, images = rate(votes)
    voters, ties = len({vote.voter for vote in votes}), sum(vote.winner is None for vote in votes)
    left = sum(vote.winner == vote.a for vote in votes) / max(1, len(votes) - ties)
    lines = [
        f"{len(votes)} votes of {voters} {'person' if voters == 1 else 'people'} on {len({vote.image for vote in votes})} images, "
        f"{ties} of them ties; of the others {left:.0%} went to the left side.",
        "",
        "| method | score (95 % interval) | wins against an average one | best | among the best two | votes |",
        "|---|---|---|---|---|---|",
    ]
    for standing in standings:
        chance = 1 / (1 + math.exp(-standing.score))
        shares = ("-", "-") if math.isnan(standing.best) else (f"{standing.best:.0%}", f"{standing.best_two:.0%}")
        lines.append(
            f"| {standing.method} | {standing.score:+.2f} ({standing.low:+.2f} to {standing.high:+.2f}) | {chance:.0%} | {shares[0]} "
            f"| {shares[1]} | {standing.votes} |"
        )
    lines += [
        "",
        "Scores are log-odds by Bradley and Terry's model, 0 is the mean; intervals take the votes as independent of each other. "
        f"Best and best two: shares of the {images} images on which every method was compared.",
    ]
    return [standing._asdict() for standing in standings], "\n".join(lines)

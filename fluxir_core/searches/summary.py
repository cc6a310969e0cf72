"""What a search did, in words."""


def summarize(report, image=0):
    """One sentence on what the search of `report` (see `search.search`) gained for one image of the batch."""
    cost = f"{report['nfe']} model calls, {report['verifications']} images judged"
    if report["stopped"]:
        return f"Stopped: this is the best so far after {cost}."
    if not report["verifications"]:
        return (
            f"Nothing was searched: {len(report['sigmas']) - 1} steps are too few for this search, so this is the normal result. "
            "Use more steps, or a larger window."
        )
    remarks = [remark for remark in report["remarks"] if remark.startswith((f"Image {image}:", "No "))]
    if remarks:
        return remarks[0]
    if report["baseline_score"] is None or report["score"] is None:
        return f"Found in {cost}. Without the baseline check nobody knows what was gained."
    values = report["finalist_values"][image]
    winner, last = report["winner"][image], len(values) - 1
    if winner in (-1, last):
        return f"The normal result was the best: nothing was gained in {cost}."
    scores = {name: own[image] for name, own in report["finalist_scores"].items()}
    signs = {name: _sign(own[winner], own[last]) for name, own in scores.items()}
    gains = [f"{name} {sign}" for name, sign in signs.items() if sign != "+0"]  # as that of a veto that nobody got
    gains += [f"{name}, which was not searched on, {_gain(own, image)}" for name, own in report["held_out"].items()]
    return f"Better than the normal result ({', '.join(gains)}) in {cost}."


def _gain(held_out, image):
    return _sign(held_out["score"][image], held_out["baseline_score"][image])


def _sign(score, baseline):
    return "not measured" if score is None or baseline is None else f"{score - baseline:+.2g}"


def say_time(seconds):
    """`seconds` as one says them: "4 s", "12 min", "1 h 20 min"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

"""The measured tables of README.md, from results/: python recipes/mini/page.py

Each stands between `<!-- NAME -->` and `<!-- end of NAME -->`; the rest of the page is written by hand.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def table(header: list[str], rows: list[list[str]]) -> str:
    """The first column to the left, the others to the right."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---", *["---:"] * (len(header) - 1)], *rows])


def share(found: dict[str, float] | None) -> str:
    return f"{100 * found['mean']:.1f} % ({100 * found['low']:.1f}–{100 * found['high']:.1f})" if found else "–"


def probes(results: dict[str, Any]) -> str:
    titles = {
        "prefers": "prefers the right sentence, summed",
        "prefers_each": "a token",
        "either_way": "either way round",
        "says": "says it",
        "says_foil": "says the foil",
        "on_fact": "is on the fact",
        "says_of_fact": "says it, of those",
    }
    rows = [
        [kind, str(found["says"]["n"]), *(share(found.get(name)) for name in titles)]
        for kind, found in results["shares"].items()
    ]
    return table(["dialogues", "n", *titles.values()], rows)


def groups(results: dict[str, Any]) -> str:
    """The embedded classifier in full, of the others the means."""
    mini, others = results["mini"], {name: found for name, found in results.items() if name != "mini"}
    rows = []
    for kind, found in mini.items():
        more, top = found["more_than_control"], found["highest"]
        rows.append(
            [
                kind,
                str(found["n"]),
                f"{found['mean']['mean']:.3f}",
                f"{100 * found['above_half'] / found['n']:.1f} %",
                "–" if kind == "no group" else f"{more['mean']:+.3f} ({more['low']:+.3f} to {more['high']:+.3f})",
                f"{top['name']} {top['mean']:.3f}",
                *(f"{other[kind]['mean']['mean']:.3f}" for other in others.values()),
            ]
        )
    header = [
        "sentences about",
        "n",
        "mean score",
        "above 0.5",
        "more than of no group",
        "highest",
        *(f"{name}: mean" for name in others),
    ]
    return table(header, rows)


def calibration(results: dict[str, Any]) -> str:
    """A row a bin; of each set how many texts, their mean score and the share that is toxic. The errors below."""
    header = ["score", *(f"{name}: n, mean score → toxic (95 %)" for name in results)]
    bins = [{row["bin"]: row for row in found["bins"]} for found in results.values()]
    rows = [[f"0.{number} – {(number + 1) / 10}", *(_bin(found.get(number)) for found in bins)] for number in range(10)]
    for title, key in (("expected calibration error", "error"), ("after a temperature and a shift", "error_refitted")):
        rows.append([title, *(f"{found[key]:.3f}" for found in results.values())])
    return table(header, rows)


def _bin(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    toxic = row["toxic"]
    return f"{row['n']}, {row['score']:.2f} → {toxic['mean']:.2f} ({toxic['low']:.2f}–{toxic['high']:.2f})"


def transfer(results: dict[str, Any]) -> str:
    """A row for each set of a source that was left out; beside it the embedded one, which was trained on that source too."""
    embedded = json.loads((HERE / "results/classifier.json").read_text("utf-8"))["tests"]
    rows = []
    for without, found in results["without"].items():
        for name, systems in found["tests"].items():
            first = next(iter(systems.values()))
            counts = f"{first['n_toxic']} / {first['n_clean']}"
            rows.append([without, name, counts, *map(_auc, systems.values()), _auc(embedded[name]["mini"])])
    names = list(next(iter(next(iter(results["without"].values()))["tests"].values())))
    return table(["trained without", "held-out set", "n toxic / clean", *names, "mini, trained with it"], rows)


def reward(results: dict[str, Any]) -> str:
    """Of each reward the means over its trainings, by whom they are judged."""
    titles = {"human": "references", "base": "base", "before": "the classifier before", "now": "the classifier now"}
    measures: dict[str, tuple[str, Callable[[dict[str, float]], str]]] = {
        "toxicity": ("toxicity by the one now", _interval),
        "before": ("by the one before", _interval),
        "profanity": ("by profanity", _interval),
        "rougeL": ("ROUGE-L", lambda found: _interval(found, 1)),
        "speakers_kept": ("speakers kept", share),
        "length": ("words", lambda found: _interval(found, 1)),
    }
    rows = [
        [
            titles[name],
            decoding if decoding in ("greedy", "sampled") else "–",
            *(write(found[metric]) if metric in found else "–" for metric, (_, write) in measures.items()),
        ]
        for name in titles
        for decoding, found in results["systems"][name].items()
    ]
    return table(["reward", "decoding", *(title for title, _ in measures.values())], rows)


def _interval(found: dict[str, float], digits: int = 3) -> str:
    return f"{found['mean']:.{digits}f} ({found['low']:.{digits}f}–{found['high']:.{digits}f})"


def _auc(found: dict[str, Any]) -> str:
    area = found["auc"]
    return f"{area['mean']:.3f} ({area['low']:.3f}–{area['high']:.3f})"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "probes": probes,
    "groups": groups,
    "calibration": calibration,
    "transfer": transfer,
    "reward": reward,
}


def fill(page: str, name: str, content: str) -> str:
    """Raises ValueError where the page has no such place."""
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    filled, count = place.subn(lambda found: f"{found[1]}{content}\n{found[2]}", page)
    if count != 1:
        raise ValueError(
            f"README.md has {count} places between <!-- {name} --> and <!-- end of {name} -->; one is needed"
        )
    return filled


def main() -> None:
    readme = HERE / "README.md"
    page = readme.read_text("utf-8")
    for name, write in TABLES.items():
        page = fill(page, name, write(json.loads((HERE / f"results/{name}.json").read_text("utf-8"))))
    readme.write_text(page, "utf-8")


if __name__ == "__main__":
    main()

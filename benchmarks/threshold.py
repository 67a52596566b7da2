"""How far apart are pictures of one person, and of two? What a threshold is chosen from.

python -m benchmarks.threshold DIR        # DIR/<person>/<picture>
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from models.settings import Settings
from runtime.engine import open_engine


def main() -> int:
    """Print the distribution of both kinds of distances for the models that the settings name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder with one folder of pictures per person")
    images: Path = parser.parse_args().images
    engine = open_engine(Settings())
    people: list[str] = []
    rows = []
    for path in sorted(images.glob("*/*")):
        analysis = engine.analyze(path.read_bytes())
        if len(analysis.detections) != 1:
            print(f"left out, {len(analysis.detections)} faces: {path.relative_to(images)}", file=sys.stderr)
            continue
        people.append(path.parent.name)
        rows.append(analysis.embeddings[0])
    if len(set(people)) < 2:
        print(f"{images} needs pictures of at least two people, one folder each.", file=sys.stderr)
        return 2
    names, embeddings = np.array(people), np.array(rows)
    distances = 1 - embeddings @ embeddings.T
    pairs = np.triu_indices(len(names), 1)
    same = (names[:, None] == names[None])[pairs]
    models = f"{engine.detector_card.name} + {engine.embedder_card.name}"
    print(f"{models}: {len(names)} pictures, {len(set(people))} people")
    print("| pairs | count | min | median | 95 % | max |\n|---|---|---|---|---|---|")
    for label, chosen in (("one person", distances[pairs][same]), ("two people", distances[pairs][~same])):
        low, middle, high, top = np.quantile(chosen, [0, 0.5, 0.95, 1])
        print(f"| {label} | {len(chosen)} | {low:.3f} | {middle:.3f} | {high:.3f} | {top:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

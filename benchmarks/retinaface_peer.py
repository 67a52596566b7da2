"""What retina-face and DeepFace answer with RetinaFace. Runs in an environment of its own that has both and TensorFlow;
imports nothing of this project.

python benchmarks/retinaface_peer.py heads tests/runtime/retinaface_heads.npz
python benchmarks/retinaface_peer.py weights PICTURES retinaface.h5
python benchmarks/retinaface_peer.py answers PICTURES retinaface.h5 answers.npz
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import cv2
import numpy as np
import tensorflow as tf
import tf_keras
from deepface.modules import detection
from retinaface import RetinaFace
from retinaface.commons import preprocess
from retinaface.model import retinaface_model

STRIDES = (32, 16, 8)
LANDMARKS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
# Of the heads' kernels, so that about one anchor of a hundred counts as a face.
HEADS = {"cls_score": 0.035, "bbox_pred": 0.012, "landmark_pred": 0.03}
# Height and width of pictures, made-up heads for each: upright, wide up to the limit of 1980, and enlarged.
SHAPES = ((720, 540), (300, 900), (120, 100))


def write_heads(output: Path) -> None:
    """Made-up outputs of the network, and what ``detect_faces`` makes of them.

    For each picture, ``height_width_N``, ``scores_N_STRIDE``, ``boxes_N_STRIDE``, ``landmarks_N_STRIDE``, and
    ``faces_N``: rows of score, four corners and five landmarks.
    """
    random = np.random.default_rng(11)
    written: dict[str, Any] = {}
    for number, (height, width) in enumerate(SHAPES):
        image = np.zeros((height, width, 3), np.uint8)
        _, (rows, columns), _ = preprocess.preprocess_image(image, allow_upscaling=True)
        outputs = []
        for stride in STRIDES:
            cells = (-(-rows // stride), -(-columns // stride))
            outputs += _heads(random, cells)
        found = RetinaFace.detect_faces(image, model=lambda _, given=outputs: [tf.constant(one) for one in given])
        written[f"height_width_{number}"] = np.array([height, width])
        for stride, (scores, boxes, landmarks) in zip(STRIDES, zip(*[iter(outputs)] * 3, strict=True), strict=True):
            written[f"scores_{number}_{stride}"] = scores
            written[f"boxes_{number}_{stride}"] = boxes
            written[f"landmarks_{number}_{stride}"] = landmarks
        written[f"faces_{number}"] = _rows(found)
    np.savez_compressed(output, **written)


def _heads(random: np.random.Generator, cells: tuple[int, int]) -> list[Any]:
    """Nothing but for a few clusters of anchors, which reach over the edges and overlap each other."""
    scores, boxes, landmarks = (np.zeros((1, *cells, depth), np.float32) for depth in (4, 8, 20))
    scores[..., :2] = 1
    for _ in range(6):
        row, column = random.integers(0, cells[0]), random.integers(0, cells[1])
        for _ in range(5):
            y, x = np.clip(np.array([row, column]) + random.integers(-1, 2, 2), 0, np.array(cells) - 1)
            anchor = random.integers(0, 2)
            score = random.uniform(0.85, 1)
            scores[0, y, x, anchor], scores[0, y, x, 2 + anchor] = 1 - score, score
            boxes[0, y, x, 4 * anchor : 4 * anchor + 4] = random.normal(0, 0.2, 4)
            landmarks[0, y, x, 10 * anchor : 10 * anchor + 10] = random.normal(0, 0.3, 10)
    return [scores, boxes, landmarks]


def _rows(found: Any) -> Any:
    rows = [
        [face["score"], *face["facial_area"], *(value for name in LANDMARKS for value in face["landmarks"][name])]
        for face in found.values()
    ]
    return np.array(rows, np.float64).reshape(-1, 15)


def write_weights(pictures: Path, h5: Path) -> None:
    """The package's network with random weights, the norms' statistics set on the pictures, as its ``.h5``."""
    retinaface_model.load_weights = lambda model: model
    model = retinaface_model.build_model()
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.trainable, layer.momentum = True, 0.0
            gamma, beta, *statistics = layer.get_weights()
            layer.set_weights([random.uniform(0.5, 1.5, gamma.shape), random.normal(0, 0.1, beta.shape), *statistics])
        for head, spread in HEADS.items():
            if layer.name.startswith(f"face_rpn_{head}"):
                layer.set_weights([random.normal(0, spread, weight.shape) for weight in layer.get_weights()])
    paths = sorted(path for path in pictures.rglob("*") if path.suffix in (".png", ".jpg"))
    some = [cv2.resize(cv2.imread(str(path)), (320, 320))[..., ::-1] for path in paths[:: max(1, len(paths) // 8)]]
    model(np.array(some, np.float32), training=True)
    model.save_weights(str(h5), save_format="h5")


def write_answers(pictures: Sequence[Path], h5: Path, output: Path) -> None:
    """``raw_N_K``: output K of the network for the picture N as the package feeds it; ``faces_N``: what
    ``detect_faces`` gives for it; ``deepface_N``: boxes and landmarks that DeepFace reports."""
    retinaface_model.weight_utils.download_weights_if_necessary = lambda **_: str(h5)
    written: dict[str, Any] = {}
    model = RetinaFace.build_model()
    for number, path in enumerate(pictures):
        image = cv2.imread(str(path))
        tensor, _, _ = preprocess.preprocess_image(image, allow_upscaling=True)
        for index, value in enumerate(RetinaFace._predict(model, tensor)):
            written[f"raw_{number}_{index}"] = value
        written[f"faces_{number}"] = _rows(RetinaFace.detect_faces(image, model=model))
        areas = [face["facial_area"] for face in detection.extract_faces(image, "retinaface", enforce_detection=False)]
        written[f"deepface_{number}"] = np.array(json.dumps(areas, default=int))
    np.savez_compressed(output, **written)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    heads = commands.add_parser("heads", help="made-up outputs for tests/runtime")
    heads.add_argument("output", type=Path)
    heads.set_defaults(run=lambda options: write_heads(options.output))
    weights = commands.add_parser("weights", help="random weights")
    weights.add_argument("pictures", type=Path)
    weights.add_argument("h5", type=Path)
    weights.set_defaults(run=lambda options: write_weights(options.pictures, options.h5))
    answers = commands.add_parser("answers", help="what both packages give for pictures")
    answers.add_argument("pictures", type=Path, nargs="+")
    answers.add_argument("h5", type=Path)
    answers.add_argument("output", type=Path)
    answers.set_defaults(run=lambda options: write_answers(options.pictures, options.h5, options.output))
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()

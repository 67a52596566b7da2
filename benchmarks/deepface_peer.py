"""What DeepFace itself answers. Runs in an environment of its own that has DeepFace; imports nothing of this project.

python benchmarks/deepface_peer.py crops tests/runtime/deepface_crops.npz
python benchmarks/deepface_peer.py boxes PICTURE... tests/runtime/deepface_boxes.json
python benchmarks/deepface_peer.py weights FACES arcface_weights.h5 arcface_weights.onnx     (with TensorFlow)
python benchmarks/deepface_peer.py h5 CROPS.npy arcface_weights.h5                           (with TensorFlow)
python benchmarks/deepface_peer.py find FACES answers.json --normalization base
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from deepface import DeepFace
from deepface.models.Detector import FacialAreaRegion
from deepface.modules import detection, preprocessing

# Box (x, y, width, height) and eyes (the eye on the picture's left, then the other): inside, over two corners, without
# eyes, higher than wide, upside down, where truncation costs a row (28 / 55), wide, and wholly outside.
CASES = (
    ((40, 25, 36, 36), (48, 40, 68, 47)),
    ((-10, -8, 41, 40), (2, 12, 18, 8)),
    ((85, 60, 50, 44), (95, 75, 120, 74)),
    ((30, 30, 44, 52), None),
    ((50, 20, 31, 47), (56, 35, 74, 18)),
    ((42, 31, 37, 29), (70, 44, 52, 41)),
    ((20, 10, 55, 55), (30, 30, 60, 31)),
    ((10, 12, 98, 60), (30, 40, 60, 40)),
    ((-55, -40, 30, 30), (-50, -30, -35, -32)),
)
CROP_SIZE = (24, 28)


def write_crops(output: Path) -> None:
    """Crops of a made-up picture, cut by DeepFace: ``picture``, ``boxes``, ``eyes`` and ``crops`` (0 to 1, BGR)."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC).astype(int)
    picture = np.clip(picture + rng.integers(-12, 13, picture.shape), 0, 255).astype(np.uint8)
    border_y, border_x = picture.shape[0] // 2, picture.shape[1] // 2
    bordered = cv2.copyMakeBorder(picture, border_y, border_y, border_x, border_x, cv2.BORDER_CONSTANT, value=[0, 0, 0])
    crops, eyes = [], []
    for (x, y, width, height), points in CASES:
        area = FacialAreaRegion(x + border_x, y + border_y, width, height, confidence=0.9)
        if points is not None:
            area.right_eye = (points[0] + border_x, points[1] + border_y)
            area.left_eye = (points[2] + border_x, points[3] + border_y)
        face = detection.extract_face(area, bordered, True, 0, border_x, border_y, "opencv")
        rgb = face.img[:, :, ::-1] / 255
        crops.append(preprocessing.resize_image(rgb, CROP_SIZE[::-1])[0][:, :, ::-1])
        eyes.append(points or (np.nan,) * 4)
    np.savez_compressed(
        output,
        picture=picture,
        boxes=np.array([box for box, _ in CASES], np.float32),
        eyes=np.array(eyes, np.float32).reshape(-1, 2, 2),
        crops=np.array(crops, np.float32),
    )


def write_boxes(pictures: Sequence[Path], output: Path) -> None:
    """Faces by the backend ``opencv``: ``{file name: [[x, y, w, h, right eye or null, left eye or null]]}``."""
    found = {}
    for path in pictures:
        faces = detection.detect_faces("opencv", cv2.imread(str(path)), align=True)
        areas = [face.facial_area for face in faces]
        found[path.name] = sorted(
            [*(int(v) for v in (area.x, area.y, area.w, area.h)), _eye(area.right_eye), _eye(area.left_eye)]
            for area in areas
        )
    output.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")


def write_weights(faces: Path, h5: Path, onnx: Path) -> None:
    """DeepFace's ArcFace with random weights, as its ``.h5`` for TensorFlow and as the same network for ONNX Runtime.

    The statistics of the norms are those of the faces that DeepFace finds.
    """
    import tf2onnx  # noqa: PLC0415
    from deepface.models.facial_recognition import ArcFace  # noqa: PLC0415

    crops = [
        preprocessing.resize_image(face["face"], (112, 112))
        for path in sorted(faces.rglob("*.*"))
        for face in detection.extract_faces(str(path), color_face="bgr", enforce_detection=False)
    ]
    write_h5(np.concatenate(crops), h5)
    ArcFace.weight_utils.download_weights_if_necessary = lambda **_: str(h5)
    tf2onnx.convert.from_keras(ArcFace.load_model(), output_path=str(onnx))


def write_h5(crops: Any, h5: Path) -> None:
    """DeepFace's ArcFace with random weights, as its ``.h5``.

    The norms take their statistics from faces: left at their initial values, 34 layers would put all faces on one
    point.

    Args:
        crops: (n, 112, 112, 3) float32, BGR, 0 to 1.
        h5: where to.
    """
    import tf_keras  # noqa: PLC0415
    from deepface.models.facial_recognition import ArcFace  # noqa: PLC0415

    base, layers = ArcFace.ResNet34(), tf_keras.layers
    x = layers.BatchNormalization(momentum=0.9, epsilon=2e-5)(base.outputs[0])
    x = layers.Flatten()(layers.Dropout(0.4)(x))
    x = layers.Dense(512, use_bias=True, kernel_initializer="glorot_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=2e-5, name="embedding", scale=True)(x)
    model = tf_keras.models.Model(base.inputs[0], x)
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.PReLU):
            layer.set_weights([random.normal(0.25, 0.1, weight.shape) for weight in layer.get_weights()])
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
            gamma, beta, *statistics = layer.get_weights()
            layer.set_weights([random.uniform(0.5, 1.5, gamma.shape), random.normal(0, 0.1, beta.shape), *statistics])
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    model(crops, training=True)
    model.save_weights(str(h5), save_format="h5")


def write_answers(faces: Path, output: Path, normalization: str, *, refresh: bool = True) -> None:
    """Faces and embeddings of every picture by ``represent``, and its nearest by ``find``, nearest first.

    ``find`` keeps its gallery in the folder ``faces``. ``refresh``: bring it up to date before the first picture.
    """
    options = {"model_name": "ArcFace", "detector_backend": "opencv", "normalization": normalization, "align": True}
    pictures = []
    for path in sorted(faces.rglob("*.png")):
        found = DeepFace.represent(str(path), **options)
        results = DeepFace.find(
            str(path), str(faces), threshold=10, silent=True, refresh_database=refresh and not pictures, **options
        )
        pictures.append(
            {
                "source": path.relative_to(faces).as_posix(),
                "boxes": [[face["facial_area"][key] for key in "xywh"] for face in found],
                "embeddings": [face["embedding"] for face in found],
                "find": [_ranking(result, faces) for result in results],
            }
        )
    answers = {"deepface": version("deepface"), "opencv": cv2.__version__, "pictures": pictures}
    output.write_text(json.dumps(answers, default=float))


def _ranking(result: Any, faces: Path) -> list[tuple[str, float]]:
    rows = result if isinstance(result, list) else result.to_dict("records")
    return [(_source(Path(row["identity"]), faces), float(row["distance"])) for row in rows]


def _source(identity: Path, faces: Path) -> str:
    return (identity.relative_to(faces) if identity.is_absolute() else identity).as_posix()


def _eye(point: tuple[int, int] | None) -> list[int] | None:
    return None if point is None else [int(value) for value in point]


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    crops = commands.add_parser("crops", help="crops for tests/runtime")
    crops.add_argument("output", type=Path)
    crops.set_defaults(run=lambda options: write_crops(options.output))
    boxes = commands.add_parser("boxes", help="boxes and eyes for tests/runtime")
    boxes.add_argument("pictures", type=Path, nargs="+")
    boxes.add_argument("output", type=Path)
    boxes.set_defaults(run=lambda options: write_boxes(options.pictures, options.output))
    weights = commands.add_parser("weights", help="ArcFace with random weights")
    weights.add_argument("faces", type=Path)
    weights.add_argument("h5", type=Path)
    weights.add_argument("onnx", type=Path)
    weights.set_defaults(run=lambda options: write_weights(options.faces, options.h5, options.onnx))
    h5 = commands.add_parser("h5", help="the same, its statistics set on crops that are given")
    h5.add_argument("crops", type=Path, help="(n, 112, 112, 3) float32, BGR, 0 to 1, as .npy")
    h5.add_argument("h5", type=Path)
    h5.set_defaults(run=lambda options: write_h5(np.load(options.crops), options.h5))
    find = commands.add_parser("find", help="what represent and find answer for every picture of a folder")
    find.add_argument("faces", type=Path)
    find.add_argument("output", type=Path)
    find.add_argument("--normalization", default="base")
    find.add_argument("--refresh", action=argparse.BooleanOptionalAction, default=True)
    find.set_defaults(
        run=lambda options: write_answers(options.faces, options.output, options.normalization, refresh=options.refresh)
    )
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()

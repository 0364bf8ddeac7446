"""Masks of images from a model of `tagmask export onnx`, without torch: onnx_predict.py MODEL.onnx IMAGE [IMAGE ...]"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, size, multiple = json.loads(about["classes"]), json.loads(about["size"]), int(about["multiple"])

for path in map(Path, sys.argv[2:]):
    image = Image.open(path).convert("RGB")
    height, width = size or [max(2 * multiple, side // multiple * multiple) for side in (image.height, image.width)]
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    output = np.asarray(session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0])[0]
    labels = output if output.ndim == 2 else output.argmax(axis=0) + (about["background"] == "false")
    kind = np.uint8 if len(classes) < 255 else np.uint16
    mask = Image.fromarray(labels.astype(kind)).resize(image.size, Image.Resampling.NEAREST)
    mask.save(path.with_suffix(".mask.png"))
    print(path, [classes[label - 1] for label in np.unique(labels) if label])

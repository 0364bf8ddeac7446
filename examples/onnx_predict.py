"""Masks of images from a model of `tagmask export onnx`, without torch: onnx_predict.py MODEL.onnx IMAGE [IMAGE ...]"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, size, multiple = json.loads(about["classes"]), json.loads(about["size"]), int(about["multiple"])
long_side = json.loads(about.get("long_side", "null"))  # at other sizes than this the network sees things badly
first = int(about["background"] == "false")  # the label id of the first score

for path in map(Path, sys.argv[2:]):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    factor = long_side / max(image.size) if long_side else 1
    free = [max(2, round(side * factor / multiple)) * multiple for side in (image.height, image.width)]
    height, width = size or free
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    output = np.asarray(session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0])[0]
    kind = np.uint8 if len(classes) < 255 else np.uint16
    if output.ndim == 2:  # label ids, of `--labels`
        mask = Image.fromarray(output.astype(kind)).resize(image.size, Image.Resampling.NEAREST)
    else:
        scores = [Image.fromarray(plane).resize(image.size, Image.Resampling.BILINEAR) for plane in output]
        mask = Image.fromarray((np.argmax(scores, axis=0) + first).astype(kind))
    mask.save(path.with_suffix(".mask.png"))
    print(path, [classes[label - 1] for label in np.unique(mask) if label])

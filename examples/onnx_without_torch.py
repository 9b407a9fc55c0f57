"""
Predictions without torch: one ONNX file
========================================

Write a detector to one ONNX file. Another process, which imports neither torch nor
skvmdls, predicts with onnxruntime alone::

    pip install -e ".[onnx]"
    python examples/onnx_without_torch.py

``examples/onnx_in_node.mjs`` reads the same file in Node.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from skvmdls import VMDLSDetector, export_onnx
from skvmdls.datasets import load_digits

ELSEWHERE = """
import json, sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
metadata = session.get_modelmeta().custom_metadata_map
classes = [*json.loads(metadata["classes"]), json.loads(metadata["unknown"])]
label, score, p_value, *_ = session.run(None, {"X": np.load(sys.argv[2])})
for row in zip(label, score, p_value):
    print("%6s  score %7.2f  p-value %.3f" % (classes[row[0]], *row[1:]))
assert not {"torch", "skvmdls", "sklearn"} & set(sys.modules)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("digits.onnx"))
    options = parser.parse_args()

    digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
    detector = VMDLSDetector(max_epochs=options.epochs, random_state=0)
    detector.fit(digits.X_train, digits.y_train)
    print(export_onnx(detector, options.out, digits.X_test))

    rows = options.out.with_suffix(".npy")
    np.save(rows, digits.X_test[::200, None].astype(np.float32))
    print("true: ", digits.y_test[::200].tolist())
    command = [sys.executable, "-c", ELSEWHERE, str(options.out), str(rows)]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()

// The file of onnx_without_torch.py, in Node.
//
//     npm install onnxruntime-web
//     node examples/onnx_in_node.mjs digits.onnx
//
// (onnxruntime-node is faster, and is called in the same way.)
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const path = process.argv[2] ?? "digits.onnx";
// Found from the folder in which this is run.
const ort = createRequire(join(process.cwd(), "index.js"))("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const session = await ort.InferenceSession.create(await readFile(path));
// Two images of 8 x 8: an empty one, and a ring.
const X = new Float32Array(2 * 64);
for (let i = 0; i < 64; i++) {
  const distance = Math.hypot((i % 8) - 3.5, Math.floor(i / 8) - 3.5);
  X[64 + i] = Math.abs(distance - 2.5) < 0.8 ? 16 : 0;
}
const answers = await session.run({ X: new ort.Tensor("float32", X, [2, 1, 8, 8]) });
for (let i = 0; i < 2; i++) {
  console.log(
    `label ${answers.label.data[i]}, score ${answers.score.data[i].toFixed(4)}, ` +
      `p-value ${answers.p_value.data[i].toFixed(4)}`,
  );
}

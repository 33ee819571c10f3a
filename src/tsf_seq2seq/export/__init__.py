"""Networks for other software: one task, folded, as ONNX."""

"""Export encoders as files that load without tellapart: Python programs, safetensors, ONNX."""

"""Encoders as files that load without tellapart: programs, safetensors, ONNX, checked before they appear."""

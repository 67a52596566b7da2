"""One-time work: fetch, repair and convert weights into ONNX files with cards."""

from models.silence import keep_silent

# Before any module of this package imports onnxruntime.
keep_silent()

"""Picture to faces to embeddings."""

from models.silence import keep_silent

# Before any module of this package imports onnxruntime.
keep_silent()

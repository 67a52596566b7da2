"""What a model file is: its card, the catalog it can be fetched from, and where files live."""

from models.silence import keep_silent

# Before any module imports onnxruntime.
keep_silent()

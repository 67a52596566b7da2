"""One-time work: fetch, repair and convert weights into ONNX files with cards."""

"""Picture to faces to embeddings."""

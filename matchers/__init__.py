"""Embeddings to identities: galleries in PKL files and in PostgreSQL/pgvector."""

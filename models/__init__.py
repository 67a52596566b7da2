"""What a model file is: its card, the catalog it can be fetched from, and where files live."""

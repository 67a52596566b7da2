"""Every answer of dual mode, kept so that the two stores can be judged by it."""

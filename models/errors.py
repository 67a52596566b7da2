"""Errors about model files and settings."""


class SettingsError(Exception):
    """Settings cannot be read, or one is wrong; the message says which, without its value."""


class ModelError(Exception):
    """A model file cannot be used; the message says which, why, and what to do."""


class CardError(ModelError):
    """A model card is missing or wrong."""


class CatalogError(ModelError):
    """The catalog does not list what was asked for, or a listed file cannot be had."""


class PresetError(ModelError):
    """A network does not fit what is said of it, or there is no such preset."""

"""Errors of galleries and searches."""


class MatcherError(Exception):
    """Base of everything that matchers raise on purpose."""


class InvalidName(MatcherError):
    """A domain or person name is not admitted."""


class UnknownDomain(MatcherError):
    """There is no such domain."""


class GalleryError(MatcherError):
    """A gallery file cannot be read or does not fit the embedder."""


class StoreUnavailable(MatcherError):
    """A store cannot answer at present (down, timed out, breaker open)."""

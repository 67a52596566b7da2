"""Errors of galleries and searches."""


class MatcherError(Exception):
    """Base of everything that matchers raise on purpose."""


class InvalidName(MatcherError):
    """A domain or person name is not admitted."""


class UnknownDomain(MatcherError):
    """There is no such domain."""


class UnknownPerson(MatcherError):
    """The domain holds no such person."""


class UnknownFace(MatcherError):
    """The person has no such face."""


class PersonExists(MatcherError):
    """There is a person of that name already."""


class GalleryError(MatcherError):
    """A gallery file cannot be read or does not fit the embedder."""


class StoreUnavailable(MatcherError):
    """A store cannot answer at present (down, timed out, breaker open)."""

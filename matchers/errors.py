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


class GalleryFileError(GalleryError):
    """A gallery file that was given to be read cannot be used."""


class GalleryMismatch(GalleryFileError):
    """The embeddings of a gallery file cannot be compared with those of the models in use.

    Attributes:
        traits: what differs and may be accepted, see ``matchers.gallery_names``; empty when nothing may be.
    """

    def __init__(self, message: str, traits: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.traits = traits


class StoreUnavailable(MatcherError):
    """A store cannot answer at present (down, timed out, breaker open)."""


class NoPgvector(StoreUnavailable):
    """What was asked needs pgvector, which is switched off."""

"""The errors that are asa_adapter's own; everything else is a built-in type."""


class IncompatibleModelError(ValueError):
    """The model is not one that this adapter can steer: another width, depth, type, or an unknown block layout."""


class AdapterFormatError(ValueError):
    """A stored adapter is damaged, hostile, or written in a format that this version does not read."""


class AdapterDownloadError(OSError):
    """An adapter could not be fetched from the Hub; the message names the repository, the revision and a way out."""


class DamagedDownloadError(AdapterDownloadError, AdapterFormatError):
    """What came from the Hub is not a sound adapter: damaged on the way, or stored so; both bases are true of it."""


class AdapterUploadError(OSError):
    """An adapter could not be pushed to the Hub; the message names the repository and a way out."""

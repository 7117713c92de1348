"""The package's own exceptions. All other errors are of built-in types."""


class IncompatibleModelError(ValueError):
    """The adapter cannot steer this model: its width, depth or type differs, or its decoder blocks are not found."""


class AdapterFormatError(ValueError):
    """A stored adapter is damaged, hostile, or written in a format that this version does not read."""


class AdapterDownloadError(OSError):
    """An adapter could not be fetched from the Hub; the message says which repository and revision, and what to do."""


class DamagedDownloadError(AdapterDownloadError, AdapterFormatError):
    """The files that came from the Hub are not a valid adapter: damaged in the download, or already on the Hub."""


class AdapterUploadError(OSError):
    """An adapter could not be pushed to the Hub; the message says to which repository, and what to do."""

"""One typed family of errors. Each message is a small letter: what came, what was expected, what to do next."""

from __future__ import annotations


class TastemakerError(Exception):
    """Base of all errors raised on purpose. The command line prints its text and exits with `exit_code`."""

    exit_code = 1


class InputError(TastemakerError):
    """Bad data or bad usage: a file, a row, an argument or a request that can't be understood."""

    exit_code = 2


class SettingsError(InputError):
    """A settings file, an environment variable or a `--set` names an unknown key or holds a wrong value."""


class JournalError(TastemakerError):
    """The journal can't be read or written."""


class BundleError(TastemakerError):
    """A bundle is missing, incomplete, altered or made by another schema version."""


class TrainingError(TastemakerError):
    """A training can't go on: its loss is no number, or its processes died too often."""


class MissingExtraError(TastemakerError):
    """A verb needs packages that the plain install leaves out."""

    exit_code = 2

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs packages that are not installed. Install them with: pip install 'tastemaker[{extra}]'")
        self.extra = extra

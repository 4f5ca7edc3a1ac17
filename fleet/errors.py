"""The one exception tree of the house.

StewardError                 anything the user can be told about
├── BadInput                 what was given is wrong: names the field and the place
│   ├── BadConfig            a settings file or environment variable
│   ├── BadFrame             a frame that does not fit its table
│   ├── BadTrace             a recorded trace or capture
│   └── TooLarge             more at once than is taken
├── SourceFailed             a source could not be read this time
│   └── SourceUnavailable    it is not there at all (no driver, no server, no file)
├── Overloaded               more comes in than can be stored now; to be sent again later
├── StoreError               the database could not do it
│   ├── StoreBusy            another process owns the file
│   ├── StoreTooNew          written by a later version
│   ├── NotAStore            the file is something else, or is damaged
│   └── StoreFull            no room on the disk
└── ActionError              a move was not made
    ├── MoveRefused          a guard, a budget or the server said no
    └── StaleState           the world is no longer the one that was planned for
"""


class StewardError(Exception):
    """Anything the user can be told about; its text says what to do next."""


class BadInput(StewardError, ValueError):
    """What was given is wrong.

    `place` names where (a file, a column, a line), `field` what, where they are known.
    """

    def __init__(self, message: str, *, place: str | None = None, field: str | None = None) -> None:
        """Keep the place and the field beside a message that already names them."""
        super().__init__(message)
        self.place = place
        self.field = field


class BadConfig(BadInput):
    """A settings file or an environment variable is wrong."""


class BadFrame(BadInput):
    """A frame does not fit the table it is meant for."""


class BadTrace(BadInput):
    """A recorded trace or capture can't be read as what it claims to be."""


class TooLarge(BadInput):
    """More was given at once than is taken."""


class Overloaded(StewardError):
    """More comes in than can be stored now; the sender may send it again later."""


class SourceFailed(StewardError):
    """A source could not be read this time; the caller records it and goes on."""


class SourceUnavailable(SourceFailed):
    """The source is not there at all: no driver, no server, no file."""


class StoreError(StewardError):
    """The database could not do what was asked; nothing acknowledged was lost."""


class StoreBusy(StoreError):
    """Another process owns the database file."""


class StoreTooNew(StoreError):
    """The database was written by a later version of GPU Steward."""


class NotAStore(StoreError):
    """The file is not a GPU Steward database, or it is damaged."""


class StoreFull(StoreError):
    """There is no room left where the database lives."""


class ActionError(StewardError):
    """A move was not made."""


class MoveRefused(ActionError):
    """A guard, a budget or the server said no to a move."""


class StaleState(ActionError):
    """The world is no longer the one that the plan was made for."""

"""Why a name stands for no environment; each message is one line that names the bad thing and what to do."""


class UnknownEnvironment(ValueError):
    """No environment has this name; the message gives the name and the nearest right one."""

    def __init__(self, name: str, nearest: str) -> None:
        super().__init__(f"unknown environment {name!r}: did you mean {nearest!r}?")


class UnusableName(UnknownEnvironment):
    """The message, one line, is given whole."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


class WrongOptions(UnusableName):
    """A name carries options that its environment does not take, or lacks one that it has to have."""


class MissingPackage(UnusableName):
    """The package that an environment comes from is not installed."""


class CannotMake(UnusableName):
    """An environment that is known, and that cannot be made here, as where a package that it needs is missing."""


class CannotImport(UnusableName):
    """An environment of an outside package, whose code is not where its name says."""

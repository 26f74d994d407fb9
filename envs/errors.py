"""Why a name gives no environment. Each message is one line that names what is wrong and what to do."""


class UnknownEnvironment(ValueError):
    """The name gives no environment: none has it, or one of the reasons below."""


class OptionError(UnknownEnvironment):
    """The name carries options that its environment does not take, or lacks one without a default."""


class MissingPackageError(UnknownEnvironment):
    """The package that the environment comes from is not installed."""


class MakeError(UnknownEnvironment):
    """The environment is known and cannot be made here, e.g. without a package that it needs."""


class PluginError(UnknownEnvironment):
    """The code of another package's environment cannot be imported."""

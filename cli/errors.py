"""The error that ends a command."""


class CommandError(Exception):
    """A command cannot continue. The text is one sentence for the user; the command prints it and exits with status 2."""

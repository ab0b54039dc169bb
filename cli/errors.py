"""The one way in which a command declines to go on."""


class CommandError(Exception):
    """Its text is one sentence for the person at the terminal; the command prints it and exits with a status other than 0."""

"""Corrections of what Typer prints: types of options in help, and reasons of rejected values."""

import typer
from typer.core import TyperArgument, TyperOption

# What pydantic, with which Typer checks values, puts before the message of a validator.
PREFIXES = ("Value error, ", "Assertion failed, ")


def correct_output() -> None:
    """Show no type after a flag, ``<int>`` before a range and not ``<int range>``, and messages without pydantic's prefix."""
    option_type, argument_type = TyperOption.display_type_rich, TyperArgument.display_type_rich
    TyperOption.display_type_rich = lambda option, ctx: None if option.is_flag else _shown_type(option_type(option, ctx))  # type: ignore[method-assign, assignment]
    TyperArgument.display_type_rich = lambda argument, ctx: _shown_type(argument_type(argument, ctx))  # type: ignore[method-assign, assignment]
    format_message = typer.BadParameter.format_message

    def format_without_prefix(error: typer.BadParameter) -> str:
        for prefix in PREFIXES:
            error.message = error.message.removeprefix(prefix)
        return format_message(error)

    typer.BadParameter.format_message = format_without_prefix  # type: ignore[method-assign, assignment]


def _shown_type(text: str | None) -> str | None:
    return text and text.replace(" range>", ">")

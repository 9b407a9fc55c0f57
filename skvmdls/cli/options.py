"""Errors for options that a command lacks, with the option that was probably meant."""

import argparse
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = ["Parser", "check_options"]


class Parser(argparse.ArgumentParser):
    """A parser that lists the names of its options."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.options: list[str] = []
        super().__init__(*args, **settings)

    def add_argument(self, *args: Any, **settings: Any) -> argparse.Action:
        """Add an argument, as argparse does, and note its names."""
        action = super().add_argument(*args, **settings)
        self.options += action.option_strings
        return action


def check_options(
    words: Sequence[str], program: Parser, commands: Mapping[str, Parser]
) -> None:
    """Refuse options that the command of these words lacks.

    argparse would print the usage of the whole program, without the command's options.

    Raises
    ------
    ValueError
        With the nearest option that there is.
    """
    position = next((i for i, w in enumerate(words) if not w.startswith("-")), None)
    if position is None or words[position] not in commands:
        # argparse lists the commands.
        return
    name = words[position]
    options = commands[name].options
    for word in words[:position]:
        if not _is_among(word, program.options):
            raise ValueError(
                f"{word}: it stands before the command; expected behind it, as in "
                f"'skvmdls {name} {word}'."
            )
    for word in words[position + 1 :]:
        if word == "--":
            # All behind it are files and folders.
            return
        if _is_option(word) and not _is_among(word, options):
            given = word.partition("=")[0]
            raise ValueError(
                f"{given}: 'skvmdls {name}' has no such option."
                f"{_suggestion(given, options)} 'skvmdls {name} --help' lists all."
            )


def _is_option(word: str) -> bool:
    """Whether argparse takes a word for an option, not for a number or a file."""
    if not word.startswith("-") or word == "-" or " " in word:
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _is_among(word: str, options: Sequence[str]) -> bool:
    """Whether a word is an option, or its beginning, which argparse completes."""
    given = word.partition("=")[0]
    return any(option.startswith(given) for option in options)


def _suggestion(given: str, options: Sequence[str]) -> str:
    names = {option.lstrip("-"): option for option in options}
    nearest = get_close_matches(given.lstrip("-").lower(), names, n=1)
    return f" Did you mean {names[nearest[0]]}?" if nearest else ""

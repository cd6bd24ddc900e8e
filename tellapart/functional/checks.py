"""Checks of arguments that loss functions and options of objectives share; free of torch."""

from __future__ import annotations

from ..errors import require


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Check a temperature; every function and every option calls this.

    Args:
        temperature: a finite Python number above 0.
        name: how the message calls it, for example "--objective.temperature".

    Raises:
        ConfigError: the value is 0, negative, infinite or NaN; or a tensor, whose gradient would be
            lost. Scale the queries instead to learn a temperature: `q / t` with temperature 1.
    """
    require(
        not hasattr(temperature, "requires_grad"),
        f"{name} must be a number, got a tensor; "
        "to learn it, divide the query rows by it and pass 1",
    )
    require(0 < temperature < float("inf"), f"{name} must be above 0, got {temperature}")


def check_margin(margin: float, name: str = "margin") -> None:
    """Check a margin.

    Args:
        margin: a finite Python number above 0.
        name: how the message calls it.

    Raises:
        ConfigError: the value is 0, negative, infinite or NaN.
    """
    require(0 < margin < float("inf"), f"{name} must be above 0, got {margin}")

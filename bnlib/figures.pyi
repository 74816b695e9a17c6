"""Types of what is offered here, written by `make export`."""

from collections.abc import Callable, Iterable
from typing import Any

import matplotlib.figure

__all__ = ["COLOURS", "to_svg", "style", "table", "movable"]
COLOURS: dict[str, Any]

def to_svg(figure: matplotlib.figure.Figure, salt: str = ...) -> str: ...
def style() -> None: ...
def table(columns, rows) -> Any: ...
def movable(
    draw: Callable,
    values: Iterable | dict,
    *,
    label: str = ...,
    describe: Callable,
    show: Callable = ...,
    start: int | tuple[int, ...] = ...,
    live: dict = ...,
) -> Any: ...

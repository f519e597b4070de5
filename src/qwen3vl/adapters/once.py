"""Warnings that are logged once for each object."""

from __future__ import annotations

from dataclasses import dataclass, field
from logging import Logger


@dataclass(slots=True)
class OnceLogger:
    """Logs each warning once in the life of the object that owns it.

    Loggers compare equal, and copies and pickles of one have logged nothing yet, so that what an object has logged
    makes no difference between objects with equal settings.

    Example:
        ```python
        self._once.warning(log, "policy", "the policy %s allows no file", self.policy)
        ```
    """

    _logged: set[str] = field(default_factory=set, compare=False, repr=False)

    def warning(self, log: Logger, key: str, message: str, *arguments: object) -> None:
        """Log a warning, unless one with this key has been logged.

        Args:
            log: The logger.
            key: Identifies the warning.
            message: The message, with placeholders as of `logging`.
            *arguments: Values of the placeholders.
        """
        if key not in self._logged:
            self._logged.add(key)
            log.warning(message, *arguments)

    def __reduce__(self) -> tuple[type[OnceLogger], tuple[()]]:
        return type(self), ()

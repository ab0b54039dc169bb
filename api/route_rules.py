"""Routes that compile the code for building their URLs only when a URL is built, which the API does only for redirects.

Werkzeug compiles this code for every route when the application is created. That takes most of the time of ``create_app``.
"""

from collections.abc import Callable
from functools import cache

from werkzeug.routing import Rule


class RouteRule(Rule):
    """A rule as Werkzeug's, with the same URLs."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compile_now = super()._compile_builder

        @cache
        def builder() -> Callable[..., tuple[str, str]]:
            return compile_now(append_unknown)

        return lambda rule, **values: builder()(rule, **values)

"""The stacks of the flows, for tests that break them."""

from tests.flows.conftest import slow_stack, stack

__all__ = ["slow_stack", "stack"]

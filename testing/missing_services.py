"""Tests that need something this machine may lack, such as a browser or the right to mount."""

import os

import pytest


def missing_service(reason: str) -> None:
    """Skip the test on a laptop, but fail it in CI, where a missing service would otherwise go unnoticed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

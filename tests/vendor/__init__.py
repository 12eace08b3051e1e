"""The vendor's SDKs against the emulator."""

import pytest

pytest.register_assert_rewrite("tests.vendor.operations")

"""Assertions in the gallery's shared suite explain themselves, as those of test modules do."""

import pytest

pytest.register_assert_rewrite("tests.service.gallery_contract")

from __future__ import annotations

import pytest

from server.errors import ApiError
from server.intake import Intake


def test_uploads_are_taken_until_the_memory_for_them_is_full_and_again_once_one_is_done() -> None:
    intake = Intake(100)
    with intake.upload() as first:
        first.add(60)
        with intake.upload() as second:
            second.add(40)
            with pytest.raises(ApiError) as raised:
                second.add(1)
            assert (raised.value.status, raised.value.code) == (503, "overloaded")
            assert int(raised.value.headers["Retry-After"]) >= 1
        first.add(40)
        assert intake.held == 100
    assert intake.held == 0

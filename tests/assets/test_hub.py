"""The hub out of reach: found out once and quickly, and then nobody tries again."""

import pytest
from huggingface_hub import constants, is_offline_mode

from lpt.assets.hub import hub_answers


@pytest.fixture(params=[True, False], ids=["answers", "silent"])
def hub(request, monkeypatch):
    """A hub that answers or does not, of which nothing is known yet; lists how it was asked."""
    asked = []

    class Session:
        def head(self, url, timeout):
            asked.append((url, timeout))
            if not request.param:
                raise ConnectionError

    monkeypatch.setattr("lpt.assets.hub.get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_answers.cache_clear()
    yield request.param, asked
    hub_answers.cache_clear()


def test_the_hub_is_tried_once_and_caches_are_used_if_it_is_silent(hub):
    there, asked = hub
    assert [hub_answers(), hub_answers()] == [there, there]
    assert asked == [(constants.ENDPOINT, 5)]
    assert is_offline_mode() is not there

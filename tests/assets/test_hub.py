"""The hub out of reach: found out once and quickly, and then nobody tries again."""

import pytest
from huggingface_hub import constants, is_offline_mode

from lpt.assets.hub import PROXIES, hub_answers, hub_trouble


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
    hub_trouble.cache_clear()
    yield request.param, asked
    hub_trouble.cache_clear()


def test_the_hub_is_tried_once_and_caches_are_used_if_it_is_silent(hub):
    there, asked = hub
    assert [hub_answers(), hub_answers()] == [there, there]
    assert asked == [(constants.ENDPOINT, 5)]
    assert is_offline_mode() is not there


@pytest.mark.parametrize(
    ("error", "environment", "trouble"),
    [
        (ConnectionError("no route"), {}, "https://huggingface.co does not answer (ConnectionError)"),
        (
            ConnectionError("no route"),
            {"HTTPS_PROXY": "http://proxy:3128"},
            "https://huggingface.co does not answer, by the proxy that HTTPS_PROXY names (ConnectionError)",
        ),
        (
            OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"),
            {"HTTPS_PROXY": "http://proxy:3128"},
            "its certificate is not trusted here; if your network has a certificate of its own, name its file in "
            "SSL_CERT_FILE",
        ),
    ],
)
def test_proxy_and_certificate_are_named_where_they_may_be_the_cause(monkeypatch, error, environment, trouble):
    class Session:
        def head(self, url, timeout):
            raise error

    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lpt.assets.hub.get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    hub_trouble.cache_clear()
    assert hub_trouble() == trouble
    assert is_offline_mode()
    hub_trouble.cache_clear()


def test_offline_mode_is_named_as_such_and_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("lpt.assets.hub.get_session", None)
    hub_trouble.cache_clear()
    assert hub_trouble() == "HF_HUB_OFFLINE is set"
    hub_trouble.cache_clear()

"""The Hugging Face hub, or its cache alone where it is out of reach."""

import os
from functools import cache

from huggingface_hub import constants, get_session

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def hub_answers() -> bool:
    """Return whether the hub can be reached. If not, Hugging Face's libraries keep to their caches from now on.

    Ask before importing `datasets`, which looks at offline mode once.
    """
    return hub_trouble() is None


@cache
def hub_trouble() -> str | None:
    """Say why the hub is out of reach, as the end of a sentence; None where it answers.

    One short try: left alone, the libraries try each file for half a minute, even those they have.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # the errors of whichever HTTP library the hub's client uses
        constants.HF_HUB_OFFLINE = True
        text = f"{error} {error.__cause__ or ''}"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return (
                "its certificate is not trusted here; if your network has a certificate of its own, name its file in "
                "SSL_CERT_FILE"
            )
        proxy = next((name for name in PROXIES if os.environ.get(name)), None)
        by_proxy = "" if proxy is None else f", by the proxy that {proxy} names"
        return f"{constants.ENDPOINT} does not answer{by_proxy} ({type(error).__name__})"
    return None

"""The Hugging Face hub, or its cache alone where it is out of reach."""

from functools import cache

from huggingface_hub import constants, get_session


@cache
def hub_answers() -> bool:
    """Return whether the hub can be reached. If not, Hugging Face's libraries keep to their caches from now on.

    One short try: left alone, they try each file for half a minute, even those they have. Ask before importing
    `datasets`, which looks at offline mode once.
    """
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # the errors of whichever HTTP library the hub's client uses, or of offline mode
        constants.HF_HUB_OFFLINE = True
        return False
    return True

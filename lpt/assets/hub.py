"""The Hugging Face hub, or its cache alone where it is out of reach."""

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from huggingface_hub import HfApi, constants, get_session

from lpt.errors import LptError

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


def push_adapter(save: Callable[[Path], None], repo_id: str, private: bool, token: str | None) -> str:
    """Upload an adapter as a commit of a model repository, which is made if it does not exist.

    Args:
        save: writes the adapter into a folder.
        repo_id: `<name>/<repository>`.
        private: whether a new repository is private.
        token: None: the one that is stored.

    Returns:
        The address of the commit.

    Raises:
        LptError: the hub cannot be reached, or refuses.
    """
    trouble = hub_trouble()
    if trouble is not None:
        raise LptError(f"the adapter cannot be pushed to {repo_id!r}: {trouble}; save_pretrained keeps it in a folder")
    with tempfile.TemporaryDirectory(prefix="lpt-") as folder:
        save(Path(folder))
        try:
            api = HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload an adapter of lpt")
        except (OSError, ValueError) as error:  # HTTP errors are among the first
            raise LptError(
                f"the adapter cannot be pushed to {repo_id!r} ({str(error).partition(chr(10))[0]}); check the name and "
                "the token (hf auth login)"
            ) from error
    return str(commit.commit_url)

"""The real command, in a process of its own, with a real (tiny) model."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import torch
from browser import CHROMIUM, Browser
from places import REPOSITORY
from tiny import tiny_adapter

from lpt import LatePromptClassifier
from lpt.backbones.pretrained import find_pretrained

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    config = tiny_adapter(folder, "llama")
    LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32).save_pretrained(folder / "adapter")
    return folder / "adapter"


class Served:
    """`lpt serve` on a free port."""

    def __init__(self, *arguments, **environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lpt", "serve", *map(str, arguments), "--port", str(self.port), "--precision", "32"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(600):
            try:
                httpx.get(self.url + "/health")
                return
            except httpx.ConnectError:
                assert self.process.poll() is None, self.process.stderr.read()
                time.sleep(0.1)
        raise AssertionError("it does not come up")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def served(adapter):
    with Served(f"mood={adapter}", f"again={adapter}") as server:
        yield server


def test_answers_are_those_of_the_classifier(served, adapter):
    texts = ["a good film", "never again", "it was dull"]
    found = httpx.post(served.url + "/predict", json={"texts": texts}).json()["predictions"]
    expected = LatePromptClassifier.from_pretrained(adapter, "cpu", "32").predict(texts)
    for row, prediction in zip(found, expected, strict=True):
        assert row["mood"]["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)
        assert row["again"] == row["mood"]


def test_all_requests_that_were_taken_are_answered_when_it_is_ended(adapter):
    with Served(adapter) as server:
        answered, refused = [], []

        def ask(number):
            while True:
                try:
                    answer = httpx.post(server.url + "/predict", json={"text": f"film {number} " * 5}, timeout=60)
                except httpx.ConnectError:  # it takes nothing new
                    return
                except httpx.HTTPError as error:
                    refused.append(error)
                    return
                (answered if answer.status_code == 200 else refused).append(answer)
                if answer.status_code == 503:
                    refused.pop()
                    return

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        while len(answered) < 50:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.process.wait(60) in (0, -signal.SIGTERM)
        assert [str(one) for one in refused if not re.search("disconnected|reset", str(one))] == []
        said = server.process.stderr.read()
    assert "film" not in said  # no text is logged
    assert "Traceback" not in said


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_answers_a_text_and_labels_a_file(served, tmp_path):
    rows = [("1", 'a "good", film'), ("2", "never\nagain")] * 40
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *rows])
    with Browser() as browser:
        browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.open(served.url + "/")
        browser.wait("!document.querySelector('#open').hidden")
        browser.run("document.querySelector('#text').value = 'a good film'")
        browser.run("document.querySelector('#ask').click()")
        assert browser.wait("document.querySelectorAll('.answer').length") == 2
        shown = browser.run("document.querySelector('.answer').innerText")
        assert re.search(r"mood\s+(good|bad)\s+(good|bad)\s+\d+\.\d%\s+(good|bad)\s+\d+\.\d%", shown)
        browser.choose_file("#file", tmp_path / "in.csv")
        browser.wait("!document.querySelector('#chosen').hidden")
        assert browser.run("document.querySelector('#column').selectedOptions[0].text") == "text"
        browser.run("document.querySelector('#start').click()")
        browser.wait("!document.querySelector('#save').hidden")
        browser.run("document.querySelector('#save').click()")
        output = tmp_path / "in-labeled.csv"
        for _ in range(200):
            if output.exists():
                break
            time.sleep(0.05)
        assert browser.run("document.querySelector('#problem').textContent") == ""
    with output.open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["id", "text", "mood.label", "mood.confidence", "again.label", "again.confidence"]
    assert [tuple(row[:2]) for row in found] == rows
    texts = [row[1] for row in rows]
    answers = httpx.post(served.url + "/predict", json={"texts": texts}).json()["predictions"]
    assert [row[2] for row in found] == [answer["mood"]["label"] for answer in answers]

"""What a server of `lpt serve` bears: throughput, latency, memory; and a single request next to the stock model.

    python experiments/serve_load.py <adapter> [--requests 50000] [--clients 16]

The server runs on this machine, beside the clients. One JSON line on stdout.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import torch

from lpt import LatePromptClassifier
from lpt.backbones.pretrained import find_pretrained

WORDS = [
    "where",
    "is",
    "my",
    "parcel",
    "the",
    "app",
    "crashed",
    "please",
    "refund",
    "cancel",
    "I",
    "cannot",
    "sign",
    "in",
    "it",
    "was",
    "due",
    "on",
    "monday",
]

WARM_UP = 20  # requests that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("--requests", type=int, default=50_000, help="under load")
    parser.add_argument("--single", type=int, default=300, help="requests one after the other")
    parser.add_argument("--clients", type=int, default=16)
    found = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lpt", "serve", found.adapter, "--port", str(port), "--remember", "64"]
    server = subprocess.Popen(command, env=os.environ)
    url = f"http://127.0.0.1:{port}/predict"
    try:
        wait_for(port)
        result: dict[str, object] = {"one at a time": one_at_a_time(url, found.adapter, found.single)}
        result |= under_load(url, found.requests, found.clients, psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait()
    print(json.dumps(result))


def text(number: int) -> str:
    draw = np.random.default_rng(number)
    return " ".join(draw.choice(WORDS, 18)) + f" {number}"


def wait_for(port: int) -> None:
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health")
            return
        except httpx.ConnectError:
            time.sleep(0.2)


def one_at_a_time(url: str, adapter: str, requests: int) -> dict[str, object]:
    """The same texts by HTTP, by the classifier in Python and by the stock model, in turns: machines are never idle."""
    classifier = LatePromptClassifier.from_pretrained(adapter)
    template, dtype = classifier.template, classifier.method.backbone.model.dtype
    stock = find_pretrained(classifier.config.backbone).load_model(dtype).eval()
    host, path = urlsplit(url).netloc, urlsplit(url).path
    connection = HTTPConnection(host)

    def by_http(text: str) -> None:
        connection.request("POST", path, json.dumps({"text": text}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200

    def by_stock_model(text: str) -> None:
        rendered, _ = template.render((text,))
        stock(**template.tokenizer(rendered, return_tensors="pt"))

    ways = {"HTTP": by_http, "Python": classifier.predict, "stock model": by_stock_model}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for number in range(requests):
            for name, way in ways.items():
                start = time.perf_counter()
                way(text(number))
                if number >= WARM_UP:
                    times[name].append(time.perf_counter() - start)
    ratio = float(np.median(np.divide(times["HTTP"], times["stock model"])))
    return {name: milliseconds(found) for name, found in times.items()} | {"HTTP / stock model": round(ratio, 3)}


def under_load(url: str, requests: int, clients: int, process: psutil.Process) -> dict[str, object]:
    numbers, times, lost, memory = iter(range(requests)), [], [], []
    lock = threading.Lock()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                start = time.perf_counter()
                answer = client.post(url, json={"text": text(number)})
                times.append(time.perf_counter() - start)
                if answer.status_code != 200:
                    lost.append(answer.status_code)
                if number % max(requests // 20, 1) == 0:
                    memory.append(process.memory_info().rss)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    return {
        "requests": requests,
        "clients": clients,
        "not answered": len(lost),
        "requests per second": round(requests / seconds, 1),
        "under load": milliseconds(times),
        "megabytes": [round(bytes_ / 1e6) for bytes_ in memory],
    }


def milliseconds(times: list[float]) -> dict[str, float]:
    return {name: round(1e3 * float(np.percentile(times, p)), 1) for name, p in (("p50", 50), ("p99", 99))}


if __name__ == "__main__":
    main()

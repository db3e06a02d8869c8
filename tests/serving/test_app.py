import pytest
from fastapi.testclient import TestClient

from lpt.adapter import AdapterConfig
from lpt.classifier import Prediction
from lpt.data.reading import Reading
from lpt.errors import LptError
from lpt.serving.app import make_app
from lpt.serving.limits import Limits

LIMITS = Limits(texts=3, characters=50, megabytes=0.001)


class Tasks:
    """As `MultiTaskClassifier`, without a model: `mood` by the length of a text, `score` by its first letter."""

    def __init__(self):
        config = AdapterConfig("mood", "b", None, "lpt", {}, "", ["bad", "good"], {}, "", "", 0)
        score = AdapterConfig("score", "b", None, "lpt", {}, "", ["0", "1"], {}, "", "", 0, value_range=[0, 5])
        pair = AdapterConfig("pair", "b", None, "lpt", {}, "", ["no", "yes"], {}, "", "", 0, reading=Reading(b="b"))
        self.tasks = {"mood": config, "score": score, "pair": pair}

    def predict_rows(self, rows):
        return [self._one(task, text) for task, text in rows]

    def _one(self, task, text):
        if (task == "pair") != isinstance(text, tuple):
            raise LptError(f"task {task!r} takes {'a pair' if task == 'pair' else 'one text'}")
        if task == "score":
            return Prediction("1", {"0": 0.4, "1": 0.6}, 3.0)
        p = 1 / (1 + len(text))
        labels = self.tasks[task].labels
        return Prediction(labels[1], dict(zip(labels, (p, 1 - p), strict=True)))

    def add(self, folder, name=None):
        if not (folder / "adapter_config.json").exists():
            raise LptError(f"{folder} holds no adapter")
        self.tasks = self.tasks | {name or folder.name: self.tasks["mood"]}
        return name or folder.name

    def remove(self, name):
        self.tasks = {other: config for other, config in self.tasks.items() if other != name}


@pytest.fixture
def client():
    with TestClient(make_app(Tasks, LIMITS)) as client:
        yield client


def test_one_text_or_several_for_one_task_or_several(client):
    one = client.post("/predict", json={"text": "abc", "tasks": ["mood"]}).json()
    assert one == {
        "predictions": {"mood": {"label": "good", "confidence": 0.75, "probabilities": {"bad": 0.25, "good": 0.75}}}
    }
    found = client.post("/predict", json={"texts": ["abc", "a", "abc"], "tasks": ["score", "mood"]}).json()[
        "predictions"
    ]
    assert [list(row) for row in found] == [["score", "mood"]] * 3
    assert [row["mood"]["confidence"] for row in found] == [0.75, 0.5, 0.75]
    assert found[0]["score"] == {"value": 3.0}
    assert client.post("/predict", json={"texts": [["a", "b"]], "tasks": ["pair"]}).json()["predictions"][0]["pair"]
    assert client.post("/predict", json={"texts": []}).json() == {"predictions": []}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"text": "a", "tasks": ["moot"]}, 404, "there is no task 'moot' (there are: mood, score, pair)"),
        ({}, 422, "give either text or texts"),
        ({"text": "a", "texts": ["b"]}, 422, "give either text or texts"),
        ({"texts": ["a"] * 4}, 413, "4 texts; send at most 3 at a time"),
        ({"text": "a" * 51}, 413, "a text of 51 characters; send at most 50"),
        ({"texts": ["a" * 40] * 30}, 413, "the body is larger than 0.001 MB"),
        ({"text": "a"}, 422, "task 'pair' takes a pair"),
        ({"text": 7}, 422, "valid string"),
        ({"texts": "abc"}, 422, "valid list"),
        ("text", 422, "valid dictionary"),
    ],
)
def test_what_cannot_be_answered_says_why(client, body, status, said):
    answer = client.post("/predict", json=body)
    assert answer.status_code == status
    assert said in str(answer.json()["detail"])
    assert client.post("/predict", json={"text": "a", "tasks": ["mood"]}).status_code == 200


BROKEN = [b"", b"{", b"\xff\xfe", b"[" * 900, b'{"text": "\\ud800", "tasks": ["mood"]}', b'{"texts": "\\ud800"}']


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_body_is_the_senders_fault(client, content):
    answer = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500


def test_a_body_is_counted_whatever_its_header_says(client):
    def pieces():
        for _ in range(5):
            yield b'{"text": "' + b"a" * 400

    answer = client.post("/predict", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_without_its_token_a_server_shows_its_page_and_health_alone():
    with TestClient(make_app(Tasks, LIMITS, token="se cret")) as client:
        for path in ("/tasks", "/metrics", "/openapi.json"):
            for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "se cret"}):
                assert client.get(path, headers=headers).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer se cret"}).status_code == 200
        assert client.post("/predict", json={"text": "a"}).status_code == 401
        assert client.get("/health").json() == {"status": "ok", "tasks": 3, "waiting_rows": 0}
        assert client.get("/").status_code == 200


def test_the_page_may_load_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http" not in answer.text.replace("http-equiv", "")


def test_another_name_of_the_host_is_refused():
    with TestClient(make_app(Tasks, LIMITS, hosts=("127.0.0.1", "testserver"))) as client:
        assert client.get("/tasks").status_code == 200
        assert client.get("/tasks", headers={"Host": "elsewhere.example"}).status_code == 400


def test_tasks_are_added_and_removed_within_the_folder_that_was_named(tmp_path):
    (tmp_path / "root" / "new").mkdir(parents=True)
    (tmp_path / "root" / "new" / "adapter_config.json").touch()
    (tmp_path / "root" / "away").symlink_to(tmp_path)
    with TestClient(make_app(Tasks, LIMITS, root=tmp_path / "root")) as client:
        assert client.post("/tasks", json={"path": "new"}).json() == {"name": "new"}
        assert "new" in client.get("/tasks").json()["tasks"]
        assert client.post("/predict", json={"text": "abc", "tasks": ["new"]}).status_code == 200
        assert client.post("/tasks", json={"path": "new", "name": "mood"}).status_code == 409
        assert client.post("/tasks", json={"path": "absent"}).status_code == 422
        for path in ("..", "away", "/etc", "new/../.."):
            assert client.post("/tasks", json={"path": path}).status_code == 403
        assert client.delete("/tasks/new").status_code == 200
        assert client.delete("/tasks/new").status_code == 404
        assert list(client.get("/tasks").json()["tasks"]) == ["mood", "score", "pair"]
    with TestClient(make_app(Tasks, LIMITS)) as client:
        assert client.post("/tasks", json={"path": "new"}).status_code == 403
        assert client.delete("/tasks/mood").status_code == 403


def test_what_is_counted_has_no_text_in_it(client):
    client.post("/predict", json={"text": "private words", "tasks": ["mood"]})
    client.get("/nowhere/private")
    said = client.get("/metrics").text
    assert 'lpt_requests_total{path="/predict",status="200"} 1.0' in said
    assert 'lpt_requests_total{path="other",status="404"} 1.0' in said
    assert 'lpt_rows_total{task="mood"} 1.0' in said
    assert "private" not in said

"""Ray Data gives the rows in their order, with the answers that the command gives by itself."""

import json

import pytest
from test_cli import adapter  # noqa: F401  (a fixture)

from lpt.cli import main

pytest.importorskip("ray", reason="needs ray: pip install 'lpt[ray]'")


def test_ray_answers_as_the_command_does_and_refuses_what_it_does_itself(adapter, tmp_path, capsys):  # noqa: F811
    rows = [{"id": i, "text": f"film {i} " + "good " * (i % 5)} for i in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--input", str(tmp_path / "in.jsonl"), "--output"]
    options = ["--precision", "32", "--accelerator", "cpu"]
    main(["predict", adapter, *files, str(tmp_path / "alone.jsonl"), *options])
    main(["predict", adapter, *files, str(tmp_path / "ray.jsonl"), *options, "--engine", "ray"])
    parts = sorted((tmp_path / "ray.jsonl").iterdir())
    found = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    expected = [json.loads(line) for line in (tmp_path / "alone.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == list(range(40))
    for one, other in zip(found, expected, strict=True):
        assert one["text"] == other["text"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    with pytest.raises(SystemExit):
        main(["predict", adapter, *files, str(tmp_path / "ray.jsonl"), "--engine", "ray", "--shard", "1/2"])
    assert "--shard goes with --engine local" in capsys.readouterr().err

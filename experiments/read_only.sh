#!/usr/bin/env bash
# The study of experiments/read_only.md: methods that read the text once, against the same methods whose text sees them,
# with 200 training rows; and dropout inside the frozen layers, on and off.
# Completed points are not computed again, so it can be interrupted and started again.
#
#   experiments/read_only.sh <folder of GLUE and LM-BFF data> [folder of the sweeps] [points at a time]
#   lpt report <folder of the sweeps>/minilm-l6; lpt report <folder of the sweeps>/smollm2-135m; ...
set -euo pipefail
data=$(realpath "$1") folder=${2:-runs/read_only} workers=${3:-2}
cd "$(dirname "$0")/.."

sweep() {  # a failed point appears in the report and does not stop the others
  local into=$1
  shift
  "${PYTHON:-.venv/bin/python}" train.py -m hydra.sweep.dir="$folder/$into" hydra.launcher.workers="$workers" \
    trainer.max_epochs=6 fewshot.k=200 seed=13,21,42 "$@" || echo "some points failed: $*"
}

each_task() {  # a sweep on each of the three tasks
  sweep "$@" task=film_reviews
  sweep "$@" task=trec task.source=tsv "task.data_dir=$data"
  sweep "$@" task=subj task.source=tsv "task.data_dir=$data"
}

both() {  # read-only or not, at the middle layer; then read-only from lower layers on
  local into=$1 middle=$2 quarter=$3
  shift 3
  each_task "$into" "$@" method=lpt lpt.read_only=true,false
  each_task "$into" "$@" method=lpt generator=none generator.init=states generator.normalize=true optim.lr=3e-2 \
    lpt.read_only=true,false
  each_task "$into" "$@" method=lora lpt.layer="$middle" method.targets=all optim.lr=1e-3 lpt.read_only=true,false
  each_task "$into" "$@" method=lpt_lora optim.lr=1e-3 lpt.read_only=true,false
  each_task "$into" "$@" method=lpt lpt.layer=1,"$quarter" lpt.read_only=true
  each_task "$into" "$@" method=lora lpt.layer=1,"$quarter" method.targets=all optim.lr=1e-3 lpt.read_only=true
}

both minilm-l6 4 2 backbone=minilm-l6 head=linear
both smollm2-135m 16 8 backbone=smollm2-135m

# Dropout of the backbone, on and off; SmolLM2 has none.
for method in lpt lora adapter full; do
  each_task dropout backbone=minilm-l6 head=linear method=$method lpt.read_only=false \
    lpt.dropout=true,false
done

#!/usr/bin/env bash
# The study of experiments/quality.md: methods, generators and layers on several tasks, with 200 training rows, the text
# seeing what is trained.
# Completed points are not computed again, so it can be interrupted and started again.
#
#   experiments/evidence.sh <folder of GLUE and LM-BFF data> [folder of the sweep] [points at a time]
#   lpt report <folder of the sweep>
set -euo pipefail
data=$(realpath "$1") folder=${2:-runs/evidence} workers=${3:-2}
cd "$(dirname "$0")/.."

sweep() {  # in the paper's form; a failed point appears in the report and does not stop the others
  "${PYTHON:-.venv/bin/python}" train.py -m hydra.sweep.dir="$folder" hydra.launcher.workers="$workers" \
    lpt.read_only=false trainer.max_epochs=6 fewshot.k=200 "$@" ||
    echo "some points failed: $*"
}
known=(generator.init=states generator.normalize=true)  # a prompt that starts from states, in their units

late() {  # on cached states
  sweep "$@" method=zero_shot seed=13
  sweep "$@" generator=npg,none seed=13,21,42
  sweep "$@" "${known[@]}" generator=npg seed=13,21,42
  sweep "$@" "${known[@]}" generator=none optim.lr=3e-2 lpt.prompt_length=5,20 seed=13,21,42
  sweep "$@" method=lora lpt.layer=16 method.targets=all optim.lr=1e-3 seed=13,21,42
  sweep "$@" method=lpt_lora optim.lr=1e-3 seed=13,21,42
  sweep "$@" method=adapter lpt.layer=16 seed=13,21,42
}
full_depth() {  # on all layers
  sweep "$@" method=lora optim.lr=1e-3 seed=13,21,42
  sweep "$@" method=p_tuning_v2,adapter seed=13,21,42
  sweep "$@" method=prompt_tuning optim.lr=3e-3 generator.init=vocabulary seed=13,21,42
}
prompts() {  # other layers, other generators
  sweep "$@" generator=npg lpt.layer=8,21,26 seed=13,21,42
  sweep "$@" generator=appg,mppg seed=13,21,42
}
limits() {  # what limits a prompt: rate, length, dropout
  sweep "$@" method=prompt_tuning optim.lr=3e-2 generator.init=default seed=13,21
  sweep "$@" generator=none optim.lr=1e-2,3e-2 seed=13,21
  sweep "$@" generator=npg optim.lr=1e-3,1e-2 seed=13,21
  sweep "$@" generator=npg lpt.prompt_length=1,20 seed=13,21
  sweep "$@" generator=npg generator.dropout=0.1 seed=13,21
}
encoder() {  # a sentence encoder without LM head
  local minilm=(backbone=minilm-l6 head=linear seed=13,21,42)
  sweep "$@" "${minilm[@]}" method=lpt,lpt_lora,adapter,bitfit,full,prompt_tuning,p_tuning_v2,linear_probe
  sweep "$@" "${minilm[@]}" method=lora optim.lr=1e-3,3e-3
  sweep "$@" "${minilm[@]}" method=lora lpt.layer=4 method.targets=all optim.lr=1e-3,3e-3
}

film=(task=film_reviews)
trec=(task=trec task.source=tsv "task.data_dir=$data")
subj=(task=subj task.source=tsv "task.data_dir=$data")
rte=(task=rte task.source=tsv "task.data_dir=$data")

late "${film[@]}"; full_depth "${film[@]}"; prompts "${film[@]}"
late "${trec[@]}"; full_depth "${trec[@]}"; prompts "${trec[@]}"
encoder "${film[@]}"; encoder "${trec[@]}"; encoder "${subj[@]}"
late "${subj[@]}"; full_depth "${subj[@]}"
limits "${film[@]}"
late "${rte[@]}"

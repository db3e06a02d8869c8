#!/usr/bin/env bash
# The study of experiments/README.md ("What a late prompt is worth"): methods, generators and layers on four tasks, with
# 200 training rows and three seeds. What is completed is not computed again, so it can be cut and started again.
#
#   experiments/evidence.sh <folder of GLUE and LM-BFF data> [folder of the sweep] [points at a time]
#   lpt report <folder of the sweep>
set -euo pipefail
data=$(realpath "$1") folder=${2:-runs/evidence} workers=${3:-2}
cd "$(dirname "$0")/.."

sweep() {
  "${PYTHON:-.venv/bin/python}" train.py -m hydra.sweep.dir="$folder" hydra.launcher.workers="$workers" \
    fewshot.k=200 seed=13,21,42 "$@" || echo "go on: $*"
}
tsv() { echo "task=$1 task.source=tsv task.data_dir=$data"; }
everywhere() {  # what each task has
  sweep "$@" method=zero_shot seed=13
  sweep "$@" method=lora method.from_layer=16 method.targets=all optim.lr=1e-3
  sweep "$@" method=lpt_lora optim.lr=1e-3
  sweep "$@" generator=npg,none
}
more() {  # and where time allows
  sweep "$@" method=lora optim.lr=1e-3
  sweep "$@" method=prompt_tuning,p_tuning_v2,adapter
  sweep "$@" generator=npg lpt.layer=8,21,26
  sweep "$@" generator=appg,mppg
}
encoder() {  # a sentence encoder without LM head
  sweep "$@" backbone=minilm-l6 head=linear method=lpt,lpt_lora,lora,adapter,bitfit,full,prompt_tuning,p_tuning_v2
  sweep "$@" backbone=minilm-l6 head=linear method=linear_probe optim.lr=1e-2
}

everywhere task=film_reviews
more task=film_reviews
# shellcheck disable=SC2046  # words are options
{
  everywhere $(tsv trec)
  more $(tsv trec)
  encoder task=film_reviews
  encoder $(tsv trec)
  encoder $(tsv subj)
  everywhere $(tsv subj)
  everywhere $(tsv rte)
}

# What limits a prompt: scale of what the generator reads, its start, dropout, learning rate, length.
limits() { sweep task=film_reviews "$@"; }
limits generator=npg generator.normalise=true
limits generator=none optim.lr=1e-2,3e-2
limits generator=npg optim.lr=1e-3,1e-2
limits generator=npg lpt.prompt_length=1,20
limits generator=npg generator.dropout=0.1
limits generator=appg,mppg generator.normalise=true

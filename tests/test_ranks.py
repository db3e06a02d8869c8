"""Which process of a run this one is, by the environment that its starter leaves."""

import pytest
import slurm

from lpt import ranks
from lpt.errors import LptError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4"}
BY_HAND = {"MASTER_ADDR": "node-0", "MASTER_PORT": "29500", "NODE_RANK": "1"}
SRUN = slurm.tasks(nodes=2, on_each=2, job=71)[3]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Sets what a starter sets, and nothing else."""
    names = {*TORCHRUN, *BY_HAND, *SRUN}
    for name in names:
        monkeypatch.delenv(name, raising=False)

    def start(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return start


@pytest.mark.parametrize(
    ("variables", "starter", "rank"),
    [
        ({}, "hand", 0),
        (TORCHRUN, "torchrun", 3),
        (SRUN, "srun", 3),
        (SRUN | TORCHRUN | {"RANK": "2"}, "torchrun", 2),  # within a job: Lightning's order
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, "hand", 0),
        ({"SLURM_NTASKS": "4"}, "hand", 0),  # in salloc's shell
        (BY_HAND, "hand", 2),
        (BY_HAND | {"LOCAL_RANK": "1"}, "hand", 3),  # Lightning's own child
    ],
)
def test_a_process_finds_its_place(environment, variables, starter, rank):
    environment(variables)
    assert (ranks.starter(), ranks.global_rank(devices=2)) == (starter, rank)
    assert ranks.is_first() == (rank == 0)


def test_one_process_for_all_complains_of_what_all_know_but_by_hand_one_on_each_node(environment):
    assert ranks.speaks()
    environment(BY_HAND)
    assert ranks.speaks()
    environment(SRUN)
    assert not ranks.speaks()
    environment({"SLURM_PROCID": "0"})
    assert ranks.speaks()


@pytest.mark.parametrize(
    ("variables", "nodes", "name"),
    [
        ({}, 1, "now"),
        ({"NODE_RANK": "0"}, 1, "now"),
        (SRUN, 2, "slurm-71.0"),
        (SRUN | {"SLURM_NTASKS": "1"}, 1, "now"),
        (TORCHRUN | {"TORCHELASTIC_RUN_ID": "mine"}, 2, "torchrun-mine"),
        (TORCHRUN | {"SLURM_JOB_ID": "72", "SLURM_STEP_ID": "1"}, 2, "slurm-72.1"),
        (TORCHRUN | {"WORLD_SIZE": "1"}, 1, "now"),
    ],
)
def test_all_processes_of_a_run_name_it_alike(environment, variables, nodes, name):
    environment(variables)
    assert ranks.common_name("now", nodes) == name


@pytest.mark.parametrize("variables", [TORCHRUN, BY_HAND])
def test_where_nothing_is_known_to_all_the_folder_must_be_given(environment, variables):
    environment(variables)
    with pytest.raises(LptError) as caught:
        ranks.common_name("now", 2)
    assert str(caught.value).endswith("give hydra.run.dir=<folder on a disk that all nodes share>")


@pytest.mark.parametrize(
    ("variables", "nodes", "devices", "problems"),
    [
        ({}, 1, 4, []),
        (TORCHRUN, 2, 2, []),
        (SRUN, 2, 2, []),
        (BY_HAND, 2, 2, []),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, 1, 1, []),
        (
            TORCHRUN,
            1,
            2,
            [
                "torchrun has started 4 processes, and trainer.nodes=1 x trainer.devices=2 need torchrun --nnodes=1 "
                "--nproc-per-node=2"
            ],
        ),
        (
            SRUN,
            4,
            1,
            [
                "Slurm has started 4 tasks, 2 on each node, and trainer.nodes=4 x trainer.devices=1 need srun "
                "--nodes=4 --ntasks-per-node=1"
            ],
        ),
        (
            {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"},
            2,
            1,
            [
                "this Slurm job has 2 tasks, but srun has not started this process, which would wait for the others; "
                "start it by srun --nodes=2 --ntasks-per-node=1, or ask for a job of one task (#SBATCH --ntasks=1)"
            ],
        ),
        (
            {"MASTER_ADDR": "node-0"},
            2,
            1,
            [
                "trainer.nodes=2: this process cannot find the others without MASTER_PORT, NODE_RANK; start all of "
                "them by srun or torchrun, or one on each node with MASTER_ADDR, MASTER_PORT, NODE_RANK set"
            ],
        ),
        (BY_HAND, 1, 1, ["NODE_RANK=1, but trainer.nodes=1: nodes are numbered from 0"]),
    ],
)
def test_what_was_started_must_be_what_was_asked_for(environment, variables, nodes, devices, problems):
    environment(variables)
    assert list(ranks.problems(nodes, devices)) == problems


def test_a_process_that_starts_the_others_itself_does_not_look_like_one_of_sruns():
    assert ranks.starting_its_own({"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7"}) == {"SLURM_JOB_ID": "7"}

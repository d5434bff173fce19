"""Two processes that train one model: DDP, FSDP2, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

if not torch.distributed.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

pytestmark = pytest.mark.process

TRAINING = Path(__file__).with_name("distributed_training.py")


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the training on two processes found; one start serves all tests, also those of other workers of pytest."""
    folder = tmp_path_factory.getbasetemp().parent / "distributed"
    folder.mkdir(exist_ok=True)
    result = folder / f"found-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}.json"
    with FileLock(f"{result}.lock"):
        if not result.exists():
            _train(result)
    return json.loads(result.read_text())


def _train(result: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(TRAINING), str(result)], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.parametrize("mode", ["ddp", "fsdp", "fsdp-bf16"])
def test_a_training_on_two_processes_ends_at_the_same_bits_with_a_monitor(found: dict[str, Any], mode: str) -> None:
    assert found[mode]["equal"]
    assert found[mode]["finished"]
    assert found[mode]["signals"] == 12


@pytest.mark.parametrize("mode", ["fsdp", "fsdp-bf16"])
def test_a_probe_before_the_optimizer_is_built_leaves_every_parameter_sharded(found: dict[str, Any], mode: str) -> None:
    assert found[mode]["sharded"]


@pytest.mark.parametrize("mode", ["ddp", "fsdp", "fsdp-bf16"])
def test_probes_come_on_their_steps_and_converge(found: dict[str, Any], mode: str) -> None:
    assert found[mode]["probes"] == [0, 4, 8]
    assert set(found[mode]["outcomes"]) == {"converged"}


def test_a_sharded_network_has_the_exponents_and_norms_of_a_whole_one(found: dict[str, Any]) -> None:
    whole, sharded = found["ddp"], found["fsdp"]
    assert sharded["first"]["exponents"] == pytest.approx(whole["first"]["exponents"], rel=1e-4)
    assert sharded["first"]["gradient_flow"] == pytest.approx(whole["first"]["gradient_flow"], abs=1e-4)
    assert sharded["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-4)
    assert sharded["weight_norm"] == pytest.approx(whole["weight_norm"], rel=1e-4)


def test_weights_that_are_shared_count_once(found: dict[str, Any]) -> None:
    assert found["fsdp"]["groups"] == ["first", "blocks.0", "blocks.1", "blocks.2", "head"]


def test_all_processes_stop_at_the_same_step(found: dict[str, Any]) -> None:
    first, second = found["stop"]["last"]
    assert first == second < 20


def test_a_tensor_parallel_model_is_refused_in_a_sentence(found: dict[str, Any]) -> None:
    assert "tensor-parallel" in found["tensor parallel"]["error"]
    assert "fully_shard" in found["tensor parallel"]["error"]

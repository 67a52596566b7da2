from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models.errors import CardError, ModelError
from runtime.session import Sessions, SharedSession, Traffic


@pytest.fixture
def embedder_path(models_dir: Path) -> Path:
    return models_dir / "sface.onnx"


def batch(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)


def test_a_file_is_opened_once(embedder_path: Path) -> None:
    sessions = Sessions()
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: sessions.open(embedder_path), range(16)))
    assert len({id(session) for session in opened}) == 1


def test_threads_get_the_answers_that_one_thread_gets(embedder_path: Path) -> None:
    session = SharedSession(embedder_path)
    alone = [session.run({session.inputs[0]: batch(seed)})[0] for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: session.run({session.inputs[0]: batch(seed % 8)})[0], range(64)))
    for index, answer in enumerate(together):
        assert np.array_equal(answer, alone[index % 8])


def test_a_forked_child_runs_a_session_of_its_own(embedder_path: Path) -> None:
    session = SharedSession(embedder_path)
    expected = session.run({session.inputs[0]: batch(3)})[0]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: session.run({session.inputs[0]: batch(3)})[0], range(8)))
        sender.send((os.getpid(), [answer.tobytes() for answer in answers]))

    process = context.Process(target=child)
    process.start()
    assert receiver.poll(60), "the child did not answer"
    pid, answers = receiver.recv()
    process.join(10)
    assert process.exitcode == 0
    assert pid != os.getpid()
    assert set(answers) == {expected.tobytes()}
    assert np.array_equal(session.run({session.inputs[0]: batch(3)})[0], expected)


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="python -m convert fetch"):
        SharedSession(tmp_path / "nothing.onnx")


def test_a_damaged_file_is_a_clear_error(tmp_path: Path, embedder_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(embedder_path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be opened"):
        SharedSession(damaged)


def test_a_file_without_a_card_names_the_command_that_adds_one(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(CardError, match="python -m convert adopt"):
        SharedSession(tmp_path / "bare.onnx")


def test_a_run_in_a_crowd_gives_the_numbers_of_a_run_alone(embedder_path: Path) -> None:
    traffic = Traffic()
    session = SharedSession(embedder_path, traffic=traffic)
    one = {session.inputs[0]: batch(0)}
    three = {session.inputs[0]: np.concatenate([batch(seed) for seed in range(3)])}
    alone, together = session.run(one)[0], session.run(three)[0]
    with ExitStack() as crowd:
        light = [crowd.enter_context(traffic.run()) for _ in range(64)]
        assert light[0]
        assert not light[-1]
        assert np.array_equal(session.run(one)[0], alone)
        # Matrix products of several rows add up in another order on another number of threads.
        assert np.allclose(session.run(three)[0], together, rtol=0, atol=1e-5)
    with traffic.run() as again:
        assert again

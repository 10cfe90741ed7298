"""Train with several processes: the follower's side of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from charloom.engines.process_group import Ranks
from charloom.engines.protocol import available_cores
from charloom.errors import CharloomError
from charloom.network.optimizers import Optimizer
from charloom.network.parameters import Parameters, State
from charloom.runs.compute import open_run_engine
from charloom.text.dataset import Dataset, OtherTextError, Split, load_dataset
from charloom.text.source import Text
from charloom.text.vocabulary import Vocabulary
from charloom.training.loop import follow_steps
from charloom.training.options import PER_RANK_OPTIONS, TrainingConfig, option_name
from charloom.training.setup import make_batches, make_optimizer, model_config
from charloom.training.state import TrainingState
from charloom.version import __version__

# Before the first step, rank 0 sends how to read the text (reading_among_ranks). The others read it
# and answer None or the reason why they cannot. Then rank 0 sends the configuration, weights,
# optimizer and state (_share).


def reading_among_ranks(config: TrainingConfig, dataset: Dataset) -> dict[str, Any]:
    return {
        "config": asdict(config),
        "characters": list(dataset.vocabulary.characters),
        "bytes": dataset.vocabulary.as_bytes,
        "sha256": dataset.sha256,
    }


def follow(
    open_source: Callable[[TrainingConfig], Text], given: dict[str, Any], ranks: Ranks
) -> bool:
    """Takes part in the run of rank 0, as another rank, until it ends; returns whether there was
    anything to take part in.

    open_source, given: as TrainingRun has them. Raises CharloomError where rank 0 is lost; what
    else is wrong, rank 0 is told, and says.
    """
    ranks.introduce(reported(given))
    if (reading := ranks.hear_message()) is None:
        return False
    refusal, config = None, TrainingConfig(**reading["config"])
    try:
        dataset = load_dataset(
            open_source(config),
            Split.parse(config.split),
            base=Vocabulary(tuple(reading["characters"]), reading["bytes"]),
            sha256=reading["sha256"],
        )
    except OtherTextError:
        refusal = "its text is not that of rank 0 (SHA-256): give all ranks the same"
    except CharloomError as error:
        refusal = str(error)
    except OSError as error:
        refusal = f"its text cannot be read ({error.strerror or error})"
    ranks.collect(refusal)
    if (begin := ranks.hear_message()) is None:
        return False
    config = among_ranks(TrainingConfig(**begin["config"]), given, ranks)
    parameters = Parameters(model_config(config, len(dataset.vocabulary)))
    optimizer = make_optimizer(config)
    optimizer.prepare(parameters.flat)
    optimizer.step_count = begin["step"]
    rows = begin["rows"]
    state = TrainingState(
        step=begin["step"],
        refit_step=begin["refit_step"],
        hidden=None if rows is None else parameters.config.zero_state(rows),
    )
    for values in share_plan(parameters, optimizer, state.hidden):
        ranks.broadcast(values)
    ranks.split(make_batches(config, dataset).rows)
    engine = open_run_engine(config, parameters, ranks)
    with threadpool_limits(engine.threads, user_api="blas"):
        follow_steps(engine, optimizer, dataset, config, state, ranks)
    return True


def reported(given: dict[str, Any]) -> dict[str, Any]:
    """What must be alike at all ranks."""
    told = {
        option_name(name): value for name, value in given.items() if name not in PER_RANK_OPTIONS
    }
    return told | {"charloom's version": __version__}


def among_ranks(config: TrainingConfig, given: dict[str, Any], ranks: Ranks) -> TrainingConfig:
    """The same, computed by what can train among ranks, with this one's part of the cores."""
    engine = given.get("engine", "auto")
    if engine not in ("auto", "pytorch"):
        raise CharloomError(f"--engine {engine} trains in one process: leave it out, or torchrun")
    threads = given.get("threads") or max(1, available_cores() // ranks.on_this_machine)
    return replace(config, engine="pytorch" if engine == "auto" else engine, threads=threads)


def share_plan(
    parameters: Parameters, optimizer: Optimizer, hidden: State | None
) -> Iterator[NDArray[Any]]:
    """What every rank begins with alike, in an order."""
    yield parameters.flat
    for name in optimizer.slot_names:
        yield optimizer.slots[name]
    if hidden is not None:
        yield hidden

"""Train with several processes: the run of a follower, and what both sides of a run share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from charloom.engines.process_group import ProcessGroup, TextMessage
from charloom.errors import CharloomError, error_reason
from charloom.network.optimizers import Optimizer
from charloom.network.parameters import Parameters, State
from charloom.runs.counting import learn_counts
from charloom.text.dataset import Dataset, OtherTextError
from charloom.text.format import Opener, TextFormat
from charloom.text.loading import read_dataset
from charloom.text.vocabulary import Vocabulary
from charloom.training.loop import follow_steps
from charloom.training.options import PER_RANK_OPTIONS, TrainingConfig, option_name
from charloom.training.setup import make_batches, make_optimizer, model_config, open_engine
from charloom.training.state import TrainingState
from charloom.version import __version__


def reported_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that must be equal at all ranks, by the names that users know."""
    reported = {
        option_name(name): value for name, value in options.items() if name not in PER_RANK_OPTIONS
    }
    return reported | {"charloom's version": __version__}


def text_message(training: Mapping[str, Any], dataset: Dataset) -> TextMessage:
    """Return the message that lets a follower read the text as rank 0 did.

    Args:
        training: the options by name.
        dataset: the text.
    """
    vocabulary = dataset.vocabulary
    return TextMessage(
        dict(training),
        list(vocabulary.characters),
        vocabulary.as_bytes,
        dataset.sha256,
        {name: dict(part) for name, part in dataset.own.items()},
    )


def shared_arrays(
    parameters: Parameters, optimizer: Optimizer, hidden: State | None
) -> Iterator[NDArray[Any]]:
    """Yield the arrays that are equal at all ranks before the first step, in a fixed order."""
    optimizer.prepare(parameters.flat)
    yield parameters.flat
    for name in optimizer.slot_names:
        yield optimizer.slots[name]
    if hidden is not None:
        yield hidden


def follow(
    open_source: Opener,
    options: Mapping[str, Any],
    process_group: ProcessGroup,
) -> bool:
    """Train as a follower of rank 0, until it ends the run.

    Args:
        open_source: opens the text, as for `charloom.runs.opening.open_run`.
        options: options of TrainingConfig, by name.
        process_group: the processes that train together.

    Returns:
        False if rank 0 ended the run before its first step.

    Raises:
        LostRanksError: if the connection to rank 0 is lost. Rank 0 reports all other errors.
    """
    process_group.introduce(reported_options(options))
    if (message := process_group.receive_text()) is None:
        return False
    dataset, refusal = _read_as_rank_0(open_source, message)
    process_group.refuse(refusal)
    if (start := process_group.receive_start()) is None:
        return False
    assert dataset is not None, "rank 0 starts only after every rank has read the text"
    config = TrainingConfig(**start.config)
    config = replace(config, **process_group.backend_options(options))
    if config.read_counts:  # computed here too, because that gives the same bytes everywhere
        learned = learn_counts(dataset, config, version=start.mixer_version)
        dataset = replace(dataset, extra=learned.extra)
    parameters = Parameters(model_config(config, dataset.vocabulary))
    optimizer = make_optimizer(config)
    optimizer.step_count = start.step
    hidden = None if start.rows is None else parameters.config.zero_state(start.rows)
    process_group.share(shared_arrays(parameters, optimizer, hidden))
    process_group.split(make_batches(config, dataset).rows)
    engine = open_engine(config, parameters, process_group)
    state = TrainingState(step=start.step, refit_step=start.refit_step, hidden=hidden)
    with threadpool_limits(engine.threads, user_api="blas"):
        follow_steps(engine, optimizer, dataset, config, state, process_group)
    return True


def _read_as_rank_0(open_source: Opener, message: TextMessage) -> tuple[Dataset | None, str | None]:
    """Return the text, or the reason why this rank cannot read it."""
    try:
        base = Vocabulary(tuple(message.characters), message.as_bytes)
        reading = TextFormat.of_training(
            message.config, as_bytes=base.as_bytes, collection=base.end_id is not None
        )
        dataset = read_dataset(
            open_source(reading),
            message.config,
            base=base,
            record={"sha256": message.sha256, "own": message.own},
        )
    except OtherTextError:
        return None, "its text is not that of rank 0 (SHA-256): use the same text at all ranks"
    except CharloomError as error:
        return None, str(error)
    except OSError as error:
        return None, f"cannot read its text ({error_reason(error)})"
    return dataset, None

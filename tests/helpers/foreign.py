"""Clients of the server that come with packages of their own, run as commands."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.clients import Client

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}, {{metric: byte_perplexity}}]
"""


def run_schemathesis(client: Client, folder: Path) -> tuple[int, str]:
    """Test a server by its OpenAPI document, and return the status and the output."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{client.url}/openapi.json",
            # A text of the right type can still have a character that the model never saw.
            *("--exclude-checks", "positive_data_acceptance"),
            # The largest length takes a while on a machine with other work.
            *("--max-examples", "15", "--seed", "1", "--no-color", "--request-timeout", "60"),
        ],
        cwd=folder,  # where it keeps notes
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def write_task(folder: Path, name: str, texts: Sequence[str]) -> None:
    """Write a task of lm-evaluation-harness that scores texts."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "text.jsonl").write_text(lines, encoding="utf-8")
    task = TASK.format(name=name, data=folder / "text.jsonl")
    (folder / f"{name}.yaml").write_text(task, encoding="utf-8")


def run_harness(arguments: str, task: str, folder: Path) -> dict[str, Any]:
    """Run lm-evaluation-harness, and return the results of a task.

    Args:
        arguments: its `--model_args`.
        task: the task's name.
        folder: the folder of the task's file.
    """
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
            *("--model_args", arguments, "--tasks", task, "--include_path", str(folder)),
            *("--output_path", str(folder / "out")),
        ],
        env=os.environ | {"HF_HOME": str(folder / "cache"), "OPENAI_API_KEY": "none"},
        check=True,
        timeout=300,
    )
    (found,) = (folder / "out").rglob("results*.json")
    results: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))["results"][task]
    return results

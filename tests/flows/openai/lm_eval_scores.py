"""Scores of lm-eval for the tasks in a folder, as JSON: `lm_eval_scores.py FOLDER MODEL_ARGUMENTS TASK…`.

Runs in the environment of the clients. Unlike the command `lm_eval`, it does not first read the thousands of tasks that come with lm-eval.
"""

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager


def main(folder: str, arguments: str, *tasks: str) -> None:
    manager = TaskManager(include_path=folder, include_defaults=False)
    found = simple_evaluate(model="local-completions", model_args=arguments, tasks=list(tasks), task_manager=manager)
    json.dump({"results": found["results"], "samples": found["samples"]}, sys.stdout, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Subcommands that run processes: the whole stack, one worker or the API; and those that report on them or stop them."""

import json
import os
import signal
import sys
from typing import Annotated, Literal

import typer

from cli.commands.context import load_settings
from cli.commands.options import Data, EngineName, ModelName, ModelsFile, RedisUrl
from cli.errors import CommandError
from cli.remote.command import Key, Url
from cli.safe_text import safe_text
from shared.settings import Settings
from shared.settings_sources import is_given

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the API.", show_default="5000")]
FlowerPort = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of Flower.", show_default="5555, or a free one")]
ChromaPort = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the Chroma server.", show_default="a free one")]


def up(
    port: Port = None,
    data: Data = None,
    engine: EngineName = None,
    models_file: ModelsFile = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model to load; repeatable.", show_default="the models with load, or the default model"),
    ] = None,
    redis: RedisUrl = None,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Run Flower, which shows queues and workers.")] = True,
    flower_port: FlowerPort = None,
    chroma_port: ChromaPort = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", help="Stop when the parent process ends.")] = False,
) -> None:
    """Run the whole stack in the foreground until Ctrl-C; a second Ctrl-C stops without waiting for running jobs."""
    from cli.local.guardian import run_guarded
    from cli.local.root_user import check_user
    from cli.local.settings_report import find_sources
    from shared.prctl import die_with_parent

    settings = load_settings(port=port, data_dir=data, engine=engine, models_file=models_file, redis_url=redis)
    check_user(settings, "up", warn_on_loopback=True)
    _check_keys_file(settings)
    command = [sys.executable, "-m", "cli.local.stack", "--guardian", str(os.getpid())]
    command += ["--own-redis"] * (redis is None and not is_given(os.environ, "REDIS_URL"))
    command += ["--own-chroma"] * (not is_given(os.environ, "ENGINEHOUSE_CHROMA_URL"))
    command += ["--flower"] * flower
    for name in model or []:
        command += ["--model", name]
    command += ["--flower-port", str(flower_port or 0), "--chroma-port", str(chroma_port or 0)]
    options = {
        "--port": ("port", port),
        "--data": ("data_dir", data),
        "--engine": ("engine", engine),
        "--models": ("models_file", models_file),
        "--redis": ("redis_url", redis),
    }
    # The supervisor finds all settings in its environment.
    command += ["--sources", json.dumps(find_sources(os.environ, options))]
    if with_parent:
        die_with_parent(signal.SIGTERM)
    raise typer.Exit(run_guarded(command, process_environment(settings)))


def worker(
    pool: Annotated[
        Literal["gpu", "cpu", "io"], typer.Argument(help="gpu generates, cpu indexes documents, io searches and sends webhooks.")
    ],
    number: Annotated[int, typer.Option(min=0, help="Number of the gpu worker, unique on its host.")] = 0,
    model: ModelName = None,
    empty: Annotated[bool, typer.Option("--empty", help="Start without a model and load one on demand.")] = False,
    device: Annotated[
        str | None, typer.Option(help="GPU number as in nvidia-smi, or several for one model, such as 0,1.")
    ] = None,
    data: Data = None,
    engine: EngineName = None,
    models_file: ModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Run one worker, on an additional host or under your own supervisor."""
    from cli.local.process_commands import worker_command
    from cli.local.root_user import check_user

    settings = load_settings(
        data_dir=data,
        engine=engine,
        models_file=models_file,
        worker_model=model,
        worker_empty=empty or None,
        worker_device=device,
        redis_url=redis,
    )
    check_user(settings, "worker")
    _check_data_version(settings)
    _become(worker_command(pool, settings, number), settings)


def api(port: Port = None, data: Data = None, models_file: ModelsFile = None, redis: RedisUrl = None) -> None:
    """Run only the HTTP API."""
    from cli.local.process_commands import api_command
    from cli.local.root_user import check_user

    settings = load_settings(port=port, data_dir=data, models_file=models_file, redis_url=redis)
    check_user(settings, "api")
    _check_keys_file(settings)
    _check_data_version(settings)
    _become(api_command(settings, log_level="info"), settings)  # the address, for example


def healthcheck(
    worker: Annotated[str, typer.Argument(help="Name of one worker, such as gpu0, cpu or io; or api.", show_default="any")] = "",
    data: Data = None,
) -> None:
    """Exit with status 0 if a worker of the data folder runs on this host; else print the reason and exit with status 1.

    It asks the processes and not Redis. Without a terminal, the command prints nothing on success.
    """
    from cli.local.healthcheck import report_health

    raise typer.Exit(report_health(load_settings(data_dir=data).data_dir, worker))


def logs(
    process: Annotated[
        str, typer.Argument(help="Name of one process, such as gpu0 or api, or a job id.", show_default="all processes")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines as they come, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the log of a job as JSON.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Print the log of the stack on a data folder, running or stopped; or ask a server what happened to a job."""
    if process.startswith("job_"):
        from cli.remote.job_log import show_job_log

        if follow:
            raise CommandError("--follow is for processes. `enginehouse job follow` follows a job.")
        show_job_log(job=process, as_json=as_json, url=url, key=key, data=load_settings(data_dir=data).data_dir)
        return
    from cli.local.log_file import read_log

    for line in read_log(load_settings(data_dir=data).data_dir, process, follow=follow):
        print(safe_text(line), flush=follow)


def stop(data: Data = None) -> None:
    """Stop the stack on a data folder, as Ctrl-C does: running jobs get time to end."""
    from cli.local.running_stack import stop_stack

    stop_stack(load_settings(data_dir=data).data_dir)
    print("Enginehouse has stopped.")


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.command()(up)
    root.command()(worker)
    root.command()(api)
    root.command()(healthcheck)
    root.command()(logs)
    root.command()(stop)


def process_environment(settings: Settings) -> dict[str, str]:
    from cli.local.process_commands import environment_of

    return environment_of(settings)


def _check_data_version(settings: Settings) -> None:
    """Refuse data of a newer version. If Redis does not answer, only the data folder is checked, as the process would wait for it."""
    from shared.documents.data_state import DataState, DataVersionError, check_folder_version
    from shared.redis_connection import OUTAGE, connect

    try:
        check_folder_version(settings.data_dir)
        DataState(connect(settings.redis_url, timeout=2, retries=0), settings).check_versions()
    except DataVersionError as error:
        raise CommandError(str(error)) from None
    except OUTAGE:
        pass


def _check_keys_file(settings: Settings) -> None:
    """Raise SettingsError for a bad keys file before a process starts, which would otherwise be restarted again and again."""
    if settings.keys_file is not None:
        from shared.owners.keys_file import read_keys_file

        read_keys_file(settings.keys_file)


def _become(command: list[str], settings: Settings) -> None:
    """Replace this process, so that signals and the exit status are those of the command."""
    from shared.packaged_files import CODE_ROOT

    # Celery and gunicorn import from the working directory first: a folder called `api` there must not replace ours.
    os.chdir(CODE_ROOT)
    os.execve(command[0], command, process_environment(settings))

"""The ``enginehouse`` command. Each subcommand here parses its options, reads the settings, and calls one function; those that
call a server over HTTP are in ``cli.remote``.

Nothing heavy is imported before it is needed: ``enginehouse --help`` loads neither torch nor Chroma.
"""

import os
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.errors import CommandError
from cli.remote import documents, generate, ingest, jobs, webhooks
from cli.remote.models import list_models
from shared.errors import EnginehouseError, SettingsError
from shared.settings import Settings, from_environment

if TYPE_CHECKING:
    from redis import Redis

    from cli.admin.dead_letters import DeadLetters
    from cli.admin.model_loading import ModelLoader


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="LLM jobs on your own GPUs.")
models = typer.Typer(no_args_is_help=True, help="The models: which there are, and their weights.")
app.add_typer(models, name="models")
keys = typer.Typer(no_args_is_help=True, help="API keys. From the first one on, every call needs one.")
app.add_typer(keys, name="keys")
dead_letters = typer.Typer(no_args_is_help=True, help="Jobs whose workers died again and again.")
app.add_typer(dead_letters, name="dead-letters")
for commands in (generate, jobs, ingest, documents, webhooks):
    commands.install(app)
models.command("list")(list_models)

Data = Annotated[Path | None, typer.Option("--data", help="Folder for all state.", show_default=".enginehouse")]
ModelsFile = Annotated[Path | None, typer.Option("--models", help="The list of models.", show_default="models.json")]
EngineName = Annotated[Literal["echo", "transformers"] | None, typer.Option(help="Run every model on this engine.")]
ModelName = Annotated[str | None, typer.Option(help="The model to serve.", show_default="the default one of the list")]
RedisUrl = Annotated[str | None, typer.Option("--redis", help="Use this Redis and start none.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535)]


@app.command()
def up(
    port: Port = None,
    data: Data = None,
    engine: EngineName = None,
    models_file: ModelsFile = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model to load; may be repeated.", show_default="those with load in the list, or its default one"),
    ] = None,
    redis: RedisUrl = None,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Show queues and workers in Flower.")] = True,
    flower_port: Port = None,
    chroma_port: Port = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", help="Stop when the process that started this one ends.")] = False,
) -> None:
    """Run the whole stack in the foreground until Ctrl-C; a second Ctrl-C does not wait for running jobs."""
    from cli.local.guardian import run_guarded
    from shared.prctl import die_with_parent

    settings = _settings(port=port, data_dir=data, engine=engine, models_file=models_file, redis_url=redis)
    command = [sys.executable, "-m", "cli.local.stack", "--guardian", str(os.getpid())]
    command += ["--own-redis"] * (redis is None and not os.environ.get("REDIS_URL"))
    command += ["--own-chroma"] * (not os.environ.get("ENGINEHOUSE_CHROMA_URL"))
    command += ["--flower"] * flower
    for name in model or []:
        command += ["--model", name]
    command += ["--flower-port", str(flower_port or 0), "--chroma-port", str(chroma_port or 0)]
    if with_parent:
        die_with_parent(signal.SIGTERM)
    raise typer.Exit(run_guarded(command, _environment(settings)))


@app.command()
def worker(
    pool: Annotated[Literal["gpu", "cpu", "io"], typer.Argument(help="gpu generates, cpu ingests documents, io retrieves.")],
    number: Annotated[int, typer.Option(min=0, help="Tells the gpu workers of one host apart.")] = 0,
    model: ModelName = None,
    empty: Annotated[bool, typer.Option("--empty", help="Begin without a model, and take one when it is wanted.")] = False,
    device: Annotated[str | None, typer.Option(help="The GPU, as nvidia-smi counts; several, as in 0,1, for one model.")] = None,
    data: Data = None,
    engine: EngineName = None,
    models_file: ModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Run one worker: on further hosts, or under a supervisor of your own."""
    from cli.local.process_commands import worker_command

    settings = _settings(
        data_dir=data,
        engine=engine,
        models_file=models_file,
        worker_model=model,
        worker_empty=empty or None,
        worker_device=device,
        redis_url=redis,
    )
    _become(worker_command(pool, settings, number), settings)


@app.command()
def api(port: Port = None, data: Data = None, models_file: ModelsFile = None, redis: RedisUrl = None) -> None:
    """Run the HTTP face alone."""
    from cli.local.process_commands import api_command, refuse_open_address

    settings = _settings(port=port, data_dir=data, models_file=models_file, redis_url=redis)
    refuse_open_address(settings)
    _become(api_command(settings), settings)


@app.command()
def healthcheck(redis: RedisUrl = None) -> None:
    """Exit with status 0 if a worker of this host has told within 30 s that it lives, else with 1: a health check."""
    from cli.local.healthcheck import worker_is_alive

    raise typer.Exit(0 if worker_is_alive(_settings(redis_url=redis)) else 1)


@models.command()
def prepare(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to prepare.", show_default="those that need no download")
    ] = None,
    data: Data = None,
    models_file: ModelsFile = None,
) -> None:
    """Fetch or convert the weights of models now, rather than when their workers start."""
    from cli.local.prepare import prepare_models

    prepare_models(_settings(data_dir=data, models_file=models_file), names or [])


Gpu = Annotated[str | None, typer.Option(help="Number of a gpu worker, or its name such as gpu0@host.")]
Wait = Annotated[float, typer.Option(min=0, help="How many seconds to wait until it is done.")]


@models.command("load")
def load_model(
    name: str,
    gpu: Gpu = None,
    wait: Wait = 600,
    data: Data = None,
    models_file: ModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Load a model: on the GPU named, else on an empty one, else where nothing has been done for longest."""
    _model_loader(data, models_file, redis).load(name, gpu, wait=wait)


@models.command("unload")
def unload_model(
    name: str,
    gpu: Gpu = None,
    wait: Wait = 60,
    data: Data = None,
    models_file: ModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Unload a model, everywhere or on the GPU named. Its jobs wait, or bring it back when it may be loaded on demand."""
    _model_loader(data, models_file, redis).unload(name, gpu, wait=wait)


@app.command("init")
def init_project(
    folder: Annotated[Path, typer.Argument(help="Where to write the files; created if it does not exist.")] = Path(),
) -> None:
    """Write a starting models.json, .env and docker-compose.yml into a folder. Existing files are not overwritten."""
    from cli.local.project_folder import create_project

    create_project(folder)


@app.command()
def demo(
    data: Data = None,
    port: Port = None,
    engine: EngineName = None,
    models_file: ModelsFile = None,
) -> None:
    """Start the stack, read three PDFs, ask questions about them, show the answers, stop everything."""
    from cli.local.demo import run_demo

    run_demo(_settings(data_dir=data, port=port, engine=engine, models_file=models_file))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is called.")],
    owner: Annotated[str, typer.Option(help="Whose jobs it sees; `local` are those made before there was a key.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It may use /admin.")] = False,
    weight: Annotated[float, typer.Option(help="The owner's share of a full queue.")] = 1.0,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Make a key. It is shown once."""
    from cli.admin import api_keys

    api_keys.create(_stack_redis(data, redis), name, owner=owner, admin=admin, weight=weight, as_json=as_json)


@keys.command("list")
def list_keys(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Show all keys, without their secrets."""
    from cli.admin import api_keys

    api_keys.show(_stack_redis(data, redis), as_json=as_json)


@keys.command("revoke")
def revoke_key(key_id: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Make a key worthless at once."""
    from cli.admin import api_keys

    api_keys.revoke(_stack_redis(data, redis), key_id)


@documents.collections.command("check")
def check_collections(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Compare records, files and indexes; exit with status 1 if faults are left. Runs beside the stack, on its data folder."""
    from cli.admin.index_check import check_collections as check
    from cli.local.running_stack import with_stack_chroma

    settings = _settings(data_dir=data, redis_url=redis)
    client = _stack_redis(data, redis)
    raise typer.Exit(1 if check(client, with_stack_chroma(settings), fix=fix, as_json=as_json) else 0)


@dead_letters.command("list")
def list_dead_letters(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Show the dead, the latest first."""
    _dead_letters(data, redis).show_all(as_json=as_json)


@dead_letters.command("show")
def show_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Show one of the dead with its attempts."""
    _dead_letters(data, redis).show(job)


@dead_letters.command("replay")
def replay_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Do a dead job again, as a new job."""
    _dead_letters(data, redis).replay(job)


@dead_letters.command("drop")
def drop_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Take a job off the list of the dead."""
    _dead_letters(data, redis).drop(job)


@app.command("version")
def show_version() -> None:
    """Print the version."""
    try:
        print(version("enginehouse"))
    except PackageNotFoundError:
        raise CommandError("Enginehouse is not installed here: run `make setup`.") from None


def main() -> None:
    """The entry point: runs the command, and turns an error of ours into its sentence and an exit status."""
    try:
        app(prog_name="enginehouse")
    except (CommandError, SettingsError) as error:
        problems = error.problems if isinstance(error, SettingsError) else [str(error)]
        print("\n".join(problems), file=sys.stderr)
        sys.exit(2)
    except EnginehouseError as error:
        print(error.message, file=sys.stderr)
        sys.exit(1)


def _settings(**options: Any) -> Settings:
    """The settings of the environment, and over them the options that were given, with every path made absolute."""
    given = {name: value for name, value in options.items() if value is not None}
    settings = from_environment(os.environ, **given)
    places = {"data_dir": settings.data_dir.resolve(), "models_file": settings.models_file.resolve()}
    return from_environment(os.environ, **given | places)


def _stack_redis(data: Path | None, url: str | None) -> "Redis":
    from cli.local.running_stack import connect_to_stack

    return connect_to_stack(_settings(data_dir=data, redis_url=url), given=url is not None)


def _model_loader(data: Path | None, models_file: Path | None, url: str | None) -> "ModelLoader":
    from cli.admin.model_loading import ModelLoader
    from shared.models.catalogue import load_catalogue

    settings = _settings(data_dir=data, models_file=models_file, redis_url=url)
    return ModelLoader(_stack_redis(data, url), load_catalogue(settings.models_file, engine=settings.engine), settings)


def _dead_letters(data: Path | None, url: str | None) -> "DeadLetters":
    from cli.admin.dead_letters import DeadLetters

    return DeadLetters(_stack_redis(data, url), _settings(data_dir=data, redis_url=url))


def _environment(settings: Settings) -> dict[str, str]:
    from cli.local.process_commands import environment_of

    return environment_of(settings)


def _become(command: list[str], settings: Settings) -> None:
    """Replace this process, so that signals and exit status are the command's own."""
    os.execve(command[0], command, _environment(settings))


if __name__ == "__main__":
    main()

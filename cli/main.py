"""The ``enginehouse`` command. Each subcommand parses its options, reads the settings and calls one function; the subcommands that
call a server over HTTP are in ``cli.remote``.

Subcommands import what they need themselves, so that ``enginehouse --help`` and shell completion stay fast.
"""

import os
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.errors import CommandError
from cli.output import Output
from cli.remote import documents, evaluate, generate, ingest, jobs, queues, request_batches, usage, webhooks
from cli.remote.command import Key, Url
from cli.remote.models import list_models
from cli.safe_text import accept_all_bytes, safe_text
from cli.typer_output import correct_output
from shared.errors import EnginehouseError, SettingsError
from shared.rights import SCOPES
from shared.settings import KEY_LIMITS, OWNER_LIMITS, Settings, from_environment, is_given

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from redis import Redis

    from cli.admin.dead_letters import DeadLetters
    from cli.admin.model_loading import ModelLoader
    from shared.owners.closed_marker import ClosedMarker


correct_output()

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run LLM jobs on your own GPUs.",
    context_settings={"help_option_names": ["--help", "-h"]},
)
models = typer.Typer(no_args_is_help=True, help="List, prepare, load and unload models.")
app.add_typer(models, name="models")
engines = typer.Typer(no_args_is_help=True, help="Install, list, check and remove engines that need their own packages.")
app.add_typer(engines, name="engines")
keys = typer.Typer(
    no_args_is_help=True, help="Create, change, rotate and revoke API keys. Once a key exists, every request needs one."
)
app.add_typer(keys, name="keys")
owners = typer.Typer(no_args_is_help=True, help="Set and list the shares and limits of single owners.")
app.add_typer(owners, name="owners")
dead_letters = typer.Typer(no_args_is_help=True, help="List, show, replay and drop jobs that lost all their attempts.")
app.add_typer(dead_letters, name="dead-letters")
trash = typer.Typer(no_args_is_help=True, help="List, restore and delete documents that a repair found without a record.")
app.add_typer(trash, name="trash")
for commands in (generate, jobs, queues, usage, ingest, documents, evaluate, request_batches, webhooks):
    commands.install(app)
models.command("list")(list_models)

Data = Annotated[Path | None, typer.Option("--data", help="Folder for all state.", show_default=".enginehouse")]
ModelsFile = Annotated[
    Path | None, typer.Option("--models", help="The models file.", show_default="./models.json, or the packaged one")
]
EngineName = Annotated[Literal["echo", "transformers"] | None, typer.Option(help="Engine for all generation models.")]
ModelName = Annotated[str | None, typer.Option(help="The model to serve.", show_default="the default model")]
RedisUrl = Annotated[str | None, typer.Option("--redis", help="URL of an external Redis, instead of the stack's own.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the API.", show_default="5000")]
FlowerPort = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of Flower.", show_default="5555, or a free one")]
ChromaPort = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the Chroma server.", show_default="a free one")]


@app.command()
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
    from shared.prctl import die_with_parent

    settings = _settings(port=port, data_dir=data, engine=engine, models_file=models_file, redis_url=redis)
    check_user(settings, "up", warn_on_loopback=True)
    _check_keys_file(settings)
    command = [sys.executable, "-m", "cli.local.stack", "--guardian", str(os.getpid())]
    command += ["--own-redis"] * (redis is None and not is_given(os.environ, "REDIS_URL"))
    command += ["--own-chroma"] * (not is_given(os.environ, "ENGINEHOUSE_CHROMA_URL"))
    command += ["--flower"] * flower
    for name in model or []:
        command += ["--model", name]
    command += ["--flower-port", str(flower_port or 0), "--chroma-port", str(chroma_port or 0)]
    if with_parent:
        die_with_parent(signal.SIGTERM)
    raise typer.Exit(run_guarded(command, _environment(settings)))


@app.command()
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

    settings = _settings(
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


@app.command()
def api(port: Port = None, data: Data = None, models_file: ModelsFile = None, redis: RedisUrl = None) -> None:
    """Run only the HTTP API."""
    from cli.local.process_commands import api_command
    from cli.local.root_user import check_user

    settings = _settings(port=port, data_dir=data, models_file=models_file, redis_url=redis)
    check_user(settings, "api")
    _check_keys_file(settings)
    _check_data_version(settings)
    _become(api_command(settings), settings)


@app.command()
def healthcheck(
    worker: Annotated[str, typer.Argument(help="Name of one worker, such as gpu0, cpu or io.", show_default="any")] = "",
    data: Data = None,
) -> None:
    """Exit with status 0 if a worker of the data folder runs on this host; else print the reason and exit with status 1.

    It asks the processes and not Redis. Without a terminal, the command prints nothing on success.
    """
    from cli.local.healthcheck import report_health

    raise typer.Exit(report_health(_settings(data_dir=data).data_dir, worker))


@app.command()
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
        show_job_log(job=process, as_json=as_json, url=url, key=key, data=_settings(data_dir=data).data_dir)
        return
    from cli.local.log_file import read_log

    for line in read_log(_settings(data_dir=data).data_dir, process, follow=follow):
        print(safe_text(line), flush=follow)


@app.command()
def stop(data: Data = None) -> None:
    """Stop the stack on a data folder, as Ctrl-C does: running jobs get time to end."""
    from cli.local.running_stack import stop_stack

    stop_stack(_settings(data_dir=data).data_dir)
    print("Enginehouse has stopped.")


@models.command()
def prepare(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to prepare.", show_default="the models that need no download")
    ] = None,
    data: Data = None,
    models_file: ModelsFile = None,
) -> None:
    """Download or convert the weights of models before their workers start."""
    from cli.local.prepare import prepare_models

    prepare_models(_settings(data_dir=data, models_file=models_file), names or [])


Gpu = Annotated[str | None, typer.Option(help="Number or name (gpu0@host) of a gpu worker.")]
Wait = Annotated[float, typer.Option(min=0, help="Maximum seconds to wait for completion.")]


Engine = Annotated[Literal["vllm"], typer.Argument(help="The engine.")]


@engines.command("add")
def add_engine(
    engine: Engine,
    requirement: Annotated[
        str | None,
        typer.Option(help="What pip installs: another version, or the path of a wheel.", show_default="the tested version"),
    ] = None,
    data: Data = None,
) -> None:
    """Install an engine into an environment in the data folder; run it again to continue an installation."""
    from cli.local.engines import add_engine

    add_engine(_settings(data_dir=data), engine, requirement)


@engines.command("list")
def list_engines(as_json: AsJson = False, data: Data = None) -> None:
    """List these engines, and the Python interpreters that run them."""
    from cli.local.engines import list_engines

    list_engines(_settings(data_dir=data), Output(as_json=as_json))


@engines.command("check")
def check_engine(engine: Engine, as_json: AsJson = False, data: Data = None) -> None:
    """Show what an engine lacks on this machine; exit with status 1 if it cannot run."""
    from cli.local.engines import check_engine

    raise typer.Exit(0 if check_engine(_settings(data_dir=data), engine, Output(as_json=as_json)) else 1)


@engines.command("remove")
def remove_engine(engine: Engine, data: Data = None) -> None:
    """Delete the environment of an engine."""
    from cli.local.engines import remove_engine

    remove_engine(_settings(data_dir=data), engine)


@models.command("load")
def load_model(
    name: str,
    gpu: Gpu = None,
    wait: Wait = 600,
    data: Data = None,
    models_file: ModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Load a model on the given GPU, else on an empty one, else on the one that has been idle the longest."""
    with _audited("model.set", data, name, gpu=gpu):
        _model_loader(data, models_file, redis).load_model(name, gpu, wait=wait)


@models.command("unload")
def unload_model(
    name: str,
    gpu: Gpu = None,
    wait: Wait = 60,
    data: Data = None,
    models_file: ModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Unload a model, everywhere or on the given GPU. Its jobs wait, or load it again if loading on demand is enabled."""
    with _audited("model.unload", data, name, gpu=gpu):
        _model_loader(data, models_file, redis).unload_model(name, gpu, wait=wait)


@app.command("init")
def init_project(
    folder: Annotated[Path, typer.Argument(help="Where to write the files; created if it does not exist.")] = Path(),
) -> None:
    """Write a starter models.json, .env and docker-compose.yml into a folder. Existing files are not overwritten."""
    from cli.local.project_folder import create_project

    create_project(folder)


@app.command()
def demo(
    data: Data = None,
    port: Port = None,
    engine: EngineName = None,
    models_file: ModelsFile = None,
) -> None:
    """Start the stack, index three PDFs, ask questions about them, print the answers, and stop everything."""
    from cli.local.demo import run_demo

    run_demo(_settings(data_dir=data, port=port, engine=engine, models_file=models_file))


Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help=f"{', '.join(SCOPES)}; repeatable.", show_default="everything that an owner may do"),
]
AllowedModels = Annotated[
    list[str] | None, typer.Option("--model", help="A model that the key may use; repeatable.", show_default="all")
]
AllowedCollections = Annotated[
    list[str] | None, typer.Option("--collection", help="A collection that the key may use; repeatable.", show_default="all")
]
Expires = Annotated[
    str | None,
    typer.Option(help="After a duration such as 90d or 12h, or at a time such as 2030-01-31T12:00.", show_default="never"),
]
KeyRate = Annotated[int | None, typer.Option(min=1, help="Limit of this key, in addition to the owner's limit for all keys.")]


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Name of the key.")],
    owner: Annotated[
        str, typer.Option(help="Owner whose jobs the key can see; `local` owns the jobs created before the first key.")
    ] = "",
    admin: Annotated[bool, typer.Option("--admin", help="Give it every scope, including admin and metrics.")] = False,
    scope: Scopes = None,
    model: AllowedModels = None,
    collection: AllowedCollections = None,
    expires: Expires = None,
    requests_per_second: KeyRate = None,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Create a key and print its secret, which is not shown again."""
    from cli.admin import api_keys

    if admin and scope:
        raise CommandError("--admin: grants every scope, so omit --scope.")
    client, marker, out = _stack_redis(data, redis), _closed_marker(data), Output(as_json=as_json)
    options = api_keys.key_options(
        scopes=scope, models=model, collections=collection, expires=expires, requests_per_second=requests_per_second
    )
    with _audited("key.create", data, name=name, for_owner=owner or name, scopes=scope, admin=admin or None) as targets:
        key = api_keys.create_key(
            client, marker, name, owner=owner, admin=admin, requests_per_second=None, out=out, options=options
        )
        targets.append(key.id)


@keys.command("list")
def list_keys(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """List keys without their secrets."""
    from cli.admin import api_keys

    api_keys.list_keys(_stack_redis(data, redis), out=Output(as_json=as_json))


@keys.command("show")
def show_key(key_id: str, as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Show the rights and times of a key."""
    from cli.admin import api_keys

    api_keys.show_key(_stack_redis(data, redis), key_id, out=Output(as_json=as_json))


@keys.command("change")
def change_key(
    key_id: str,
    name: Annotated[str | None, typer.Option(help="Another name.", show_default="as before")] = None,
    scope: Scopes = None,
    model: AllowedModels = None,
    collection: AllowedCollections = None,
    expires: Expires = None,
    requests_per_second: KeyRate = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(help="Remove a restriction: scopes, models, collections, expires or requests-per-second; repeatable."),
    ] = None,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Change the name, the rights or the expiry of a key. Everything else stays unchanged."""
    from cli.admin import api_keys

    options = api_keys.key_options(
        scopes=scope, models=model, collections=collection, expires=expires, requests_per_second=requests_per_second
    )
    details = {"scopes": scope, "models": model, "collections": collection, "expires": expires, "cleared": clear}
    with _audited("key.change", data, key_id, **details):
        api_keys.change_key(
            _stack_redis(data, redis), key_id, name=name, options=options, clear=clear or [], out=Output(as_json=as_json)
        )


@keys.command("rotate")
def rotate_key(
    key_id: str,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid, such as 1d or 2h.")] = "1d",
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Replace a key by one with the same rights, and print its secret."""
    from cli.admin import api_keys

    with _audited("key.rotate", data, key_id) as targets:
        targets.append(api_keys.rotate_key(_stack_redis(data, redis), key_id, overlap=overlap, out=Output(as_json=as_json)).id)


@keys.command("revoke")
def revoke_key(key_id: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Revoke a key immediately."""
    from cli.admin import api_keys

    with _audited("key.revoke", data, key_id):
        api_keys.revoke_key(_stack_redis(data, redis), key_id)


@keys.command("limit")
def limit_key(
    key_id: str,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help=f"NAME=NUMBER, repeatable: {', '.join(KEY_LIMITS)}. 0 removes a limit.", show_default="show the limits"
        ),
    ] = None,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Set or show the token limits of a key, which apply in addition to its owner's limits."""
    from cli.admin import owners as admin

    with _audited("key.limit", data, key_id, limits=limit or None):
        admin.limit_key(_stack_redis(data, redis), key_id, limits=limit or [])


@keys.command("remove-all")
def remove_all_keys(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Delete all keys and return to a server without keys, which accepts calls of its own machine and user. Restart the stack afterwards."""
    from cli.admin import api_keys

    client = _stack_redis(data, redis)
    if not yes:
        typer.confirm("Delete all API keys, so that local calls need none?", abort=True)
    with _audited("key.remove_all", data):
        api_keys.remove_all_keys(client, _closed_marker(data))


@owners.command("set")
def set_owner(
    owner: str,
    weight: Annotated[float | None, typer.Option(help="Relative share of a full queue, 1 at first.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=NUMBER, repeatable: "
            + ", ".join(OWNER_LIMITS)
            + ". 0 means no limit, NAME=default returns to the setting."
        ),
    ] = None,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Set the share and the limits of an owner, for all of its keys."""
    from cli.admin import owners as admin

    with _audited("owner.set", data, owner, weight=weight, limits=limit or None):
        admin.set_owner(_stack_redis(data, redis), owner, weight=weight, limits=limit or [])


@owners.command("list")
def list_owners(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """List owners that have a share or limits of their own."""
    from cli.admin import owners as admin

    admin.list_owners(_stack_redis(data, redis), out=Output(as_json=as_json))


@app.command()
def status(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Show processes, queues, workers, models, memory, disk and the last failures; exit with status 1 if there are problems."""
    from cli.admin.status import show_status

    settings = _settings(data_dir=data, redis_url=redis)
    raise typer.Exit(0 if show_status(settings, explicit=redis is not None, out=Output(as_json=as_json)) else 1)


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once. This is the default without a terminal.")] = False,
    seconds: Annotated[float, typer.Option("--interval", min=0.2, max=60, help="Seconds between two readings.")] = 2.0,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Show queues, workers, GPUs, rates and the oldest jobs, live until Ctrl-C."""
    from cli.admin.top import show_top

    settings = _settings(data_dir=data, redis_url=redis)
    show_top(_stack_redis(data, redis), settings, once=once, seconds=seconds, out=Output(as_json=as_json))


@app.command("config")
def show_config(
    every: Annotated[bool, typer.Option("--all", help="Also show settings that have their default value.")] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Show the settings in force and where they come from; secrets are hidden."""
    from cli.admin.configuration import show_settings

    options = {} if data is None else {"--data": ("data_dir", data.resolve())}
    show_settings(os.environ, every=every, out=Output(as_json=as_json), options=options)


@app.command()
def doctor(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Check this machine and the stack that runs on it; print each problem with its fix, and exit with status 1 if there are any."""
    from cli.admin.doctor import report_problems

    settings = _settings(data_dir=data, redis_url=redis)
    problems = report_problems(settings, explicit_redis=redis is not None, out=Output(as_json=as_json))
    raise typer.Exit(1 if problems else 0)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="A folder or a .tar file, which must not exist.")],
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Copy jobs, keys, documents and indexes of a running stack. Use it on a host that has the data folder."""
    from cli.admin.backup import create_backup
    from cli.local.running_stack import stack_redis_url, with_stack_chroma

    settings = _settings(data_dir=data, redis_url=redis)
    client, url = _stack_redis(data, redis), stack_redis_url(settings, explicit=redis is not None)
    with _audited("backup.create", data, str(target)):
        create_backup(client, url, with_stack_chroma(settings), target, out=Output(as_json=as_json))


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="The backup, a folder or a .tar file.")],
    without_redis: Annotated[
        bool, typer.Option("--without-redis", help="Leave Redis out, whose files are copied separately, as in containers.")
    ] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Make a data folder from a backup, after comparing every file with its digest. The stack must not run."""
    from cli.admin.restore import restore_backup

    external = bool(os.environ.get("ENGINEHOUSE_CHROMA_URL"))
    settings = _settings(data_dir=data)
    out = Output(as_json=as_json)
    with _audited("backup.restore", data, str(source)):
        restore_backup(source, settings, with_redis=not without_redis, external_chroma=external, out=out)


@documents.collections.command("check")
def check_collections(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Compare records, files and indexes; exit with status 1 if problems remain. Use it while the stack runs, on its data folder."""
    from cli.admin.index_check import check_collections as check
    from cli.local.running_stack import with_stack_chroma

    settings = _settings(data_dir=data, redis_url=redis)
    client = _stack_redis(data, redis)
    raise typer.Exit(1 if check(client, with_stack_chroma(settings), fix=fix, as_json=as_json) else 0)


@documents.collections.command("recover")
def recover_collections(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Make the records of documents again from their folders, after Redis was lost or restored from an older copy. Use it while the
    stack runs, on its data folder. Documents that are complete in the index are ready at once; others are indexed again."""
    from cli.admin.recovery import recover_documents
    from cli.local.running_stack import with_stack_chroma

    settings = with_stack_chroma(_settings(data_dir=data, redis_url=redis))
    recover_documents(_stack_redis(data, redis), settings, out=Output(as_json=as_json))


@trash.command("list")
def list_trash(as_json: AsJson = False, data: Data = None) -> None:
    """List folders in the trash, oldest first."""
    from cli.admin import trash as admin

    admin.list_trash(_settings(data_dir=data), out=Output(as_json=as_json))


@trash.command("restore")
def restore_trash(
    document: Annotated[list[str] | None, typer.Argument(help="Document ids.", show_default="everything in the trash")] = None,
    data: Data = None,
) -> None:
    """Move folders back to the documents. `enginehouse collections recover` then makes their records."""
    from cli.admin import trash as admin

    admin.restore_from_trash(_settings(data_dir=data), document or [])


@trash.command("empty")
def empty_trash(
    older_than_days: Annotated[float, typer.Option(min=0, help="Keep what was moved there more recently.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: Data = None,
) -> None:
    """Delete what is in the trash for good."""
    from cli.admin import trash as admin

    if not yes:
        typer.confirm("Delete the documents in the trash for good?", abort=True, err=True)
    with _audited("trash.empty", data):
        admin.empty_trash(_settings(data_dir=data), older_than_days=older_than_days)


@dead_letters.command("list")
def list_dead_letters(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """List dead letters, newest first."""
    _dead_letters(data, redis).print_all(Output(as_json=as_json))


@dead_letters.command("show")
def show_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Show a dead letter with its attempts."""
    _dead_letters(data, redis).print_one(job)


@dead_letters.command("replay")
def replay_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Run a dead letter again, as a new job."""
    with _audited("dead_letter.replay", data, job):
        _dead_letters(data, redis).replay(job)


@dead_letters.command("drop")
def drop_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Remove a job from the dead letters."""
    with _audited("dead_letter.drop", data, job):
        _dead_letters(data, redis).drop(job)


@app.command("version")
def show_version() -> None:
    """Print the version."""
    try:
        print(version("enginehouse"))
    except PackageNotFoundError:
        raise CommandError("Enginehouse is not installed in this environment: run `make setup`.") from None


def _show_version_and_exit(requested: bool) -> None:
    if requested:
        show_version()
        raise typer.Exit


@app.callback()
def root(
    show: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version_and_exit)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: run the command, and print our own errors as sentences with an exit status."""
    accept_all_bytes()
    try:
        app(prog_name="enginehouse")
    except (CommandError, SettingsError) as error:
        problems = error.problems if isinstance(error, SettingsError) else [str(error)]
        print(safe_text("\n".join(problems)), file=sys.stderr)
        sys.exit(2)
    except EnginehouseError as error:
        print(safe_text(error.message), file=sys.stderr)
        sys.exit(1)
    except UnicodeEncodeError as error:
        print(safe_text(f"An argument is not UTF-8: {error.object!r:.80}"), file=sys.stderr)
        sys.exit(2)


def _settings(**options: Any) -> Settings:
    """The settings from the environment, overridden by the given options, with absolute paths."""
    given = {name: value for name, value in options.items() if value is not None}
    settings = from_environment(os.environ, **given)
    absolute = {"data_dir": settings.data_dir.resolve(), "models_file": settings.models_file.resolve()}
    for name in ("models_dir", "keys_file"):
        if (path := getattr(settings, name)) is not None:
            absolute[name] = path.resolve()
    return from_environment(os.environ, **given | absolute)


def _audited(action: str, data: Path | None, *targets: str, **details: Any) -> "AbstractContextManager[list[str]]":
    """Record the action of a block in the audit log of the data folder."""
    from cli.admin.audit import audited

    return audited(_settings(data_dir=data), action, *targets, **details)


def _stack_redis(data: Path | None, url: str | None) -> "Redis":
    from cli.local.running_stack import connect_to_stack

    return connect_to_stack(_settings(data_dir=data, redis_url=url), explicit=url is not None)


def _closed_marker(data: Path | None) -> "ClosedMarker":
    from shared.owners.closed_marker import ClosedMarker

    return ClosedMarker(_settings(data_dir=data).data_dir)


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
    os.execve(command[0], command, _environment(settings))


if __name__ == "__main__":
    main()

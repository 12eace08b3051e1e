"""The commands of `docpreview`."""

from contextlib import aclosing
from importlib import metadata
from typing import Annotated

import typer

from docpreview_client.cli import exit_codes, listening, previewing
from docpreview_client.cli.command import command, spread
from docpreview_client.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from docpreview_client.cli.listening import ListenOptions
from docpreview_client.cli.listing import ListOptions, first
from docpreview_client.cli.parameters import (
    Bucket,
    ConnectionOptions,
    JobId,
    NewJobOptions,
    PageUrlOptions,
    named_bucket,
    named_in_bucket,
)
from docpreview_client.cli.previewing import PreviewOptions
from docpreview_client.cli.session import Session

InputObject = Annotated[
    str | None, typer.Argument(metavar="INPUT_OBJECT", help="Key of the source document.", show_default=False)
]
Document = Annotated[
    str | None,
    typer.Argument(
        help="The document: a file, which is uploaded, or a key in the bucket; not with --job-id.", show_default=False
    ),
]

app = typer.Typer(
    name="docpreview",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    # Pretty tracebacks print the values of variables, including tokens and passwords.
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        typer.echo(f"docpreview {metadata.version('docpreview-client')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback(epilog=EXIT_CODES_HELP)
@spread
def docpreview(context: typer.Context, connection: ConnectionOptions, *, version: Version = False) -> None:
    """Previews of documents through the docpreview gateway."""
    del version  # its callback has done it
    context.obj = connection


@app.command()
@command
async def create(
    session: Session, new_job: NewJobOptions, bucket: Bucket = None, input_object: InputObject = None
) -> ExitCode:
    """Create a job and print it. Without --request-id every call makes, and bills, a new job."""
    name, document = named_in_bucket(bucket, input_object, "INPUT_OBJECT")
    previewing.refuse_file(document)
    output, fields = new_job.output_object(document), new_job.create_fields(session.timeout)
    view = session.view
    repeating = previewing.telling_how_to_repeat(view, "", fields.get("request_id") or "")
    with repeating, previewing.advising_source_format(view, document):
        session.view.job(await session.client.create(name, document, output_object=output, **fields))
    return ExitCode.OK


@app.command()
@command
async def get(session: Session, page_urls: PageUrlOptions, bucket: Bucket = None, job_id: JobId = None) -> ExitCode:
    """Print a job. The exit code is 0 for any state."""
    name, wanted = named_in_bucket(bucket, job_id, "JOB_ID")
    job = await session.client.get(name, wanted, page_url_ttl=page_urls.ttl(), timeout=session.timeout)
    session.view.job(job)
    return ExitCode.OK


@app.command("list")
@command
async def list_jobs(session: Session, which: ListOptions, bucket: Bucket = None) -> ExitCode:
    """List the jobs of a bucket, newest first."""
    async with aclosing(session.client.list(named_bucket(bucket), **which.fields(session.timeout))) as jobs:
        await session.view.jobs(first(jobs, which.limit))
    return ExitCode.OK


@app.command()
@command
async def watch(session: Session, page_urls: PageUrlOptions, bucket: Bucket = None, job_id: JobId = None) -> ExitCode:
    """Follow a job until it ends; with --json a line for each change."""
    name, wanted = named_in_bucket(bucket, job_id, "JOB_ID")
    with session.view.progress() as progress:
        jobs = session.client.watch(name, wanted, page_url_ttl=page_urls.ttl(), timeout=session.timeout)
        job = await previewing.follow(jobs, progress=progress)
    session.view.finished(job)
    return exit_codes.of_job(job)


@app.command()
@command
async def wait(session: Session, page_urls: PageUrlOptions, bucket: Bucket = None, job_id: JobId = None) -> ExitCode:
    """Wait until a job ends, by default at most 5 minutes (--timeout), and print it."""
    name, wanted = named_in_bucket(bucket, job_id, "JOB_ID")
    job = await session.client.wait(name, wanted, page_url_ttl=page_urls.ttl(), timeout=session.timeout)
    session.view.job(job)
    return exit_codes.of_job(job)


@app.command()
@command
async def listen(session: Session, options: ListenOptions, bucket: Bucket = None) -> ExitCode:
    """Send a receiver of yours the events of jobs that end, signed as the gateway's webhooks are. For development.

    It goes on until it is interrupted, or for --timeout; with --json a line for each event.
    """
    await listening.listen(session, named_bucket(bucket), options)
    return ExitCode.OK


@app.command()
@command
async def queues(session: Session, bucket: Bucket = None) -> ExitCode:
    """List the queues of a bucket."""
    async with aclosing(session.client.list_queues(named_bucket(bucket), timeout=session.timeout)) as found:
        await session.view.queues(found)
    return ExitCode.OK


@app.command()
@command
async def usage(session: Session) -> ExitCode:
    """Print your usage: pages of this day and month (UTC), and the remaining budget."""
    session.view.usage(await session.client.usage(timeout=session.timeout))
    return ExitCode.OK


@app.command()
@command
async def preview(
    session: Session, preview_options: PreviewOptions, new_job: NewJobOptions, document: Document = None
) -> ExitCode:
    """Turn a document into files: upload it, create a job (or use --job-id), follow it, download its pages."""
    return await previewing.preview(session, preview_options, document=document, new_job=new_job)

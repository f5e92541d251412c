"""The group `kerasft` with all its commands, errors, exit codes and Ctrl-C.

Exit codes: 0 success; 1 a file or a run has a problem; 2 the command line or the config has a
problem; 3 new photos have shifted (`drift`); 130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from kerasft import __version__
from kerasft.cli.cache import cache
from kerasft.cli.compare import compare, diff, runs
from kerasft.cli.nets import backbones, blocks, import_caffe, import_torch
from kerasft.cli.pages import fields, guide
from kerasft.cli.photos import check, drift, review, sample_data
from kerasft.cli.train import find_lr, train, unfreeze_and_continue
from kerasft.cli.update import update
from kerasft.cli.use import calibrate, evaluate, explain, export, predict, report, serve
from kerasft.cli.wording import error_text
from kerasft.errors import UserError, is_out_of_memory


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Ends the block by an exception where the system asks for the end of the process.

    So what is half-written is removed, and processes that were started end, too.
    """

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Commands(click.Group):
    """The group of all commands. Shows a UserError or Ctrl-C as a message, a bug as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _ending_on_sigterm():
                return super().invoke(ctx)
        except UserError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            click.echo(f"Error: {error_text(error, command)}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            again = ctx.meta.get("kerasft.again", lambda: "")()
            click.echo(f"\nInterrupted. {again}".rstrip(), err=True)
            ctx.exit(130)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            again = ctx.meta.get("kerasft.again", lambda: "")()
            text = (
                f"Error: out of memory. Free some, or take smaller images or a smaller net. {again}"
            )
            click.echo(text.rstrip(), err=True)
            ctx.exit(1)


@click.group(cls=Commands, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="kerasft")
def main() -> None:
    """Fine-tunes image classifiers of Keras Applications.

    Trains a new head on a frozen, pretrained base, then unfreezes the top blocks and continues
    at a low learning rate, then writes a SavedModel that takes image bytes and returns labels.

    \b
    Example:
        kerasft train --data photos/ --run runs/photos
        kerasft unfreeze-and-continue runs/photos
        kerasft export runs/photos
    """


for command in (
    check,
    train,
    unfreeze_and_continue,
    find_lr,
    update,
    evaluate,
    predict,
    review,
    drift,
    explain,
    report,
    calibrate,
    export,
    serve,
    compare,
    runs,
    diff,
    backbones,
    blocks,
    cache,
    import_caffe,
    import_torch,
    sample_data,
    guide,
    fields,
):
    main.add_command(command)

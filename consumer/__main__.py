"""The entry point: runs a command and turns what ended it into a message and an exit code."""

import sys
import traceback

import click

from consumer.cli import root
from consumer.errors import ConsumerError, ExitCode


def main() -> None:
    """Run the command line and exit."""
    sys.exit(_run())


def _run() -> int:
    try:
        root(prog_name="kochava-consumer", standalone_mode=False)
    except ConsumerError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.FORCED
    except Exception as error:  # noqa: BLE001 - our bug: say where, not with what, since messages may hold data
        click.echo(f"error: {type(error).__name__}: this is a bug of kochava-consumer", err=True)
        traceback.print_tb(error.__traceback__)
        return ExitCode.BUG
    return ExitCode.OK


if __name__ == "__main__":
    main()

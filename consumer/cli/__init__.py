"""The command line: one file per command, loaded when it is called, so that `--help` is quick."""

import importlib

import click

from consumer import __version__

COMMANDS = {
    "run": "Read, map, deliver, commit: be a member of the consumer group.",
    "check": "Check settings, brokers, topics, registry, mapping and endpoint.",
    "topics": "Show, check and create the retry, held and dead-letter topics.",
    "offsets": "Show where the group stands and what holds it up; reset its offsets, and undo that.",
    "replay": "Send again what stood on the topics between two moments, beside the running group.",
    "dead-letters": "List, show, redrive and export what was given up.",
    "settings": "Show the effective settings and where each came from; --example to begin.",
    "map": "Show what becomes of one record: the payload, or why there is none.",
    "sandbox": "A stand-in Kochava that checks payloads and misbehaves on request.",
    "demo": "The whole job in a minute: embedded broker, sandbox, a crash, a ledger.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"consumer.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands, in the order you need them"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
To begin:
  kochava-consumer settings --example > kochava.toml
  kochava-consumer check --config kochava.toml
  kochava-consumer topics --config kochava.toml --create
  kochava-consumer run --config kochava.toml

\b
Exit codes:
  0 well   1 our bug   2 usage   3 settings   4 Kafka or out of range
  5 a check or a reconciliation failed   6 forced shutdown""",
)
@click.version_option(__version__, prog_name="kochava-consumer")
def root() -> None:
    """Deliver in-app events from Kafka to Kochava: none lost, none sent twice without need."""

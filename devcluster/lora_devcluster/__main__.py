"""`python -m lora_devcluster serve`: a cluster until Ctrl-C; it prints the KUBECONFIG line that clients need."""

import argparse
import asyncio
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_devcluster.cluster import ClusterSetting, DevCluster
from lora_devcluster.images import NOOP, Table
from lora_devcluster.scheduler import NodeSpec


class UsageError(Exception):
    """A command line that cannot be followed."""


def parse_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """NAME=VALUE words as a mapping.

    Raises:
        UsageError: a word without `=` or without a name.
    """
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{option} {text!r}: write {option} NAME=VALUE")
        pairs[name] = value
    return pairs


def image_table(texts: Sequence[str]) -> Table:
    """The images of the command line: a command as a shell would split it, `noop`, or nothing for no entry point."""
    return {
        name: NOOP if value == NOOP else shlex.split(value) for name, value in parse_pairs(texts, "--image").items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lora_devcluster", description=__doc__)
    serve = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="run a cluster until Ctrl-C")
    serve.add_argument("--dir", type=Path, required=True, help="folder for the kubeconfig, pods' files and claims")
    serve.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one (default)")
    serve.add_argument(
        "--gpus", type=int, default=1, help="how many nvidia.com/gpu the node claims to have (default 1)"
    )
    serve.add_argument("--image", action="append", default=[], metavar="NAME=COMMAND", help="what stands for an image")
    serve.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable for every pod")
    return parser


def _setting(arguments: argparse.Namespace) -> ClusterSetting:
    return ClusterSetting(
        images=image_table(arguments.image),
        node=NodeSpec(gpus=arguments.gpus),
        environment=parse_pairs(arguments.env, "--env"),
        port=arguments.port,
    )


async def _serve(folder: Path, setting: ClusterSetting) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with DevCluster(folder, setting) as cluster:
        print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}", flush=True)
        await stopping.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 after SIGINT or SIGTERM, 2 for a wrong command line."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        setting = _setting(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    asyncio.run(_serve(arguments.dir, setting))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The `tidegate` command. Every subcommand imports what it needs only when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Subcommands that parse their own arguments: name -> (module with main(argv), help)
_FORWARDED = {
    "compare": ("tidegate.compare", "train feed-forward and recurrent networks on the same data"),
    "bench": ("tidegate.bench", "time this machine, against the frameworks that are installed"),
}


def _convert(arguments: argparse.Namespace) -> None:
    import tidegate

    model = tidegate.load_model(arguments.input)
    if arguments.output.endswith(".weights.h5"):
        model.save_weights(arguments.output)
    else:
        model.save(arguments.output)
    print(f"{arguments.input} -> {arguments.output} ({Path(arguments.output).stat().st_size:,} B)")


def _info(arguments: argparse.Namespace) -> None:
    import tidegate

    model = tidegate.load_model(arguments.file)
    print(f"{arguments.file}: {Path(arguments.file).stat().st_size:,} bytes")
    model.summary()


def _config(arguments: argparse.Namespace) -> None:
    import tidegate

    tidegate.show_config()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate", description="Fast recurrent layers for CPUs with Keras's semantics."
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument(
        "--cmakedir", action="store_true", help="print the folder that holds tidegateConfig.cmake"
    )
    parser.add_argument(
        "--includedir", action="store_true", help="print the folder of the C++ headers"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, text) in _FORWARDED.items():
        commands.add_parser(name, help=text, add_help=False)
    convert = commands.add_parser("convert", help="convert a model file, formats by extension")
    convert.add_argument("input", metavar="IN", help="a .keras, .safetensors or .h5 model")
    convert.add_argument("output", metavar="OUT", help=".keras, .safetensors or .weights.h5")
    convert.set_defaults(run=_convert)
    info = commands.add_parser("info", help="show what a model file holds")
    info.add_argument("file", metavar="FILE")
    info.set_defaults(run=_info)
    config = commands.add_parser("config", help="show threads, instruction set and build")
    config.set_defaults(run=_config)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, or 1 with one line on stderr."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    try:
        if arguments.command in _FORWARDED:
            import importlib

            module = importlib.import_module(_FORWARDED[arguments.command][0])
            return module.main(rest) or 0
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        if arguments.command:
            arguments.run(arguments)
            return 0
        import tidegate

        answers = [
            (arguments.version, lambda: tidegate.__version__),
            (arguments.cmakedir, tidegate.get_cmake_dir),
            (arguments.includedir, tidegate.get_include),
        ]
        if not any(asked for asked, _ in answers):
            parser.print_help()
        for asked, answer in answers:
            if asked:
                print(answer())
        return 0
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"tidegate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tidegate: interrupted", file=sys.stderr)
        return 130

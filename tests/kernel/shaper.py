"""A client's network device: `shaper LEADS_TO` shapes `path` as each line's link says, and answers `done` or why not.

A link is YAML in one line; `{}` takes back what is there. So does the end of the input.
"""

import sys

from fedemu.errors import RunError
from fedemu.scenario import parse
from fedemu.shaping import Shaping
from fedemu.tc import commands
from tests.kernel.links import scenario


def main(server: str) -> None:
    """Answer each line."""
    with Shaping("path", server) as shaping:
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                shaping.shape(commands(parse(scenario(line)), "phones", "path"))
            except RunError as error:
                print(error, flush=True)
            else:
                print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

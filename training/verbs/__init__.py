"""What `python -m training` does: a module a verb, each with add_to(verbs, places).

add_to adds the verb's parser to the subparsers `verbs`, with `places` (--data, --runs, --threads)
as a parent, and sets `call` to the function that takes the parsed arguments. A ValueError or
OSError of it is the user's to read: it ends the command with its text.
"""

from typing import Any

Verbs = Any  # argparse gives the type of its subparsers no public name

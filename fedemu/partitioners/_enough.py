"""The check that there are examples to go round."""

from fedemu.types import Labels


def require_enough(labels: Labels, clients: int, *, each: int) -> None:
    """Raise ValueError if the examples do not suffice for `each` a client."""
    if len(labels) < clients * each:
        raise ValueError(
            f"{len(labels)} examples are too few for {clients} clients with at least {each} each; "
            "use fewer clients or more examples"
        )

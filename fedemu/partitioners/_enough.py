"""The check that there are examples to go round."""

from fedemu.types import Annotations


def require_enough(annotations: Annotations, clients: int, *, each: int) -> None:
    """Raise ValueError if the examples do not suffice for `each` a client."""
    count = len(annotations.labels)
    if count < clients * each:
        raise ValueError(
            f"{count} examples are too few for {clients} clients with at least {each} each; "
            "use fewer clients or more examples"
        )

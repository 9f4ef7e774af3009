"""The shape of images as convolutional models take them."""

from fedemu.models._base import Task


def image_shape(task: Task, *, least: int) -> tuple[int, int, int]:
    """Return channels, height and width of the task's inputs.

    Raises:
        ValueError: They are not images, or smaller than `least` pixels a side.
    """
    if len(task.shape) != 3 or min(task.shape[1:]) < least:
        raise ValueError(
            f"inputs have the shape {task.shape}, this model takes images (channels, height, width) of at least "
            f"{least} pixels a side; take a smaller model, e.g. softmax, or another data set"
        )
    channels, height, width = task.shape
    return channels, height, width

"""A Flower client: python client.py SERVER NUMBER."""

import sys

import flwr as fl
import task


class Client(fl.client.NumPyClient):
    """Trains on its own examples."""

    def __init__(self, number: int) -> None:
        self.x, self.y = task.data(number)

    def fit(self, parameters, config):
        return task.train(parameters, self.x, self.y), len(self.x), {}


if __name__ == "__main__":
    fl.client.start_client(server_address=sys.argv[1], client=Client(int(sys.argv[2])).to_client())

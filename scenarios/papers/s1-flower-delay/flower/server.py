"""The Flower server: python server.py ADDRESS ROUNDS CLIENTS; tells when each round ended, in seconds, as JSON."""

import json
import sys
import time

import flwr as fl
import task


def main(address: str, rounds: int, clients: int) -> None:
    """Hold FedAvg's rounds with all clients."""
    x, y = task.data(-1)

    def evaluate(number, parameters, config):
        return 1 - task.accuracy(parameters, x, y), {"time": time.perf_counter()}

    strategy = fl.server.strategy.FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=fl.common.ndarrays_to_parameters(task.initial()),
        evaluate_fn=evaluate,
    )
    history = fl.server.start_server(
        server_address=address, config=fl.server.ServerConfig(num_rounds=rounds), strategy=strategy
    )
    ends = [moment for _, moment in history.metrics_centralized["time"]]
    sys.stdout.write(json.dumps({"ends": ends, "accuracy": 1 - history.losses_centralized[-1][1]}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

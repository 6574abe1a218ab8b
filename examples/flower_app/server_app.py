"""An honest but curious server: it averages, and it looks at what it averages."""

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Strategy,
)
from shared import Config, make_algorithm, make_model, pictures_of

from precode_lib.attacks import invert_linear, total_least_squares
from precode_lib.federated import Observation
from precode_lib.metrics import ssim
from precode_lib.plots import to_image
from precode_lib.rounds.flower import Curious, to_arrays

NUM_CLIENTS = 2
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train; what the first answer of each round told is kept."""
    config = context.run_config
    model, example = make_model(config), pictures_of(0)
    seen = Album(Path(str(config["output"])))
    strategy = Curious(
        make_strategy(config),
        model,
        make_algorithm(config),
        on_message=seen.add,
        image_shape=example.image_shape,
        normalisation=example.normalisation,
    )
    rounds = int(config["num-rounds"])
    strategy.start(grid, to_arrays(model), num_rounds=rounds)
    seen.close()


def make_strategy(config: Config) -> Strategy:
    """Flower's average, behind its central DP if asked for."""
    if config["defense"] not in ("none", "central-dp", "local-dp"):
        raise ValueError(
            f'defense is "none", "central-dp" or "local-dp", got {config["defense"]!r}.'
        )
    average = FedAvg(
        fraction_evaluate=1.0 if config["evaluate"] else 0.0,
        min_train_nodes=NUM_CLIENTS,
        min_available_nodes=NUM_CLIENTS,
    )
    if config["defense"] != "central-dp":
        return average
    return DifferentialPrivacyServerSideFixedClipping(
        average,
        noise_multiplier=float(config["noise-multiplier"]),
        clipping_norm=float(config["clipping-norm"]),
        num_sampled_clients=NUM_CLIENTS,
    )


class Album:
    """Keeps the picture behind the first answer of each round, and how good it is."""

    def __init__(self, folder: Path):
        self.folder, self.scores = folder, {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, server_round: int, node: int, observation: Observation) -> None:
        """One division: how the weights moved, over how the biases did."""
        if server_round in self.scores:
            return
        # Of all rows at once: exact without noise, and the best guess behind it.
        found = invert_linear(observation, estimate=total_least_squares).images
        pixels = observation.normalisation.denormalise(found).clamp(0, 1)
        picture = to_image(pixels[0]).resize((256, 256), resample=0)
        picture.save(self.folder / f"round-{server_round}.png")
        # A server has no originals to compare with; this one is a demonstration.
        originals = [pictures_of(client).pixels for client in range(NUM_CLIENTS)]
        self.scores[server_round] = max(ssim(o, pixels).item() for o in originals)

    def close(self) -> None:
        """Leave the scores beside the pictures."""
        text = json.dumps({"ssim": self.scores}, indent=2)
        (self.folder / "report.json").write_text(f"{text}\n", encoding="utf-8")

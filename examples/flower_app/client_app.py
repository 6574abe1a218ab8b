"""A client: trains on its photograph, and replies where the weights came to."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod
from shared import make_algorithm, make_model, pictures_of

from precode_lib.rounds.flower import PictureClient
from precode_lib.training import Randomness

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round; local DP blurs the answer before it leaves."""

    def answer(message: Message, context: Context) -> Message:
        return client(message, context).train(message)

    if context.run_config["defense"] == "local-dp":
        return local_dp(context)(message, context, answer)
    return answer(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """How well the server's weights do on the client's photograph."""
    return client(message, context).evaluate(message)


def client(message: Message, context: Context) -> PictureClient:
    """Made anew for every message, as Flower starts it; its randomness moves on."""
    number = int(context.node_config["partition-id"])
    seed = 1000 * number + int(message.content["config"]["server-round"])
    return PictureClient(
        make_model(context.run_config),
        pictures_of(number),
        make_algorithm(context.run_config),
        random=Randomness.seeded(seed),
    )


def local_dp(context: Context) -> LocalDpMod:
    """Flower's own. Another client's answer is at most two clipping norms away."""
    config = context.run_config
    norm = float(config["clipping-norm"])
    return LocalDpMod(norm, 2 * norm, float(config["epsilon"]), float(config["delta"]))

"""What the scripts ask for. Its form leaves a model little choice, so that answers are short and each one of them is right."""

from typing import Literal

from pydantic import BaseModel

MODEL = "smollm2-135m-instruct"
EMBEDDINGS = "embeddings"
WIDTH = 576  # numbers in a vector of that model
QUESTION = "What is the weather in Paris?"
TEXTS = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates were raised in March."]


class Weather(BaseModel):
    """The weather in a city."""

    city: Literal["Paris", "Berlin"]
    sunny: bool


def get_weather(city: Literal["Paris", "Berlin"]) -> str:
    """The weather in a city."""
    return f"It rains in {city}."

"""What the package brings along: prompts of its own, safe to publish, and the labelled rows of its examples."""

from pathlib import Path

# Half of them ask for what a tool of some kind would do, half for what any model knows; none is of the example data.
SAMPLE_PROMPTS = (
    "What is 48713 times 9264?",
    "What will the weather be like in Oslo tomorrow?",
    "Translate 'Wo ist der Bahnhof?' into English.",
    "How many days lie between 3 March 2024 and 17 May 2026?",
    "How much is 250 US dollars in euros today?",
    "Remind me tomorrow at nine to call the dentist.",
    "Hello! How are you?",
    "Thank you, that was all.",
    "What is two plus two?",
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Say in a few words what a noun is.",
)

_FOLDERS = ("asa_adapter/sample_data", "examples/data")  # in an installed package, and in a checkout


def sample_data(conversations: bool = False) -> Path:
    """The folder of the examples' labelled rows, 1,120 of four domains, for `load_splits`.

    Args:
        conversations: that of the 356 conversations of several calls instead.

    Raises:
        FileNotFoundError: it is neither in the package nor beside it.
    """
    here, inside = Path(__file__).resolve().parents[2], "conversations" if conversations else ""
    places = [here / folder / inside for folder in _FOLDERS]
    for place in places:
        if (place / "train.jsonl").is_file():
            return place
    raise FileNotFoundError(f"the sample data is neither at {' nor at '.join(map(str, places))}")

"""Prompts of the package's own, safe to publish: what a card shows, and what engines are compared on."""

# Half of them ask for what a tool of some kind would do, half for what any model knows; none is of the example data.
SAMPLE_PROMPTS = (
    "What is 4821 times 377?",
    "What is a prime number?",
    "Who won yesterday's football match in Madrid?",
    "Why is the sky blue?",
    "Set a timer for twelve minutes.",
    "Thank you, that was all.",
    "How do you say 'good evening' in Portuguese?",
    "Tell me a short joke about a cat.",
    "How many days are there between 3 March 1987 and today?",
    "What does the word 'ambiguous' mean?",
    "Find a recipe for lentil soup.",
    "Is it polite to be late for dinner?",
)

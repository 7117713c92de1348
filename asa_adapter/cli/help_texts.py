"""What `--help` says below the options: first steps, examples, exit status and environment."""

ABOUT = """\
first steps:
  asa-adapter diagnose --model MODEL --tools tools.json
  asa-adapter label MODEL ROWS --output DATA
  asa-adapter train --model MODEL --data DATA --output OUT
  asa-adapter generate OUT --model MODEL \\
      --prompt "What is 4821 times 377?" --compare

MODEL: a folder, an id on the Hub, or a .gguf file. DATA,
and ROWS that have answers but no labels: a folder, an id,
or one .jsonl or .csv file.
OUT: a folder; commands that read an adapter
take an id on the Hub as well, and need no --model where the
adapter was fitted for one on the Hub.
asa-adapter COMMAND --help has examples for each command.

exit status: 0 done; 2 bad usage, bad input or an error, as
one line on stderr (--debug: with its traceback);
130 interrupted; 141 output cut short (a closed pipe);
143 stopped (SIGTERM). Finished stages of a training are
kept then: the same command goes on.
environment: HF_HUB_OFFLINE=1 asks no network, NO_COLOR=1
paints nothing, COLUMNS sets the width.
Results go to stdout, progress and errors to stderr.
"""
EXAMPLES = {
    "train": """\
example:
  asa-adapter train --model LiquidAI/LFM2.5-1.2B-Instruct \\
      --data my_data --output my_adapter

One row of data, as a line of JSON:
  {"instruction": "What is 17 x 23?", "label": 1,
   "domain": "math"}
label 1: a tool is needed (true does as well). Rows may have
"tools" of their own; tools.json beside the data is for
those that have none. TRAIN needs at least 8 rows of each
label. DATA may be cal, train, valid and test; train,
validation and test; train and test; or one set: those that
are missing are split off here.

Before the work it says what it understood, then a line for
each stage (stderr), and at the end, with the numbers of
TEST, the weak spots in words. After a break the same
command goes on where it stopped. The adapter abstains
unless a gain on VALID is sure.
""",
    "label": """\
example:
  asa-adapter label LiquidAI/LFM2.5-1.2B-Instruct my_rows \\
      --output my_data --times 5 --fails 3

One row of my_rows, as a line of JSON:
  {"instruction": "What is 4821 times 377?",
   "answer": 1817517, "domain": "math"}
The answer: a number, a text, a date such as "2031-05-14",
{"value": 4.83, "tolerance": 0.01, "unit": "km"}, or a list
of these, any of which is right.

The model answers without tools, first greedily, then by
sampling. Label 1 (a tool is needed): it failed often
enough. What it said is kept with each row, in "tried".

After a break the same command goes on with the splits that
are missing. Labels made in another way are not mixed in.
""",
    "evaluate": """\
examples:
  asa-adapter evaluate my_adapter --model MODEL \\
      --data my_data
  asa-adapter evaluate my_adapter --model MODEL \\
      --data my_data --split valid --ablations --json
  asa-adapter evaluate my_adapter --model MODEL \\
      --conversations my_conversations.jsonl
""",
    "generate": """\
examples:
  asa-adapter generate my_adapter --model MODEL \\
      --prompt "What is 4821 times 377?" --compare
  asa-adapter generate my_adapter --model MODEL \\
      --prompt "Hello!" --no-steering --json
  asa-adapter generate user/lfm25-asa --messages chat.json
  cat question.txt | asa-adapter generate my_adapter \\
      --prompt -

Answers are greedy: the likeliest token at each step and no
sampling, whatever the model's own settings say.

The decision: the steered token, the routed domain, p(tool
needed), the gate (+1 towards a call, -1 away from it, 0
nothing), and how long the step was that was added.
""",
    "explain": """\
example:
  asa-adapter explain my_adapter --model MODEL \\
      --prompt "What is 17 x 23?" --tools tools.json
""",
    "verify": """\
examples:
  asa-adapter verify my_adapter --model MODEL --engine vllm
  asa-adapter verify my_adapter --model MODEL --store

A dozen neutral prompts with the adapter's tools (or the
rows that `train --sample-rows` named) are answered here.
Decisions and first tokens are compared with those that the
adapter keeps from its fit, and how long a step takes with
and without it is measured. The table is made to be pasted
into an issue. A decision may change where p lies within .01
of a threshold. Where the bare model answers otherwise
already, nothing is said of the adapter.

An adapter that keeps nothing is compared with transformers
(--engine vllm), or told of; --store keeps what is seen.
exit status: 1 where something differs by the adapter.
""",
    "diagnose": """\
examples:
  asa-adapter diagnose --model MODEL --tools tools.json
  asa-adapter diagnose --url http://127.0.0.1:8000

The second asks a server of OpenAI's interface (vLLM,
llama-server, LM Studio, Ollama, ours) some 16 questions,
and names what its answers prove to be wrong, with a cure.

A tool is a JSON schema:
  {"name": "calculator", "description": "Computes.",
   "parameters": {"type": "object", "properties":
    {"expression": {"type": "string"}}}}
Findings marked !! are no errors: the exit status is 0.
Those marked -- could not be made. The last line says what
they come to: ready, ready but, or not ready.
""",
    "serve": """\
examples:
  asa-adapter serve LiquidAI/LFM2.5-1.2B-Instruct \\
      --adapter my_adapter
  asa-adapter serve model.gguf --adapter my_adapter \\
      --port 8080
  asa-adapter serve MODEL --adapter my_adapter \\
      --engine vllm

Then any client of OpenAI's interface, at
http://127.0.0.1:8000/v1. Each answer tells the decision, in
"asa" and in the header x-asa-decision. A request may say
"asa": 0 (the bare model answers) or "asa_factor": 0.5 (half
of the step). Answers are greedy unless it names a
temperature. It needs pip install "asa-adapter[serve]".
""",
    "inspect": """\
examples:
  asa-adapter inspect my_adapter
  asa-adapter inspect user/lfm25-asa --revision main --json

No model is loaded, and no code of the adapter's is run.
""",
    "push": """\
example:
  hf auth login
  asa-adapter push my_adapter user/lfm25-asa --private
  asa-adapter push my_adapter user/lfm25-asa --create-pr \\
      --message "Fitted on more rows"
""",
}

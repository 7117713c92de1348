"""`ASATrainer`: fits an adapter on four splits and chooses its settings by the model's own answers.

Directions are fitted on CAL, router and probes on CAL and TRAIN. All settings are ranked on TRAIN by the first token
of the answer, each row read by probes that were fitted without it. The best few generate on VALID, which decides
among them and whether a gain over the bare model is certain. With `refit`, the default, all of them are then fitted
once more, with the rows of VALID too. TEST is not used until everything is fixed.
"""

import contextlib
import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from asa_adapter.adapter import ASAAdapter
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Setting
from asa_adapter.comparison.rules_table import ablated_metrics, ablated_with_rules, metrics_of_rules
from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.config.value_checks import checked_domains
from asa_adapter.data.prompts import check_chat_template, with_chat_template
from asa_adapter.data.rows import check_tools, row_domain, row_labels
from asa_adapter.engine.prefix_tree import Prompt
from asa_adapter.files import make_writable_folder
from asa_adapter.fitting.layer_fit import LayerFit
from asa_adapter.hub.client import PushOptions
from asa_adapter.measurement.known_splits import known_splits
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.measurement.stage_files import STAGES_NAME
from asa_adapter.modeling.processes import Processes
from asa_adapter.modeling.progress import forecast, say_progress
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.search.strategy import Search
from asa_adapter.summary.changed_answers import ChangedAnswer, changed_answers
from asa_adapter.tool_calls.parser import ToolCallParser
from asa_adapter.training.console_lines import evaluation_line, lines_before_training, robustness_line, stage_line
from asa_adapter.training.demonstration import demonstration
from asa_adapter.training.evaluation_controls import controls, sureness
from asa_adapter.training.input_checks import (
    check_leaks,
    checked_splits,
    few_groups,
    layers_to_try,
    refuse_reasoning,
    refuse_unseen_tools,
    refuse_unsteerable,
)
from asa_adapter.training.learnt_habit import habit_facts, habit_fields, habitual_parser, warn_of_unknown_format
from asa_adapter.training.report_and_config import kinds_of_rows, new_report, origin
from asa_adapter.training.robustness import Robustness
from asa_adapter.training.workload import Workload, likely_seconds, workload
from asa_adapter.trajectories.scores import of_conversations
from asa_adapter.verification.asking_model import AskedSamples


class ASATrainer:
    """Fits an adapter for one model, tokenizer and tool set.

    Under torch.distributed (`accelerate launch`, `torchrun`) each process has the whole model and runs a part of the
    rows. Call the same methods in all processes: they all get the same adapter, and the main process saves it.

    Args:
        model: any AutoModelForCausalLM, or a model that another engine runs; it is not changed.
        tokenizer: its tokenizer, with a chat template.
        splits: cal, train, valid and test rows, as `load_splits` returns them, or anything that it takes, such as a
            list of rows or a folder, which is then split with the seed of `args`.
        args: what to try and to choose by; None for the defaults.
        tools: JSON-schema tools for rows that have none of their own.

    Attributes:
        model: the model.
        args: the training arguments.
        tokenizer: the tokenizer, with the chat template of `args` if that has one.
        tools: the tools.
        splits: lists of rows, by name of the split.
        parser: reads the model's tool calls.
        report: what was done and measured; it becomes report.json.
        changes: by split, the prompts that get a call from one model alone, once `evaluate` has answered them.

    Raises:
        ValueError: a split on which nothing can be fitted or measured, tools that no call can fit, rows that offer
            none, a tokenizer without a chat template, with one that never writes tools, or without a known tool-call
            format, a layer that the model does not have, or a model with an adapter attached.
        IncompatibleModelError: the decoder blocks are not found, or `attach` would refuse the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        splits: Any,
        args: ASATrainingArguments | None = None,
        tools: Tools | None = None,
    ) -> None:
        self.model = model
        self.args = args or ASATrainingArguments()
        self.tokenizer = with_chat_template(tokenizer, self.args.chat_template)
        check_tools(tools or [], "tools")
        self.tools = tools
        check_chat_template(self.tokenizer)
        self.splits, self._notes = checked_splits(splits, self.args.seed, tools)
        Objective.of(self.args).screening(row_labels(self.splits["valid"]))  # refuses a limit that cannot be kept
        self.parser = ToolCallParser.from_tokenizer(
            self.tokenizer,
            self.args.tool_call_format,
            start=self.args.tool_call_start,
            end=self.args.tool_call_end,
        )
        refuse_unseen_tools(self.splits, self.tokenizer, tools, self.args.without_tools)
        self._domains = checked_domains(sorted({row_domain(row) for row in self.splits["train"]}))
        self._origin = origin(model, self.tokenizer, self.parser, self.args, self._domains, self.splits["cal"], tools)
        self._layers = layers_to_try(self.args.layers, self._origin["num_layers"])
        refuse_unsteerable(model, self._layers, self.args.layer_path)
        self._samples = AskedSamples(model, self.tokenizer, self.args.sample_rows, self.args.batch_size)
        self._measured = Measurements(model, self.tokenizer, self.splits, self.args, self.parser, tools)
        self._adapter: ASAAdapter | None = None
        self._fit: LayerFit | None = None
        self._judged_fit: LayerFit | None = None
        self._robustness = Robustness(self._measured, self.args, tools)
        self.changes: dict[str, list[ChangedAnswer]] = {}
        self.report: dict[str, Any] = new_report(self.args, self.parser, self.splits, self._domains)

    def train(self) -> ASAAdapter:
        """Fits an adapter and chooses its settings, without the TEST split.

        With an output_dir, the adapter is saved there, and each finished stage is stored in its folder "stages". After
        an interruption the same call continues from these, and computes again only what depends on a changed input.

        Returns:
            The adapter; it abstains (alpha 0) unless a gain over the bare model on VALID is certain, and where calls
            that succeed surely become fewer; where no gain in them is sure, a warning says so. A fit without hope
            ends early, with a warning that says why and what could help: on the first rows of TRAIN no step at any
            layer changes a decision, and none moves the probability of a call's opening by more than .01 in the mean,
            or the model never calls. Nothing is generated on VALID then, and `report["chosen"]["why"]` holds the
            reason. With `exhaustive` all is run in any case.

        Raises:
            ValueError: prompts that are too long for the model or cannot be rendered, or no layer's state depends on
                the prompt.
            IncompatibleModelError: the states of a decoder block cannot be read.
            OSError: the output_dir cannot be written, or is full.
        """
        self.report = new_report(self.args, self.parser, self.splits, self._domains)
        self._adapter = self._fit = self._judged_fit = None
        folder = None if self.args.output_dir is None else Path(self.args.output_dir)
        if folder is not None and Processes().is_main:
            make_writable_folder(folder)
        self._measured.begin(folder and folder / STAGES_NAME)
        self._measured.check_lengths()
        check_leaks(self.splits, self._measured.groups, self.report)
        fitted_on = ("cal", "train", "valid")
        prompts = {split: self._measured.prompts(split) for split in fitted_on}
        work = workload(prompts, len(self._layers), self.args)
        whole = work.in_rows / Processes().count  # each runs its part
        self._tell(prompts["train"], work)
        with self._timed("habit"):
            self._learn_habit()
        with self._timed("states"), forecast(whole):
            for split in fitted_on:
                self._measured.states(split)
        with self._timed("variations"):
            self.report["vary_tools"] = self._robustness.settle(self._layers)
        self._origin |= self._robustness.landmarks(self.tokenizer, self.parser)
        states = self._origin["states"]
        self._measured.tells_kinds = len(states) > 1
        self.report["states"] = {"fitted": list(states), "rows": kinds_of_rows(self.splits)}
        search = Search(self._measured, self.args, self._domains, self._build, self.report, states)
        with self._timed("fit"):
            layers = search.fit(self._layers, self._robustness.fitted_on)
            self._origin["domains"] = search.domains
        with self._timed("screen"):
            candidates = search.screen(layers)
        with self._timed("generation"):
            self._adapter = search.decide(candidates)
        with self._timed("diagnostics"):
            self.report |= {"diagnostics": search.diagnose(), "samples": self._samples.seen(self._adapter).plain()}
        layer = self._adapter.config.layer
        self._judged_fit, self._fit = search.fits[layer], search.again.get(layer, search.fits[layer])
        self._bears("valid")
        self._save()
        return self._adapter

    def evaluate(self, split: str = "test", adapter: ASAAdapter | None = None) -> dict[str, Mapping[str, Any]]:
        """Metrics of the bare and the steered model on one split, measured by generation.

        The results of the trained adapter are added to the report, with 95 % intervals, McNemar's test, and
        the controls: a bag-of-words classifier and probes of shuffled labels.

        Args:
            split: name of the split.
            adapter: the adapter to evaluate; None for the trained one.

        Returns:
            The metrics of `Evaluation.metrics`, under "base" and "asa". Where more than 5 % of the answers were cut
            by `max_new_tokens`, a warning says so.

        Raises:
            ValueError: the split is unknown, or nothing was trained and no adapter is given.
            IncompatibleModelError: the given adapter does not fit the model.
        """
        chosen = self._chosen(split, adapter)
        with self._timed(f"evaluation ({split})", chosen) as told:
            base, asa = self._measured.answers(split, {"base": None, "asa": chosen.for_split(split)}).values()
            results = self._measured.evaluation.paired_metrics(self._measured.rows(split), base, asa)
            told.append(evaluation_line(results))
        called = self._measured.triggered(split, base), self._measured.triggered(split, asa)
        self.changes[split] = changed_answers(self._measured.rows(split), (base, asa), called)
        self._measured.warn_of_cut(results, split)
        if chosen is self._adapter:
            measured, args = self._measured, self.args
            self.report["evaluations"][split] = {**results, **sureness(measured, split, called, args)}
            fit = self._judged_fit if split == "valid" else self._fit
            assert fit is not None
            known, layer = known_splits(chosen, split), chosen.config.layer
            self.report["controls"][split] = controls(measured, split, layer, fit, known, args.seed)
            self._bears(split)
            if split == "test":
                self.report["demonstration"] = demonstration(measured, chosen, self._samples.samples)
            self._save()
        return results

    def evaluate_conversations(
        self, conversations: Iterable[Mapping[str, Any]], split: str = "test", adapter: ASAAdapter | None = None
    ) -> dict[str, Any]:
        """What both models make of whole conversations, see `of_conversations`; that of the trained one is reported.

        Raises:
            ValueError: a conversation of another shape, or nothing was trained and no adapter is given.
            IncompatibleModelError: the given adapter does not fit the model.
        """
        chosen, args = self._chosen(split, adapter), self.args
        variants, how = {"base": None, "asa": chosen.for_split(split)}, {"draws": args.resamples, "seed": args.seed}
        with self._timed(f"conversations ({split})", chosen):
            found = of_conversations(self._measured.evaluation, conversations, variants, **how)
        if chosen is self._adapter:
            self.report["conversations"][split] = found
            self._save()
        return found

    def _bears(self, split: str) -> None:
        """Adds to the report how the adapter's gate bears other lists of tools."""
        assert self._adapter is not None
        with self._timed(f"variations ({split})") as told:
            found = self.report["variations"][split] = self._robustness.measure(split, self._adapter)
            self.report["gates"][split] = self._robustness.by_label(split, self._adapter)
            told.append(robustness_line(found))

    def ablate(
        self, split: str = "test", adapter: ASAAdapter | None = None, *, rules: bool = True
    ) -> dict[str, Mapping[str, Any]]:
        """Metrics of the bare model ("base"), of variants of the adapter and of simpler rules, by generation.

        The variants are those of `ablations`: the adapter with one part removed or replaced. The rules are those of
        `rules_table`, which chooses on VALID. The results of the trained adapter on TEST are added to the report.

        Args:
            split: name of the split.
            adapter: the adapter to ablate; None for the trained one.
            rules: whether to measure the rules, which takes about twice the time of the variants.

        Returns:
            The metrics of `Evaluation.metrics`, by name of the variant or rule.

        Raises:
            ValueError: the split is unknown, there is no adapter, or the adapter abstains.
            IncompatibleModelError: the given adapter does not fit the model.
        """
        chosen = self._chosen(split, adapter)
        with self._timed(f"ablations ({split})", chosen) as told:
            asked = (self._measured, chosen, split, self.args)
            results, table = ablated_with_rules(*asked) if rules else (ablated_metrics(*asked), None)
            told.append(f"{len(results)} variants, {len(table['rows']) if table else 0} rules")
        if chosen is self._adapter and split == "test":
            self.report |= {"ablations": results} | ({"rules": table} if table else {})
            self._save()
        return results | (metrics_of_rules(table) if table else {})

    def _learn_habit(self) -> None:
        """Asks the bare model in which formats its calls come; a format that was named by hand stays."""
        found, answers = self._measured.habit("train")
        refuse_reasoning(answers)
        self.report["habit"] = habit_facts(found)
        warn_of_unknown_format(found, self.args)
        if self.args.tool_call_format is not None or not found.calls:
            return
        self.parser = habitual_parser(self.tokenizer, self.parser, found, self.args)
        self._measured.read_with(self.parser)
        self._origin |= habit_fields(self.parser, self.tokenizer)
        self.report["tool_call_format"] = self.parser.format

    def _chosen(self, split: str, adapter: ASAAdapter | None) -> ASAAdapter:
        """The given adapter or the trained one, if the split is known."""
        if split not in self.splits:
            raise ValueError(f"split is {split!r}; expected one of {', '.join(self.splits)}")
        if (chosen := adapter or self._adapter) is None:
            raise ValueError("there is no adapter to evaluate; call train() first, or give one")
        return chosen

    def _save(self) -> None:
        if self.args.output_dir is not None and self._adapter is not None and Processes().is_main:
            self._adapter.save_pretrained(self.args.output_dir)

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Pushes the trained adapter with its report to the Hugging Face Hub.

        Args:
            repo_id: "user/name", or "name" for one of yours; made where it is missing.
            **options: `private`, `token`, `commit_message`, `branch` and `create_pr`, as `ASAAdapter.push_to_hub`
                explains them.

        Returns:
            The commit's URL.

        Raises:
            ValueError: nothing was trained, or both a branch and a pull request.
            OSError: the Hub refused or was not reached.
        """
        if self._adapter is None:
            raise ValueError("there is no adapter to push; call train() first")
        return self._adapter.push_to_hub(repo_id, **options)

    def _build(self, setting: Setting, fit: LayerFit) -> ASAAdapter:
        config = ASAConfig(**copy.deepcopy(self._origin), **setting.plain(), residual_norm=fit.residual_norm)
        return ASAAdapter(config, fit.vectors, fit.router, fit.probes, self.report)

    @contextlib.contextmanager
    def _timed(self, stage: str, adapter: ASAAdapter | None = None) -> Iterator[list[str]]:
        """Adds the seconds that a stage took to the report, unless it is for another adapter than the trained one.

        Yields a list for what came out, in words, where the report does not tell it.
        """
        began, told = time.perf_counter(), list[str]()
        yield told
        seconds = time.perf_counter() - began
        if adapter is self._adapter or adapter is None:
            self.report["seconds"][stage] = round(seconds, 2)
        if self.args.progress and Processes().is_main:
            say_progress(stage_line(stage, self.report, seconds, told))

    def _tell(self, prompts: Sequence[Prompt], work: Workload) -> None:
        """Says what the run was given and will do."""
        if self.args.progress and Processes().is_main:
            seconds = likely_seconds(self.model, self.tokenizer, prompts, work, self.args) / Processes().count
            for line in lines_before_training(self.splits, self._notes, self.tools, self.args, self._layers, seconds):
                say_progress(line)
            if few := few_groups(self._measured.labels("valid"), self._measured.groups("valid")):
                say_progress(few)

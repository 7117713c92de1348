"""`ASATrainer`: fits an adapter on four splits and chooses its settings by what the model really does.

CAL gives the directions, TRAIN the router and the probes, VALID every choice; TEST is not looked at before all of it
is fixed. Settings are screened on VALID by the first token of the answer and decided there by real generation.
"""

import itertools
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from asa_adapter.adapter import ASAAdapter
from asa_adapter.arguments import ASATrainingArguments
from asa_adapter.config import ASAConfig, checked_domains
from asa_adapter.controller import Controller, Verdicts, ternary_gate
from asa_adapter.data import SPLITS, check_split
from asa_adapter.evaluate import Evaluation
from asa_adapter.files import make_writable_folder
from asa_adapter.fitting import LabelledStates, LayerFit, fit_layer
from asa_adapter.metrics import trigger_metrics, upper_confidence_bound
from asa_adapter.parsing import ToolCallParser
from asa_adapter.prompts import (
    Row,
    chat_template_sha256,
    check_chat_template,
    encode_rows,
    pad_token_id,
    row_domain,
    row_tools,
    template_variables,
    with_chat_template,
)
from asa_adapter.residual import decoder_blocks, hidden_size, text_config
from asa_adapter.screen import Push, first_token_triggers
from asa_adapter.states import HiddenStates, collect_hidden_states
from asa_adapter.tools import Tools

_REPORTED_PACKAGES = ("asa-adapter", "torch", "transformers", "scikit-learn", "numpy", "skops", "safetensors")


class Setting(NamedTuple):
    """One point of the grid: the settings of ASAConfig that are chosen."""

    layer: int
    alpha: float
    tau: float
    beta: float
    probe: str


class ASATrainer:
    """Fits an adapter for one model, tokenizer and tool set.

    Args:
        model: any AutoModelForCausalLM; it is not changed.
        tokenizer: its tokenizer, with a chat template.
        splits: cal, train, valid and test rows, as `load_splits` gives them.
        args: what to try.
        tools: JSON-schema tools for rows that have none of their own.

    Attributes:
        report: what was done and measured; it becomes report.json.

    Raises:
        ValueError: a split that nothing can be fitted on, a tokenizer without a chat template or a known tool-call
            marker, a layer that the model does not have, or a model that is steered.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        splits: Mapping[str, Sequence[Row]],
        args: ASATrainingArguments | None = None,
        tools: Tools | None = None,
    ) -> None:
        self.model = model
        self.args = args or ASATrainingArguments()
        self.tokenizer = with_chat_template(tokenizer, self.args.chat_template)
        self.tools = tools
        check_chat_template(self.tokenizer)
        if not isinstance(splits, Mapping):
            raise ValueError(f"splits is {splits!r:.80}; expected what load_splits gives: cal, train, valid and test")
        if missing := [name for name in SPLITS if name not in splits]:
            raise ValueError(f"the data has no {', '.join(missing)} split; expected cal, train, valid and test")
        self.splits = {name: list(splits[name]) for name in SPLITS}
        for name, rows in self.splits.items():
            check_split(rows, name)
        self.parser = ToolCallParser.from_tokenizer(
            self.tokenizer,
            self.args.tool_call_format,
            start=self.args.tool_call_start,
            end=self.args.tool_call_end,
        )
        self._blocks = decoder_blocks(model, self.args.layer_path)
        if isinstance(self.args.layers, str):
            self._layers = list(range(len(self._blocks)))
        else:
            self._layers = list(self.args.layers)
        if wrong := [layer for layer in self._layers if not 0 <= layer < len(self._blocks)]:
            raise ValueError(f"layers holds {wrong[0]}; expected 0 to {len(self._blocks) - 1} in this model")
        self._domains = checked_domains(sorted({row_domain(row) for row in self.splits["train"]}))
        self._evaluation = Evaluation(
            model,
            self.tokenizer,
            self.parser,
            tools,
            max_new_tokens=self.args.max_new_tokens,
            batch_size=self.args.batch_size,
            progress=self.args.progress,
        )
        self._adapter: ASAAdapter | None = None
        self._fits: dict[int, LayerFit] = {}
        self.report: dict[str, Any] = self._new_report()

    def train(self) -> ASAAdapter:
        """Fits and chooses; TEST stays closed.

        Returns:
            The adapter; one that abstains (alpha 0) where nothing tried beats the bare model on VALID.

        Raises:
            ValueError: no layer's state depends on the prompt.
        """
        if self.args.output_dir is not None:
            make_writable_folder(Path(self.args.output_dir))
        self.report, self._fits = self._new_report(), {}
        began = time.perf_counter()
        states = {name: self._collect(name) for name in ("cal", "train", "valid")}
        self._timing("states", began)
        layers = self._fit(states)
        began = time.perf_counter()
        candidates = self._screen(layers, states["valid"])
        self._timing("screen", began)
        began = time.perf_counter()
        self._adapter = self._decide(candidates)
        self._timing("generation", began)
        if self.args.output_dir is not None:
            self._adapter.save_pretrained(self.args.output_dir)
        return self._adapter

    def evaluate(self, split: str = "test", adapter: ASAAdapter | None = None) -> dict[str, Mapping[str, Any]]:
        """Metrics of the bare and the steered model on one split, by real generation.

        The result for the trained adapter goes into the report.

        Raises:
            ValueError: no such split, or nothing was trained and no adapter given.
        """
        if split not in self.splits:
            raise ValueError(f"split is {split!r}; expected one of {', '.join(self.splits)}")
        chosen = adapter or self._adapter
        if chosen is None:
            raise ValueError("there is no adapter to evaluate; call train() first, or give one")
        began = time.perf_counter()
        results = self._evaluation.compare(self.splits[split], chosen)
        if chosen is self._adapter:
            self.report["evaluations"][split] = results
            self._timing(f"evaluation ({split})", began)
        return results

    def _collect(self, split: str) -> HiddenStates:
        return collect_hidden_states(
            self.model,
            self.tokenizer,
            self.splits[split],
            tools=self.tools,
            batch_size=self.args.batch_size,
            progress=self.args.progress,
            layer_path=self.args.layer_path,
            parser=self.parser,
        )

    def _fit(self, states: Mapping[str, HiddenStates]) -> list[int]:
        """Fits every layer that can see the prompt, and reports how well intent can be read there."""
        sees = states["train"].sees_prompt()
        self.report["blind_layers"] = [layer for layer in self._layers if not sees[layer]]
        # All prompts have one state there, so all have one score: every pair is a tie.
        self.report["layers"] = {
            str(layer): {"probe_auc": 0.5, "blind": True} for layer in self.report["blind_layers"]
        }
        seeing = [layer for layer in self._layers if sees[layer]]
        if not seeing:
            raise ValueError(
                f"the state at the last prompt token is the same for every prompt at layers {self._layers}: these "
                "blocks cannot see the request. Try later layers"
            )
        for layer in seeing:
            cal, train, valid = (self._labelled(n, states[n].states[layer]) for n in ("cal", "train", "valid"))
            self._fits[layer] = fit_layer(cal, train, valid, self._domains, self.args.Cs, self.args.seed)
            self.report["layers"][str(layer)] = self._fits[layer].facts
        return seeing

    def _labelled(self, split: str, states: torch.Tensor) -> LabelledStates:
        rows = self.splits[split]
        labels = np.array([int(row["label"]) for row in rows])
        return LabelledStates(states.numpy(), labels, [row_domain(row) for row in rows])

    def _screen(self, layers: Sequence[int], states: HiddenStates) -> list[dict[str, Any]]:
        """Scores the grid by first tokens on VALID: the best setting of each layer, then the best of the rest."""
        prompts = encode_rows(self.tokenizer, self.splits["valid"], self.tools, self.parser)
        keys = list(itertools.product(layers, self.args.betas, (1, -1), [a for a in self.args.alphas if a]))
        verdicts = {
            (layer, probe): self._verdicts(layer, probe, states) for layer in layers for probe in self.args.probes
        }
        pushes = []
        for layer, beta, sign, alpha in keys:
            fit = self._fits[layer]
            steps = sign * alpha * fit.residual_norm * fit.vectors.mixed(beta)
            pushes.append(Push(layer, steps, verdicts[layer, self.args.probes[0]].domain))
        table = first_token_triggers(
            self.model,
            self._blocks,
            prompts,
            pushes,
            self.parser.opening_id(self.tokenizer),
            pad_id=pad_token_id(self.tokenizer),
            batch_size=2 * self.args.batch_size,
            progress=self.args.progress,
        )
        base, pushed = table[0], dict(zip(keys, table[1:], strict=True))
        grid: list[dict[str, Any]] = []
        for setting in self._grid(layers):
            gate = ternary_gate(verdicts[setting.layer, setting.probe].p_tool, setting.tau).numpy()
            up, down = (pushed[setting.layer, setting.beta, sign, setting.alpha] for sign in (1, -1))
            triggered = np.where(gate > 0, up, np.where(gate < 0, down, base))
            grid.append({**setting._asdict(), **self._scored(triggered)})
        grid.sort(key=_rank)
        best = {scored["layer"]: scored for scored in reversed(grid)}
        leaders = sorted(best.values(), key=_rank)
        self.report["screen"] = {"settings": len(grid), "base": self._scored(base), "best_of_each_layer": leaders}
        return leaders + [scored for scored in grid if scored is not best[scored["layer"]]]

    def _verdicts(self, layer: int, probe: str, states: HiddenStates) -> Verdicts:
        """Domains and probabilities at a layer; they do not depend on alpha, tau or beta."""
        fit = self._fits[layer]
        config = self._config(Setting(layer, 1.0, 0.5, 1.0, probe))
        return Controller.build(config, fit.vectors, fit.router, fit.probes).decide(states.states[layer])

    def _grid(self, layers: Sequence[int]) -> Iterator[Setting]:
        args = self.args
        alphas = [alpha for alpha in args.alphas if alpha]
        return itertools.starmap(Setting, itertools.product(layers, alphas, args.taus, args.betas, args.probes))

    def _decide(self, candidates: Sequence[dict[str, Any]]) -> ASAAdapter:
        """Lets the best of the screen generate on VALID; the bare model wins where none is better."""
        rows = self.splits["valid"]
        base = self._scored_answers(self._evaluation.answers(rows, name="base, valid"))
        finalists = []
        for i, candidate in enumerate(candidates[: self.args.finalists]):
            setting = _setting(candidate)
            answers = self._evaluation.answers(rows, self._build(setting), f"finalist {i + 1}, valid")
            scored = self._scored_answers(answers)
            finalists.append({**setting._asdict(), **scored, "screen_score": candidate["score"]})
        best = min(finalists, key=_rank)
        self.report["valid"] = {"base": base, "finalists": finalists}
        missed = self.args.max_fpr is not None and best["fpr"] > self.args.max_fpr
        abstain = missed or best["score"] <= base["score"]
        if missed:
            why = f"no setting tried had an FPR of at most {self.args.max_fpr:g} on VALID; the adapter abstains"
        elif abstain:
            why = "no setting tried was better than the bare model on VALID; the adapter abstains"
        else:
            why = f"the best of {len(finalists)} finalists that generated on VALID, ranked by {self.args.goal}"
        setting = _setting(best)._replace(alpha=0.0) if abstain else _setting(best)
        adapter = self._build(setting)
        self.report["chosen"] = {
            **setting._asdict(),
            "absolute_step": adapter.config.step,
            "abstains": abstain,
            "why": why,
            "valid": base if abstain else best,
        }
        return adapter

    def _scored(self, triggered: np.ndarray) -> dict[str, Any]:
        """The objective (higher is better) on VALID, beside the numbers it was made of."""
        m = trigger_metrics([int(row["label"]) for row in self.splits["valid"]], triggered)
        bound = upper_confidence_bound(m["fp"], m["fp"] + m["tn"])
        scored = {"score": self.args.score(m), "f1": m["f1"], "recall": m["recall"], "fpr": m["fpr"]}
        return {**scored, "fpr_upper_bound_95": bound}

    def _scored_answers(self, answers: Sequence[str]) -> dict[str, Any]:
        return self._scored(np.array([self.parser.triggered(answer) for answer in answers]))

    def _config(self, setting: Setting) -> ASAConfig:
        config = text_config(self.model)
        return ASAConfig(
            hidden_size=hidden_size(self.model),
            num_layers=len(self._blocks),
            layer=setting.layer,
            domains=self._domains,
            alpha=setting.alpha,
            tau=setting.tau,
            beta=setting.beta,
            residual_norm=self._fits[setting.layer].residual_norm,
            probe=setting.probe,
            base_model=_public_name(self.model),
            base_model_revision=getattr(self.model.config, "_commit_hash", None),
            model_type=getattr(config, "model_type", None),
            layer_path=self.args.layer_path,
            tool_call_format=self.parser.format,
            tool_call_start=self.parser.start,
            tool_call_end=self.parser.end,
            chat_template=self.args.chat_template,
            chat_template_sha256=chat_template_sha256(self.tokenizer),
            chat_template_variables=template_variables(self.tokenizer),
            tools=self._shared_tools(),
        )

    def _build(self, setting: Setting) -> ASAAdapter:
        fit = self._fits[setting.layer]
        return ASAAdapter(self._config(setting), fit.vectors, fit.router, fit.probes, self.report)

    def _shared_tools(self) -> list[dict[str, Any]] | None:
        """The tools that all calibration rows were offered; None where they differ."""
        offered = [row_tools(row, self.tools) for row in self.splits["cal"]]
        return offered[0] if all(tools == offered[0] for tools in offered) else None

    def _new_report(self) -> dict[str, Any]:
        arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.args).items()}
        return {
            "report_version": 1,
            "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()},
            "tool_call_format": self.parser.format,
            "splits": {
                name: {"rows": len(rows), "tool_needed": sum(int(row["label"]) for row in rows)}
                for name, rows in self.splits.items()
            },
            "domains": list(self._domains),
            "blind_layers": [],
            "layers": {},
            "screen": {},
            "valid": {},
            "chosen": {},
            "evaluations": {},
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in _REPORTED_PACKAGES}},
            "seconds": {},
        }

    def _timing(self, stage: str, began: float) -> None:
        self.report["seconds"][stage] = round(time.perf_counter() - began, 2)


def _public_name(model: Any) -> str | None:
    """The model's id on the Hub, or a folder's own name: where it lies on this machine is nobody's business."""
    name = str(getattr(model, "name_or_path", "") or "")
    return (Path(name).resolve().name if Path(name).is_dir() else name) or None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _setting(scored: Mapping[str, Any]) -> Setting:
    return Setting(**{name: scored[name] for name in Setting._fields})


def _rank(scored: Mapping[str, Any]) -> tuple[float, float, float]:
    """Sort key: the best score first, then the smaller step, then the gate that opens less often."""
    return (-round(scored["score"], 9), scored["alpha"], -scored["tau"])

"""`ASAAdapter`: a fitted adapter, to be loaded, attached to a model, saved and shared."""

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.diagnostics.explanation import Explanation, explain
from asa_adapter.errors import AdapterHabits
from asa_adapter.hub.adapter_source import load_from_source, refuse_model_and_path
from asa_adapter.hub.client import full_repo_id, push
from asa_adapter.hub.folder import Parts, write_folder
from asa_adapter.hub.judged_folder import KNOWS_VALID, judged_digest, judged_in_folder, report_of_copy
from asa_adapter.matching.parser_and_openings import config_with_action, parser_of_config
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.parts.classifiers import Probes, Router
from asa_adapter.parts.vectors import SteeringVectors
from asa_adapter.policy.controller import Controller
from asa_adapter.policy.decided_states import decisions_of_states
from asa_adapter.policy.decision import Decision
from asa_adapter.policy.digest import controller_digest
from asa_adapter.steering.attaching import checked_attaching
from asa_adapter.steering.hook import SteeringHandle
from asa_adapter.tool_calls.parser import ToolCallParser


class ASAAdapter(AdapterHabits):
    """Directions, router, probes and settings of one fitted adapter.

    Args:
        config: the settings.
        vectors: steering vectors, one row for each of the config's domains.
        router: the router; its domains are those of the config, in any order.
        probes: the pooled probe, and those of single domains.
        report: how the adapter was fitted and what was measured, for report.json and the model card.

    Attributes:
        config, vectors, router, probes, report: the arguments.
        commit: hash of the Hub commit that from_pretrained() loaded; None for a local folder.
        judged: the adapter as VALID judged it, before it was fitted once more with VALID's rows; None until asked for.

    Raises:
        ValueError: the parts do not fit together.
    """

    def __init__(
        self,
        config: ASAConfig,
        vectors: SteeringVectors,
        router: Router,
        probes: Probes,
        report: dict[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.vectors = vectors
        self.router = router
        self.probes = probes
        self.report = report
        self.commit: str | None = None
        self.judged: ASAAdapter | None = None
        self._source: Path | None = None  # the folder that it was last loaded from or saved in
        self._controller = Controller.build(config, vectors, router, probes)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"ASAAdapter(base_model={config.base_model!r}, layer={config.layer}, domains={list(config.domains)}, "
            f"alpha={config.alpha:g}, tau={config.tau:g}, beta={config.beta:g}, probe={config.probe!r}"
            + (f", commit={self.commit[:8]!r})" if self.commit else ")")
        )

    def decide(self, states: ArrayLike, kinds: Sequence[str] | None = None) -> list[Decision]:
        """Decides for residual states, without a model.

        Args:
            states: (n, D) states of the last prompt token at the config's layer, as an array or tensor of any float
                dtype; (R, n, D) where the probes read other layers too, those of `config.hooked`.
            kinds: (n,) kind of each state, one of `config.states`; None for the first of these.

        Returns:
            n decisions, with position -1 and applied False, since nothing is steered.

        Raises:
            ValueError: `states` has another shape, or a kind was not fitted.
        """
        return decisions_of_states(self._controller, self.config, states, kinds)

    def digest(self) -> str:
        """Hexadecimal SHA-256 of everything that decides and steers; adapters with the same digest do the same."""
        return controller_digest(self._controller, self.config)

    def with_action(self, action: str, bias: float | None = None, *, tokenizer: Any = None) -> "ASAAdapter":
        """A copy of the adapter, without what was measured of it, that acts otherwise on the same decisions.

        Args:
            action: "steer", "bias" or "both"; see `ASAConfig`.
            bias: what the gate adds to the logits of the calls' openings; `math.inf` forces or forbids one. None for
                the config's.
            tokenizer: the model's tokenizer; needed where the config does not name the openings.

        Raises:
            ValueError: an unknown action or a negative bias, or the openings are not known.
        """
        other = copy.copy(self)
        other.config = config_with_action(self.config, action, bias, tokenizer)
        self._find_judged(leave_damaged=True)
        other.judged = self.judged and self.judged.with_action(action, bias, tokenizer=tokenizer)
        other.report, other._source = report_of_copy(self.report, other.judged), None
        own = Controller.build(other.config, self.vectors, self.router, self.probes)
        other._controller = self._controller.acting_like(own)
        return other

    def for_split(self, split: str) -> "ASAAdapter":
        """The adapter to measure on the rows of a split.

        With `refit=True` a trainer fits once more when all is chosen, with VALID's rows too. What is measured or
        chosen on VALID is to be of the fit before, which the folder that it writes holds in "judged".

        Args:
            split: name of the split.

        Returns:
            On "valid" the one that was judged there; this one otherwise, and with a warning where that is not at hand.

        Raises:
            AdapterFormatError: what the folder holds in "judged" is damaged.
        """
        if split != "valid":
            return self
        self._find_judged()
        if self.judged is None and judged_digest(self):
            warnings.warn(KNOWS_VALID, stacklevel=2)
        return self.judged or self

    def _find_judged(self, **how: bool) -> None:
        self.judged = self.judged or judged_in_folder(self, self._source, lambda parts: ASAAdapter(*parts), **how)

    def attach(
        self,
        model: Any,
        *,
        tokenizer: Any = None,
        tools: Tools | None = None,
        allow_mismatch: bool = False,
        steer_without_tools: bool = False,
        states: str = "fitted",
    ) -> SteeringHandle:
        """Steers the model's own generate() until the returned handle is removed.

        Everything is checked first (every weight once, a second for a billion); a model that is refused is unchanged.
        Quantised weights are warned of, unless the adapter was fitted on them.

        Args:
            model: any AutoModelForCausalLM that fits the config, also inside a PeftModel or torch.compile(); or one
                that another engine runs, such as `asa_adapter.llamacpp.GGUFModel`.
            tokenizer: the tokenizer that renders the prompts. If given, its chat template and the tool-call marker
                are checked too.
            tools: the tools that prompts will offer. If given, a warning says where they are not those of the fit.
            allow_mismatch: warn instead of refusing the model if its name, revision, weights, chat template or
                tool-call marker is not that of the fitted adapter. Type, width and depth must always fit.
            steer_without_tools: steer prompts that offer no tools too, which otherwise are left alone.
            states: "fitted" leaves prompts alone that end in a kind of state that the adapter was not fitted on, such
                as behind a tool's result, where config or tokenizer tell the kinds apart; "all" steers these too.

        Returns:
            The handle, which is also a context manager: the adapter is removed when the `with` block ends.

        Raises:
            IncompatibleModelError: type, width or depth differ, the decoder blocks are not found, the block's output
                is not the residual stream, PEFT puts learnt tokens before the prompt, the model is a wrapper such as
                `DataParallel`, or there is a mismatch that `allow_mismatch` would allow.
            ValueError: the model already has an adapter at this layer, or the adapter biases the tokens with which
                calls begin, and neither its config nor a tokenizer tells them; or another value of `states`.
        """
        if states not in ("fitted", "all"):
            raise ValueError(f"states is {states!r:.80}; expected 'fitted' or 'all'")
        scope = {"steer_without_tools": steer_without_tools, "every_state": states == "all"}
        return self._attaching(model, tokenizer, tools, allow_mismatch, **scope)()

    def _attaching(
        self, model: Any, tokenizer: Any = None, tools: Tools | None = None, mismatch: bool = False, **scope: bool
    ) -> Callable[[], SteeringHandle]:
        """What attaches the adapter, as often as it is called; all checks of `attach` are made before."""
        return checked_attaching(model, self.config, self._controller, (tokenizer, tools, mismatch), **scope)

    def generate(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Attaches the adapter, returns `model.generate(*args, **kwargs)`, and removes the adapter.

        All arguments are the model's own, `tokenizer` too; to check one, or to allow a mismatch, call `attach`.

        Raises:
            IncompatibleModelError: as in `attach`.
            ValueError: as in `attach`, or by generate().
        """
        with self.attach(model):
            return model.generate(*args, **kwargs)

    def parser(self, tokenizer: Any) -> ToolCallParser:
        """A parser for the model's tool calls, in the config's formats, or in the tokenizer's if the config has none.

        Raises:
            ValueError: the config's format is unknown, or it has none and the tokenizer shows no known one.
        """
        return parser_of_config(self.config, tokenizer)

    def explain(
        self,
        model: Any,
        tokenizer: Any,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        tools: Tools | None = None,
        max_new_tokens: int = 64,
        allow_mismatch: bool = False,
        trust_template: bool = False,
    ) -> Explanation:
        """Answers one prompt without and with the adapter, and explains the decision; print the result to read it.

        Args:
            model: the model to steer.
            tokenizer: its tokenizer.
            prompt: the user's text, or a chat.
            tools: tools to offer; None for those that the adapter was fitted with.
            max_new_tokens: greatest length of an answer, in tokens.
            allow_mismatch: as in `attach`.
            trust_template: whether to render the prompt with the adapter's own chat template, if it has one and comes
                from the Hub. A chat template is a program; any adapter's runs in a sandbox, for seconds at most.

        Returns:
            A dict of plain JSON types; `Explanation` lists its keys.

        Raises:
            ValueError: an adapter is attached to the model already, the prompt cannot be rendered, or a chat template
                from the Hub is not trusted.
            IncompatibleModelError: the adapter does not fit the model.
        """
        trust = {"allow_mismatch": allow_mismatch, "trust_template": trust_template}
        return explain(self, model, tokenizer, prompt, tools=tools, max_new_tokens=max_new_tokens, **trust)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes the adapter into a folder.

        The files are asa_config.json, steering_vectors.safetensors, router.skops, probes.skops, report.json, README.md
        (the model card), if matplotlib is installed plots/*.png of the report, and judged/ with the files of what was
        judged on VALID, if it was fitted once more (see `for_split`). All of it is written, or nothing:
        an adapter that was there stays whole until the new one is. Other files stay, and so does a model card that was
        edited, here or in the folder that the adapter was last loaded from or saved in: a warning says so.

        Args:
            folder: where to write; created if it is missing.

        Returns:
            The folder.

        Raises:
            OSError: the folder or a file cannot be written.
            ValueError: it could not be loaded again: a file would be too large, or hold what cannot be read.
        """
        self._find_judged(leave_damaged=True)
        judged = None if self.judged is None else self.judged._parts()
        write_folder(Path(folder), self._parts(), source=self._source, judged=judged)
        self._source = Path(folder).absolute()
        return Path(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Pushes the adapter to the Hugging Face Hub: one commit holds everything, or nothing is changed there.

        A model card that was edited stays as it is, with a warning: that in the folder that the adapter was loaded
        from or saved in last, else that in the repository.

        Args:
            repo_id: "user/name", or "name" for one of yours; made where it is missing.
            private: whether a new repository is private; None for your account's default.
            token: access token; None takes the one you logged in with.
            commit_message: what the commit says.
            branch: where the commit goes, made where it is missing; None for "main".
            create_pr: open a pull request instead.

        Returns:
            The commit's URL.

        Raises:
            OSError: the Hub refused or was not reached; the message says why and what to do.
            ValueError: both a branch and a pull request.
        """
        repo_id = full_repo_id(repo_id, token)
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), self._parts(), repo_id, self._source)
            kind: dict[str, Any] = {"private": private, "branch": branch, "create_pr": create_pr}
            return push(Path(folder), repo_id, token=token, commit_message=commit_message, **kind)

    @classmethod
    def from_pretrained(
        cls,
        repo_id_or_folder: str | Path,
        *others: object,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> "ASAAdapter":
        """Loads an adapter from a folder or from the Hugging Face Hub.

        No code from the repository is run. Sizes and checksums are checked first; then vectors are read from a
        safetensors file, and classifiers from skops files that may hold only logistic regressions. No other files are
        fetched.

        Args:
            repo_id_or_folder: a local folder, or else a repository id such as "user/lfm25-asa".
            revision: branch, tag or commit; None for "main".
            token: access token; None uses the one you logged in with, False uses none.
            cache_dir: folder of the download cache; None for the default one.
            force_download: whether to fetch files again that are already in the cache.
            local_files_only: whether to use only the cache, without a connection.

        Returns:
            The adapter.

        Raises:
            FileNotFoundError: there is no such folder, and the name cannot be a repository id.
            AdapterDownloadError: the repository could not be fetched.
            DamagedDownloadError: the fetched files are not a valid adapter. It is both an AdapterDownloadError and an
                AdapterFormatError.
            AdapterFormatError: a file is missing, damaged or invalid.
        """
        refuse_model_and_path(repo_id_or_folder, others)
        download: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
        download |= {"force_download": force_download, "local_files_only": local_files_only}
        found = load_from_source(repo_id_or_folder, lambda parts: cls(*parts), **download)
        adapter: ASAAdapter = found.adapter
        adapter._source, adapter.commit = found.folder, found.commit
        return adapter

    def _parts(self) -> Parts:
        return Parts(self.config, self.vectors, self.router, self.probes, self.report)

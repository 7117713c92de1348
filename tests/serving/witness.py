"""What a worker of vLLM saw: `--worker-extension-cls witness.Witness` adds it, `/collective_rpc` asks for it."""

import math
from typing import Any


class Witness:
    """Further methods of vLLM's worker, whose other half has `model_runner`."""

    model_runner: Any

    def asa_decided(self) -> list[float]:
        """Domain, p(tool) and gate of the latest prompt, which are then forgotten; [] where it was left alone."""
        injection = next(part for part in self.model_runner.model.modules() if type(part).__name__ == "Injection")
        found = list(map(float, injection.decided[0].tolist()))
        injection.decided.fill_(math.nan)
        return [] if math.isnan(found[1]) else found

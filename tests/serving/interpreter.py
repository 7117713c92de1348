"""Model Runner V2 on a machine without a GPU: its Triton kernels run in Triton's own interpreter, slowly.

Only for tests. vLLM takes Triton for usable where it has a "cpu" back end; this puts one in that can do nothing, since
interpreted kernels need none.
"""

import os


def install() -> None:
    """Prepares this process, before vLLM and Triton are imported."""
    os.environ |= {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
    from triton.backends import Backend, backends
    from triton.backends.compiler import BaseBackend, GPUTarget
    from triton.backends.driver import DriverBase

    class Driver(DriverBase):
        @staticmethod
        def is_active() -> bool:
            return True

        def map_python_to_cpp_type(self, ty: str) -> str:
            raise NotImplementedError("interpreted kernels are not compiled")

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cpu", 0, 1)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_active_torch_device(self) -> str:
            return "cpu"

        def get_benchmarker(self) -> None:
            raise NotImplementedError("interpreted kernels are not timed")

    backends["cpu"] = Backend(compiler=BaseBackend, driver=Driver)
    from triton.runtime import driver

    driver.set_active(Driver())

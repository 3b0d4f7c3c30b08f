"""The kernels in C; everything else about the package is in pyproject.toml.

Where they cannot be compiled, installation goes on without them: each has a form in torch.
"""

from setuptools import Extension, setup

FOLDER = "src/transduce/kernels"

setup(
    ext_modules=[
        Extension(
            "transduce.kernels._kernels",
            sources=[
                f"{FOLDER}/{name}.c"
                for name in ("module", "products", "steps", "copying", "search")
            ],
            depends=[f"{FOLDER}/{name}.h" for name in ("kernels", "simd", "best")],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            py_limited_api=True,  # one build for every Python
            extra_compile_args=["-O3", "-g0"],
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)

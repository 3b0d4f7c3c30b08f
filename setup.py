"""The kernels in C; everything else about the package is in pyproject.toml.

Where they cannot be compiled, installation goes on without them: each has a form in torch.
"""

from setuptools import Extension, setup

FOLDER = "src/transduce/kernels"
SOURCES = ("module", "products", "steps", "search", "training")

setup(
    ext_modules=[
        Extension(
            "transduce.kernels._kernels",
            sources=[f"{FOLDER}/{name}.c" for name in SOURCES],
            depends=[f"{FOLDER}/{name}.h" for name in ("kernels", "simd")],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            py_limited_api=True,  # one build for every Python
            # OpenMP's library is the one that torch has loaded, its threads are torch's.
            extra_compile_args=["-O3", "-g0", "-fopenmp"],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)

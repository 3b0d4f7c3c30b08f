"""The kernels in C; everything else about the package is in pyproject.toml.

Where they cannot be compiled, installation goes on without them: each has a form in torch.
"""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

FOLDER = "src/transduce/kernels"
SOURCES = (
    *("module", "products", "tiles", "matrices", "vectors"),
    *("steps", "copying", "ops", "search", "training", "losses", "entries", "rounding"),
)
HEADERS = ("kernels", "simd", "best", "tiles", "layouts", "search", "threads", "random")
THREADS = (
    "-fopenmp"  # as a rule the library is the one that torch has loaded, its threads are torch's
)


class Build(build_ext):
    """Without threads where the compiler has none, as Apple's: kernels then use one."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (CompileError, LinkError):
            ext.extra_compile_args.remove(THREADS)
            ext.extra_link_args.remove(THREADS)
            super().build_extension(ext)


setup(
    ext_modules=[
        Extension(
            "transduce.kernels._kernels",
            sources=[f"{FOLDER}/{name}.c" for name in SOURCES],
            depends=[f"{FOLDER}/{name}.h" for name in HEADERS],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            py_limited_api=True,  # one build for every Python
            extra_compile_args=["-O3", "-g0", THREADS],
            extra_link_args=[THREADS],
            optional=True,
        )
    ],
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)

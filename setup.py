"""Packaging of coca_jax: `pip install .`, with an accelerator `pip install ".[cuda]"` or `".[tpu]"`.

install_requires is what the two commands of the README need (quickstart and tests, real data). models/, losses.py,
sharding.py, generation/ and trainer/ need less: jax, flax, optax, orbax-checkpoint and ml_collections.
"""

import pathlib
import re

from setuptools import find_namespace_packages, setup

# Where TensorFlow's packages have wheels. tensorflow-text (which seqio requires) has none for Windows, and neither has
# one for Python 3.14: there the core still installs and runs, without seqio's data pipeline (on Windows, use WSL 2).
# jaxlib and tensorflow no longer support Intel Macs.
TENSORFLOW = 'python_version < "3.14"'
SEQIO = f'{TENSORFLOW} and sys_platform != "win32"'
# Google builds libtpu for Linux on x86-64 only.
LIBTPU = 'jax[tpu]; platform_machine == "x86_64" and sys_platform == "linux"'
VIDEO = "av>=14.0"
VERSION = re.findall('__version__ = "(.+)"', pathlib.Path("coca_jax/__init__.py").read_text(encoding="utf-8"))[0]
FAST = ["opencv-python-headless>=4.10", "simplejpeg>=1.8"]

setup(
    name="coca_jax",
    version=VERSION,
    description="Contrastive Captioners (CoCa, arXiv 2205.01917) in JAX and Flax",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["coca_jax", "coca_jax.*"]),
    package_data={"coca_jax.pages": ["templates/*"]},
    install_requires=[
        "absl-py>=2.3.1",
        "braceexpand>=0.1.7",  # patterns of shards: {00000..00099}.tar
        "chex>=0.1.90",
        "etils[epath]>=1.9",  # paths of disks and buckets; orbax-checkpoint requires it too
        "fsspec>=2024.6",  # data in buckets: gs:// through gcsfs, s3:// through s3fs
        "flax>=0.12.8,<0.13",
        "jax>=0.10.2,<0.12",  # 0.10.2 is the last for Python 3.11
        "jinja2>=3.1",  # reports and other pages
        "ml_collections>=1.1.0",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8,<0.13",
        "pillow>=11.3",  # the first that decodes AVIF
        "pyarrow>=17.0",  # Parquet; tensorflow-datasets requires it, too
        "scikit-learn>=1.5",  # digit_scenes: its bundled handwriting
        "sentencepiece>=0.2.1",
        "tensorboardX>=2.6.2",
        "tqdm>=4.66",
        # Data. tensorflow-text requires `tensorflow` itself: naming tensorflow-cpu would install a second copy.
        'array_record>=0.8.3; sys_platform == "linux"',  # reads gs://; required by tensorflow-datasets, too
        "tensorflow-datasets>=4.9.10",
        f"tensorflow>=2.21,<2.22; {TENSORFLOW}",
        f"tensorflow-text>=2.21,<2.22; {SEQIO}",
        f"seqio==0.0.20; {SEQIO}",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],  # NVIDIA driver 580 or newer
        "cuda12": ["jax[cuda12]"],  # NVIDIA driver 525 or newer
        "tpu": ["jax[tpu]", "gcsfs>=2024.6", "google-cloud-storage>=2.18"],
        "plan": [LIBTPU],  # the TPU's compiler, which needs no TPU: for python -m coca_jax.plan
        # Data on gs://, and run folders there: Orbax asks google-cloud-storage about the bucket.
        "gcs": ["gcsfs>=2024.6", "google-cloud-storage>=2.18"],
        "s3": ["s3fs>=2024.6"],  # data on s3://
        "captioning": ["pycocoevalcap>=1.2"],  # METEOR and SPICE, which need a Java runtime as well
        "video": [VIDEO],  # clips: mp4, mkv, webm, mov, avi
        # Training from JPEGs at nearly the speed of their decoder; see coca_jax/data/images/fast_jpeg.py.
        "fast": FAST,
        # importlib_resources: tensorflow-datasets' builders import it without requiring it.
        "test": [
            "hypothesis>=6.100",
            "importlib_resources>=6.0",
            "mypy>=1.18",
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            VIDEO,
            *FAST,
        ],
    },
)

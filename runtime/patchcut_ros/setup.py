"""What colcon builds (`colcon build --packages-select patchcut_ros`); pip takes it, too."""

from setuptools import setup

NAME = "patchcut_ros"

setup(
    name=NAME,
    version="0.1.0",
    description="patchcut as a ROS 2 node, and for bags without ROS",
    license="Apache-2.0",
    packages=[NAME],
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/patchcut.launch.py"]),
        (f"share/{NAME}/config", ["config/patchcut.yaml"]),
    ],
    python_requires=">=3.10",
    install_requires=["setuptools"],  # patchcut itself has an index of its own: docs/ros.md
    extras_require={"bags": ["rosbags>=0.11,<0.12"]},
    entry_points={"console_scripts": ["patchcut_node = patchcut_ros.node:main"]},
    zip_safe=True,
)

"""The package as colcon takes it: what it declares, its launch file, and what a build installs."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import patchcut
import pytest
from tests.packaging.conftest import run

PACKAGE = Path(__file__).parents[2] / "runtime/patchcut_ros"
NAME = PACKAGE.name
# Of Python itself, of pip, or of the package.
NOT_OF_ROS = {*sys.stdlib_module_names, "numpy", "patchcut", "patchcut_ros", "rosbags", "typer", "setuptools"}


@pytest.fixture(scope="module")
def declared() -> ElementTree.Element:
    return ElementTree.parse(PACKAGE / "package.xml").getroot()


def test_it_is_a_package_of_ament_python_with_patchcuts_version(declared: ElementTree.Element) -> None:
    assert declared.tag == "package" and declared.get("format") == "3"
    assert [declared.findtext(name) for name in ("name", "version", "license")] == [
        NAME,
        patchcut.__version__,
        "Apache-2.0",
    ]
    assert declared.findtext("export/build_type") == "ament_python"
    assert f'version="{patchcut.__version__}"' in (PACKAGE / "setup.py").read_text()
    assert f'__version__ = "{patchcut.__version__}"' in (PACKAGE / NAME / "__init__.py").read_text()
    assert (PACKAGE / "resource" / NAME).read_bytes() == b""


def test_what_it_needs_of_ros_is_declared(declared: ElementTree.Element) -> None:
    needed = set()
    for path in [*PACKAGE.glob(f"{NAME}/*.py"), *PACKAGE.glob("launch/*.py")]:
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            needed |= {name.partition(".")[0] for name in names}
        needed |= {name.partition("/")[0] for name in re.findall(r"kind\(f?\"(\w+)/", text)}
    found = {one.text for one in declared.findall("exec_depend")}
    assert {"rclpy", "sensor_msgs", "vision_msgs", "diagnostic_msgs"} <= needed
    assert needed - NOT_OF_ROS <= found
    # OpenCV and numpy are what the pip package takes of ROS' own Python
    assert found - needed == {"python3-numpy", "python3-opencv"}


class Recorded:
    """An action of launch, and how it was made."""

    def __init__(self, *args: Any, **how: Any) -> None:
        self.args, self.how = args, how


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Recorded]]:
    """A stand-in for launch and launch_ros, in which every class is `Recorded`."""
    names = {
        "ament_index_python.packages": ("get_package_share_directory",),
        "launch": ("LaunchDescription",),
        "launch.actions": ("DeclareLaunchArgument", "EmitEvent", "RegisterEventHandler"),
        "launch.conditions": ("IfCondition",),
        "launch.events": ("matches_action",),
        "launch.substitutions": ("LaunchConfiguration",),
        "launch_ros.actions": ("LifecycleNode",),
        "launch_ros.event_handlers": ("OnStateTransition",),
        "launch_ros.events.lifecycle": ("ChangeState",),
    }
    for module, members in names.items():
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        for member in members:
            setattr(sys.modules[module], member, type(member, (Recorded,), {}))
    index: Any = sys.modules["ament_index_python.packages"]
    index.get_package_share_directory = lambda name: PACKAGE if name == NAME else pytest.fail(name)
    transitions: Any = ModuleType("lifecycle_msgs.msg")
    transitions.Transition = SimpleNamespace(TRANSITION_CONFIGURE=1, TRANSITION_ACTIVATE=3)
    monkeypatch.setitem(sys.modules, "lifecycle_msgs.msg", transitions)
    yield Recorded


def test_the_launch_file_starts_configures_and_activates(launch: type[Recorded]) -> None:
    made = runpy.run_path(str(PACKAGE / "launch/patchcut.launch.py"))["generate_launch_description"]()
    actions = made.args[0]
    of_kind = {
        kind: [one for one in actions if type(one).__name__ == kind]
        for kind in ("DeclareLaunchArgument", "LifecycleNode", "EmitEvent", "RegisterEventHandler")
    }
    arguments = {one.args[0]: one.how["default_value"] for one in of_kind["DeclareLaunchArgument"]}
    assert Path(arguments["params"]).is_file() and arguments["image"] == "image_raw"
    (node,) = of_kind["LifecycleNode"]
    assert (node.how["package"], node.how["executable"]) == (NAME, "patchcut_node")
    assert [source for source, _ in node.how["remappings"]] == ["image_raw", "image_raw/compressed"]
    (configure,) = of_kind["EmitEvent"]
    assert configure.how["event"].how["transition_id"] == 1 and configure.how["condition"] is not None
    (handler,) = of_kind["RegisterEventHandler"]
    when = handler.args[0].how
    assert (when["start_state"], when["goal_state"]) == ("configuring", "inactive")
    assert when["entities"][0].how["event"].how["transition_id"] == 3


@pytest.mark.packaging
def test_colcon_builds_it(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", str(tmp_path / "tools"))
    python = tmp_path / "tools/bin/python"
    # setuptools 80 took away the command that colcon installs with
    wanted = ["colcon-core>=0.18,<1", "colcon-ros>=0.5,<1", "colcon-library-path<1", "setuptools<80"]
    run(str(python), "-m", "pip", "install", "-q", *wanted)
    run(
        str(tmp_path / "tools/bin/colcon"),
        f"--log-base={tmp_path / 'log'}",
        "build",
        f"--paths={PACKAGE}",
        f"--build-base={tmp_path / 'build'}",
        f"--install-base={tmp_path / 'install'}",
    )
    installed = tmp_path / "install" / NAME
    for name in (
        f"share/ament_index/resource_index/packages/{NAME}",
        f"share/{NAME}/package.xml",
        f"share/{NAME}/launch/patchcut.launch.py",
        f"share/{NAME}/config/patchcut.yaml",
        f"lib/{NAME}/patchcut_node",
    ):
        assert (installed / name).is_file(), name
    (package,) = installed.glob(f"lib/python3.*/site-packages/{NAME}")
    modules = {path.name for path in (PACKAGE / NAME).glob("*.py")}
    assert modules <= {path.name for path in package.iterdir()}

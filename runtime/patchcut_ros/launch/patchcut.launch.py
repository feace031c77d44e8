"""Starts the node, and configures and activates it.

ros2 launch patchcut_ros patchcut.launch.py image:=/camera/image_raw params:=mine.yaml
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition


def generate_launch_description():
    config = Path(get_package_share_directory("patchcut_ros"), "config", "patchcut.yaml")
    arguments = {
        "image": ("image_raw", "Topic of the images; compressed ones are on TOPIC/compressed."),
        "params": (str(config), "Parameters of the node."),
        "name": ("patchcut", "Name of the node."),
        "namespace": ("", "Namespace of the node."),
        "autostart": ("true", "Configure and activate it."),
    }
    image = LaunchConfiguration("image")
    node = LifecycleNode(
        package="patchcut_ros",
        executable="patchcut_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params")],
        remappings=[("image_raw", image), ("image_raw/compressed", [image, "/compressed"])],
        output="screen",
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))
    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[_ask(node, Transition.TRANSITION_ACTIVATE)],
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in arguments.items()
            ),
            RegisterEventHandler(configured, condition=autostart),
            node,
            _ask(node, Transition.TRANSITION_CONFIGURE, autostart),
        ]
    )


def _ask(node, transition, condition=None):
    """Asks the node for a transition of its lifecycle."""
    change = ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
    return EmitEvent(event=change, condition=condition)

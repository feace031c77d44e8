"""patchcut for ROS 2: a lifecycle node, and the same loop over bags, which needs no ROS.

Everything but `node` runs without rclpy: messages are made by whoever has their classes.
"""

__version__ = "0.1.0"

"""Engines that need the packages of `patchcut[export]`: torch."""

"""From features to regions: the steps of a frame, each an object that others use as well."""

"""The page of `patchcut serve` with the model inside it: a folder that needs no server of patchcut's."""

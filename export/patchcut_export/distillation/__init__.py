"""Students: small backbones that learn a teacher's features and masks, with a mask decoder in their graph."""

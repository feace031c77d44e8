"""What patchcut is measured against, written from what its authors published."""

"""`python -m patchcut`, and what the script `patchcut` runs."""

from patchcut.cli import signals


def main() -> None:
    """Run the command line and exit; a signal ends it quietly, also while its modules are imported."""
    signals.leave_at_once()
    from patchcut.cli.app import main as run

    try:
        run()
    finally:
        signals.ignore()


if __name__ == "__main__":
    main()

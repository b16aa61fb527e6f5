"""``multilevel`` and ``python -m multilevel``."""

from .engine.cli import app


def main() -> None:
    """Run the command line."""
    app(prog_name="multilevel")


if __name__ == "__main__":
    main()

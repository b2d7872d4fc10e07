"""``python -m mmsa_cache`` is ``mmsa``."""

from mmsa_cache.module_path import guard


def main() -> None:
    """Entry point of the console script."""
    guard()  # before anything else is imported
    from mmsa_cache.cli.title import hide_passwords

    hide_passwords()  # before it takes long to import more
    from mmsa_cache.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()

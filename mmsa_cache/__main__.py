"""``python -m mmsa_cache`` is ``mmsa``."""

from mmsa_cache.module_path import drop_working_folder


def main() -> None:
    """Entry point of the console script."""
    drop_working_folder()  # before anything else is imported
    from mmsa_cache.cli.arguments import hide_passwords

    hide_passwords()  # before it takes long to import more
    from mmsa_cache.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()

"""``python -m fastlisten``: the command line."""

from fastlisten.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

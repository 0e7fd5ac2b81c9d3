"""The command `fastlisten`: one module per subcommand."""

"""The command line: parse, call, print. Heavy parts are loaded inside the command that needs them."""

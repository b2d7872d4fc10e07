"""The one way to files: written over no link, whole or not at all; read with a limit."""

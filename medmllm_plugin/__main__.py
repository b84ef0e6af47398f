"""`python -m medmllm_plugin` is the command `medmllm`."""

from __future__ import annotations

from medmllm_plugin.cli import main

if __name__ == "__main__":
    main()

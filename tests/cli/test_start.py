"""That the command line is there at once."""

from __future__ import annotations

import subprocess
import sys


def test_help_and_import_load_nothing_heavy() -> None:
    script = (
        "import sys, tagmask.cli\n"
        "try: tagmask.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'pydantic', 'yaml', 'timm', 'gradio', 'matplotlib', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for verb in ("demo", "train", "label", "refine", "predict", "evaluate", "report", "serve", "push", "export"):
        assert verb in done.stdout

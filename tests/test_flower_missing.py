"""Without Flower, everything else works and the adapter says what to install."""

import subprocess
import sys


def test_without_flower_the_adapter_says_what_to_install():
    code = (
        "import sys; sys.modules['flwr'] = None\n"
        "import precode_lib.rounds\n"
        "try:\n"
        "    import precode_lib.rounds.flower\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'precode-lib[flower]'" in output.stdout

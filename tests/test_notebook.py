"""The worked notebook: its cells run, and print what the notebook shows."""

import json
import re

from logit_distributions.store import places

PATH = places.ROOT / "paper" / "own-network.ipynb"
NUMBER = r"-?\d+(\.\d+)?"


def test_cells_run_and_print_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert PATH.stat().st_size < 20_000
    names, printed, shown = {}, [], []
    for cell in json.loads(PATH.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            printed += capsys.readouterr().out.split()
            shown += "".join(text for out in cell["outputs"] for text in out["text"]).split()
    # numbers hang on the processor, here and there by a verdict
    assert [re.sub(NUMBER, "#", word) for word in printed] == [
        re.sub(NUMBER, "#", word) for word in shown
    ]
    natural = 100 * (names["dataset"].logits.argmax("class") == names["dataset"].label).mean()
    assert f"{natural.item():.2f}" in printed
    assert f"{natural.item():.2f}" in shown
    assert names["same"].mean() > 0.9

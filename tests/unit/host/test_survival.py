"""What a campaign keeps of its faults."""

import json

from trivet.testing.lab.survival import Survived, add, figures, read


def test_what_was_seen_is_kept_and_read_again(tmp_path):
    file = tmp_path / "seen"
    assert read(file) == read(None) == []
    seen = [Survived("kill-holder+0.5", 1.0, 0.5, 3.0, seed=4), Survived("rot-holder+0.0")]
    for one in seen:
        add(file, one)
        add(None, one)
    assert read(file) == seen


def test_figures_are_of_each_kind_and_leave_out_the_waits_of_what_went_wrong():
    seen = [Survived(f"pause-replica+{n}.0", wait_s=float(n)) for n in range(1, 101)]
    wrong = Survived("pause-replica+1.0", wait_s=999.0, wrong="lost")
    told = json.loads(figures([*seen, wrong, Survived("slow-holder+1.0", wrong="late")]))
    assert told["slow-holder"] == {"n": 1, "wrong": 1}
    kind = told["pause-replica"]
    assert (kind["n"], kind["wrong"]) == (101, 1)
    assert (kind["wait_s_p50"], kind["wait_s_p99"], kind["wait_s_max"]) == (50.0, 99.0, 100.0)

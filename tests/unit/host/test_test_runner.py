"""The runner of all tests: what it reads from a report, and that failing is never quiet."""

from trivet.host import testing
from trivet.host.testing import Result, read_report, run_stages

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase name="a"/><testcase name="b"><failure message="no"/></testcase>
<testcase name="c"><error message="no"/></testcase>
<testcase name="d"><skipped message="needs root"/></testcase>
<testcase name="e"><skipped message="needs root"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_summed_up_with_the_reasons_of_what_was_left_out():
    result = read_report(REPORT)
    assert (result.passed, result.failed, result.skipped) == (1, 2, 2)
    assert result.reasons == {"needs root": 2}
    assert str(result) == "1 passed, 2 failed, 2 skipped"


def test_stages_are_added_up():
    total = Result(passed=1)
    total.add(read_report(REPORT))
    total.add(Result(passed=5))
    assert str(total) == "7 passed, 2 failed, 2 skipped"


def test_a_file_that_does_not_even_import_is_a_failure(tmp_path):
    broken = tmp_path / "test_broken_here.py"
    broken.write_text("import no_such_module_anywhere\n")
    assert run_stages(tmp_path, [str(broken)], soak=False).failed == 1


def test_an_option_that_pytest_does_not_know_is_a_failure(tmp_path):
    fine = tmp_path / "test_fine_here.py"
    fine.write_text("def test_it():\n    pass\n")
    assert run_stages(tmp_path, ["--no-such-option", str(fine)], soak=False).failed == 1


def test_each_stage_runs_what_is_its_own_and_is_told_as_a_whole(tmp_path, monkeypatch, capsys):
    for folder in ("unit", "contract", "lab"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / f"test_{folder}_here.py").touch()
    ran = []

    def run(folder, arguments, said=None):
        ran.append(" ".join(arguments))
        said.write("one line\nanother line\n")
        return Result(passed=1, failed=int("tests/lab" in arguments))

    monkeypatch.setattr(testing, "lint", lambda folder: Result(passed=4))
    monkeypatch.setattr(testing, "_pytest", run)
    result = run_stages(tmp_path, ["-x"], soak=True)
    assert (result.passed, result.failed) == (8, 1)
    assert sorted(ran) == [
        "-m not root -x --soak tests/contract",
        "-m root -x --soak tests/contract",
        "-x --soak tests/lab",
        "-x --soak tests/unit",
    ]
    assert ran.index("-m root -x --soak tests/contract") < ran.index("-x --soak tests/lab")
    told = capsys.readouterr().out
    for head in ("unit: 1 passed, 0 failed", "lab: 1 passed, 1 failed"):
        assert f"==> {head} in 0 s\none line\nanother line\n" in told
